"""`changes` of sessions that went to the archive, in part or whole, before they were read."""

from __future__ import annotations

from pathlib import Path

import pytest

import perdure
from perdure import Event, Kind


async def test_what_the_archive_has_comes_after_a_gap_and_of_a_fork(tmp_path: Path) -> None:
    """Where a session's oldest commits were dropped and later ones archived, these come after the error; those of a fork come at once."""
    async with perdure.open("memory:", archive=f"file://{tmp_path}") as store:
        for number in range(12):
            await store.append("s", Event("n", number))
        await store.fork("s", at=4, id="t")
        await store.append("t", Event("n", 99))
        await store.archive("t")
        assert [version for change, version in await told(store, "t")] == [5, 6]
        await store.delete("t")
        await store.purge("t")
        await store.compact("s", keep=8, drop=True)
        await store.compact("s", keep=2)
        with pytest.raises(perdure.Truncated, match="1 to") as gap:
            await told(store, "s")
        versions = [version for change, version in await told(store, "s", after=gap.value.cursor)]
        assert versions == list(range(versions[0], versions[-1] + 1))
        assert versions[0] <= 6


async def told(store: perdure.Store, prefix: str, after: str | None = None) -> list[tuple[str, int]]:
    """The data commits of sessions, from the start or after a cursor: session and version."""
    changes = [change async for change in store.changes(prefix=prefix, after=after, follow=False)]
    return [(change.session, change.commit.version) for change in changes if change.commit.kind in (Kind.data, Kind.configure)]


@pytest.mark.parametrize("move", ["archive", "compact", "twice"])
async def test_what_was_archived_after_a_cursor_comes(tmp_path: Path, move: str) -> None:
    """A follower that slept gets each commit after its cursor, in order, though none of them is in the feed any more."""
    async with perdure.open("memory:", archive=f"file://{tmp_path}") as store:
        await store.append("known", Event("n", 0))
        cursor = [change.cursor async for change in store.changes(follow=False)][-1]
        for number in range(1, 20):
            for session in ("known", "new"):
                await store.append(session, Event("n", number))
            if move == "twice" and number % 7 == 0:
                await store.archive("known")
        for session in ("known", "new"):
            await (store.compact(session, keep=3) if move == "compact" else store.archive(session))
        commits = [change async for change in store.changes(after=cursor, follow=False)]
        for session in ("known", "new"):
            versions = [change.commit.version for change in commits if change.session == session]
            assert versions == sorted(set(versions))
            numbers = [event.data for change in commits if change.session == session for event in change.commit.events if event.type == "n"]
            assert set(range(1, 20)) <= set(numbers)


async def test_what_was_dropped_after_a_cursor_is_said(tmp_path: Path) -> None:
    """No archive has it: `Truncated`, with a cursor to go on. Where something that was read is left below, nothing was missed."""
    async with perdure.open("memory:", archive=f"file://{tmp_path}") as store:
        await store.append("first", Event("n", 0))
        cursor = [change.cursor async for change in store.changes(follow=False)][-1]
        for number in range(20):
            await store.append("s", Event("n", number))
        late = [change.cursor async for change in store.changes(follow=False)][-2]
        await store.compact("s", keep=3, drop=True)
        with pytest.raises(perdure.Truncated, match="may have been truncated") as gap:
            _ = [change async for change in store.changes(after=cursor, follow=False)]
        rest = [change.commit async for change in store.changes(after=gap.value.cursor, follow=False)]
        assert [event.data for commit in rest for event in commit.events if event.type == "n"] == [17, 18, 19]
        up_to_date = [change.commit async for change in store.changes(after=late, follow=False)]
        assert [event.data for commit in up_to_date for event in commit.events if event.type == "n"] == [19]


async def test_more_sessions_than_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the start every commit comes, also where the archive has more sessions than a follower remembers."""
    monkeypatch.setattr("perdure.engine.live.changes.SEEN_MAX", 4)
    async with perdure.open("memory:", archive=f"file://{tmp_path}") as store:
        for session in range(12):
            for number in range(3):
                await store.append(f"s{session}", Event("n", number))
            await store.archive(f"s{session}")
        changes = [change async for change in store.changes(follow=False)]
        for session in range(12):
            own = [change.commit for change in changes if change.session == f"s{session}"]
            assert [event.data for commit in own for event in commit.events if event.type == "n"] == [0, 1, 2]
