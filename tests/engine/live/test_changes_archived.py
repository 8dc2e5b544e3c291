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
