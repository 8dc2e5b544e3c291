"""Sessions in the archive: what is read, found, forked, merged, written and removed is what it would be without one."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

import perdure
from perdure import Event, op
from perdure.model.ids import SessionKey
from tests.support.engine.archived import S, archive, held, history, loaded, place, segments, turns


async def test_an_archived_session_reads_as_before(url: str, tmp_path: Path) -> None:
    """All of it goes but one commit; its state, every version of it, its history from both ends and its keys are those that it had."""
    async with perdure.open(url, archive=archive(tmp_path), snapshot_bytes_min=600) as store:
        await turns(store, 30)
        await store.configure(S, tags={"team": "ops"})
        before, moment = await history(store), (await history(store))[9].time
        done = await store.archive(S, actor="janitor")
        assert (done.session, done.version, done.commits) == (S, 33, 32)
        assert done.segment_bytes == segments(tmp_path)[0].stat().st_size
        assert await held(store, tmp_path) == [33]
        assert (await loaded(store, tmp_path)).snapshot is None
        view = await store.read(S)
        assert (view.version, view.status, view.tags) == (33, perdure.Status.archived, {"team": "ops"})
        assert view.state == {"turns": list(range(30))}
        commits = await history(store)
        assert commits[:31] == before
        assert [(commit.kind.name, commit.events[0].type, commit.actor) for commit in commits[31:]] == [
            ("anchor", "preparing", "janitor"), ("anchor", "archived", "janitor"),
        ]  # fmt: skip
        assert await history(store, newest_first=True) == commits[::-1]
        assert await history(store, after=7, before=12) == before[7:11]
        assert [[event.type for event in commit.events] for commit in await history(store, types={"message"}, limit=3)] == [["message"]] * 3
        for version in range(1, 31):
            past = await store.read(S, at=version)
            assert (past.state, past.hash, past.at) == (
                {"turns": list(range(version))}, before[version - 1].hash, before[version - 1].at,
            )  # fmt: skip
        assert (await store.read(S, at=moment)).version == 10
        receipt = await store.find(S, "k5")
        assert receipt is not None
        assert (receipt.version, receipt.hash) == (6, before[5].hash)
        assert await store.find(S, "none") is None
        assert (await store.verify(S)).commits == 33
        assert (await store.archive(S)).commits == 0
        assert [info.session async for info in store.list(status="archived")] == [S]
        assert [info.session async for info in store.list(status="active")] == []


async def test_the_first_write_restores(url: str, tmp_path: Path) -> None:
    """An append, an edit, an update and a merge make an archived session live; a key that was applied is not applied again."""
    async with perdure.open(url, archive=archive(tmp_path)) as store:
        for number, write in enumerate(("append", "append with ops", "edit", "update", "exact")):
            name = f"s{number}"
            await turns(store, 5, name)
            seen = (await store.read(name)).version
            await store.archive(name)
            match write:
                case "append":
                    await store.append(name, Event("note"))
                case "append with ops":
                    await store.append(name, Event("x", None, (op.append("/turns", [5]),)), expect=seen)
                case "edit":
                    async with store.edit(name, on_conflict="raise") as draft:
                        draft.state["turns"].append(5)
                case "update":
                    await store.update(name, lambda draft: draft.state["turns"].append(5))
                case _:
                    await store.append(name, Event("x", None, (op.append("/turns", [5]),)), expect=seen, on_conflict="raise")
            view = await store.read(name)
            assert (view.version, view.status) == (9, perdure.Status.active)
            assert view.state["turns"] == list(range(5 if write == "append" else 6))
            kinds = [commit.events[0].type for commit in await history(store, name, after=5)]
            assert kinds[:3] == ["preparing", "archived", "restored"]
            await store.verify(name)
        await store.archive("s0")
        again = await store.append("s0", Event("message", {"n": 0}), key="note", on_conflict="merge")
        assert not again.duplicate
        await store.archive("s0")
        assert (await store.append("s0", Event("message", {"n": 0}), key="note")).duplicate
        assert (await store.read("s0")).status == perdure.Status.archived  # A retry writes nothing.


async def test_restoring_by_hand(url: str, tmp_path: Path) -> None:
    """`restore` says whether there was something to restore; then the engine alone has the head, after many rounds too."""
    async with perdure.open(url, archive=archive(tmp_path)) as store:
        await turns(store, 5)
        assert await store.restore(S) is False
        for number in range(4):
            await store.archive(S)
            assert await store.restore(S) is True
            assert await store.restore(S) is False
            assert (await loaded(store, tmp_path)).snapshot is not None
            await turns(store, 1, start=5 + number)
        assert (await store.read(S)).state == {"turns": list(range(9))}
        assert [commit.version for commit in await history(store)] == list(range(1, 22))
        assert (await store.verify(S)).commits == 21
        assert len(segments(tmp_path)) == 4


async def test_forks_of_what_is_archived(url: str, tmp_path: Path) -> None:
    """A fork of an archived session, and one whose parent was archived since, read through; both merge; each may be archived itself."""
    async with perdure.open(url, archive=archive(tmp_path)) as store:
        await turns(store, 8)
        old = await store.fork(S, at=3)
        await store.archive(S)
        new = await store.fork(S, at=5)
        head = await store.fork(S)
        assert (await store.read(S)).status == perdure.Status.archived  # A fork does not restore its parent.
        for name, count in ((old, 3), (new, 5), (head, 8)):
            assert (await store.read(name)).state == {"turns": list(range(count))}
            assert [commit.version for commit in await history(store, name)][: count + 1] == list(range(1, count + 2))
            async with store.edit(name) as draft:
                draft.state[f"from {count}"] = True
            await store.archive(name)
            assert (await store.read(name, at=2)).state == {"turns": [0, 1]}
            receipt = await store.merge(name, into=S)
            assert receipt is not None
            await store.verify(name)
        assert (await store.read(S)).state == {"turns": list(range(8)), "from 3": True, "from 5": True, "from 8": True}
        await store.archive(S)
        assert await store.merge(head, into=S) is None
        await store.verify(S)


async def test_watchers_and_readers_go_on_across_a_truncation(url: str, tmp_path: Path) -> None:
    """A watcher and a reader that are in the middle when the commits go get every one of them, once and in order."""
    async with perdure.open(url, archive=archive(tmp_path)) as store:
        await turns(store, 600)
        forwards, backwards = store.history(S), store.history(S, newest_first=True)
        bounded = store.history(S, before=550)
        watch = store.watch(S, after=100)
        seen: list[list[int]] = [[(await anext(each)).version for _ in range(3)] for each in (forwards, backwards, bounded, watch)]
        await store.archive(S)
        rest = [[commit.version async for commit in each] for each in (forwards, backwards, bounded)]
        assert seen[0] + rest[0] == list(range(1, 603))
        assert seen[1] + rest[1] == list(range(600, 0, -1))
        assert seen[2] + rest[2] == list(range(1, 550))
        await store.append(S, Event("last"))
        while seen[3][-1] < 604:
            seen[3].append((await anext(watch)).version)
        assert seen[3] == list(range(101, 605))


async def test_deleted_and_born_again(url: str, tmp_path: Path) -> None:
    """An archived session can be deleted; audits read its past from the archive; a new life is archived after it; purge removes all."""
    async with perdure.open(url, archive=archive(tmp_path)) as store:
        await turns(store, 6)
        await store.compact(S, keep=2)
        await store.archive(S)
        await store.delete(S)
        assert (await store.read(S, at=4, include_deleted=True)).state == {"turns": [0, 1, 2, 3]}
        assert [commit.version for commit in await history(store, include_deleted=True)] == list(range(1, 12))
        await store.verify(S)
        with pytest.raises(perdure.Deleted):
            await store.archive(S)
        with pytest.raises(perdure.Deleted):
            await store.restore(S)
        receipt = await store.append(S, Event("again", None, (op.set("/life", 2),)), key="k0", recreate=True)
        assert not receipt.duplicate
        await store.archive(S)
        assert (await store.read(S)).state == {"life": 2}
        assert [commit.version for commit in await history(store)] == [12, 13, 14]
        assert [commit.version for commit in await history(store, include_deleted=True)] == list(range(1, 15))
        assert (await store.find(S, "k0")).version == 12  # type: ignore[union-attr]
        assert await store.find(S, "k1") is None
        await store.verify(S)
        await store.delete(S)
        await store.purge(S)
        assert segments(tmp_path) == []


async def test_what_is_kept(url: str, tmp_path: Path) -> None:
    """`compact` keeps the newest commits in the engine, by number or time; the rest reads as before; a second time nothing happens."""
    async with perdure.open(url, archive=archive(tmp_path)) as store:
        await turns(store, 40)
        before = await history(store)
        assert (await store.compact(S, keep=50)).commits == 0
        assert (await store.compact(S, keep=timedelta(days=1))).commits == 0
        done = await store.compact(S, keep=10)
        assert (done.commits, done.version) == (30, 42)
        assert await held(store, tmp_path) == list(range(31, 43))
        assert (await history(store))[:40] == before
        assert (await store.compact(S, keep=timedelta(0))).commits == 12
        assert await held(store, tmp_path) == [43, 44]
        for version in (1, 15, 30, 31, 40):
            assert (await store.read(S, at=version)).state == {"turns": list(range(version))}
        assert (await store.read(S)).status == perdure.Status.active
        await store.verify(S)


async def test_what_is_dropped_is_gone(url: str, tmp_path: Path) -> None:
    """With `drop` older commits are `Truncated`, and so are segments; the head, its keys and what is kept stay."""
    async with perdure.open(url, archive=archive(tmp_path)) as store:
        await turns(store, 20)
        await store.compact(S, keep=15)
        assert len(segments(tmp_path)) == 1
        assert (await store.compact(S, keep=10, drop=True)).commits == 7
        assert segments(tmp_path) == []
        with pytest.raises(perdure.Truncated) as found:
            await history(store)
        assert found.value.first == 13
        with pytest.raises(perdure.Truncated):
            await store.read(S, at=5)
        assert (await store.read(S)).state == {"turns": list(range(20))}
        assert [commit.version for commit in await history(store, after=12)] == list(range(13, 24))
        assert (await store.find(S, "k3")).version == 4  # type: ignore[union-attr]
        await turns(store, 5)  # Their keys are known, so nothing is written.
        assert (await store.verify(S)).commits == 11
        await store.archive(S)
        assert (await store.read(S)).state == {"turns": list(range(20))}
        assert [commit.version for commit in await history(store, after=12)] == list(range(13, 26))
        with pytest.raises(perdure.Truncated):
            await history(store)
        await store.verify(S)
        await turns(store, 1, start=20)
        await store.verify(S)


async def test_forks_and_dropping(url: str, tmp_path: Path) -> None:
    """Nothing that a fork reads is dropped; once the fork is purged, it is. A fork of what was dropped has a snapshot of its own."""
    async with perdure.open(url, archive=archive(tmp_path)) as store:
        await turns(store, 10)
        fork = await store.fork(S, at=4)
        with pytest.raises(perdure.Invalid, match=fork):
            await store.compact(S, keep=2, drop=True)
        assert [commit.version for commit in await history(store)] == list(range(1, 12))
        await store.compact(S, keep=2)  # With a segment a fork is no hindrance.
        await store.delete(fork)
        await store.purge(fork)
        await store.compact(S, keep=0, drop=True)
        with pytest.raises(perdure.Truncated):
            await store.fork(S, at=4)
        late = await store.fork(S)
        assert (await loaded(store, tmp_path, late)).snapshot is not None
        await turns(store, 3, start=10)
        await store.compact(S, keep=0, drop=True)
        assert (await store.read(late)).state == {"turns": list(range(10))}
        await store.verify(late)
        await store.verify(S)


async def test_large_sessions_take_several_segments(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that is larger than a segment may be is archived in several, and reads as one."""
    monkeypatch.setattr("perdure.engine.archive.making.SEGMENT_BYTES_MAX", 1_000)
    monkeypatch.setattr("perdure.engine.archive.making.PAGE", 16)
    monkeypatch.setattr("perdure.codec.pack.FRAME_BYTES", 1_000)
    async with perdure.open(url, archive=archive(tmp_path)) as store:
        await turns(store, 100)
        before = await history(store)
        await store.archive(S)
        assert len(segments(tmp_path)) > 3
        assert (await history(store))[:100] == before
        assert (await history(store, newest_first=True))[-100:] == before[::-1]
        for version in (1, 33, 64, 99):
            assert (await store.read(S, at=version)).state == {"turns": list(range(version))}
        await store.verify(S)


async def test_many_restorers(file_url: str, tmp_path: Path) -> None:
    """Writers in several stores that find one session archived all write; it is restored once, and nothing is lost."""
    async with perdure.open(file_url, archive=archive(tmp_path)) as one, perdure.open(file_url, archive=archive(tmp_path)) as two:
        await turns(one, 5)
        await one.archive(S)
        await asyncio.gather(*[store.append(S, Event("x", None, (op.add("/n", 1),))) for store in (one, two) for _ in range(8)])
        assert (await one.read(S)).state["n"] == 16
        kinds = [commit.events[0].type for commit in await history(two, after=5)]
        assert kinds.count("restored") == 1
        await two.verify(S)


async def test_tenants_stay_apart(url: str, tmp_path: Path) -> None:
    """Two tenants' sessions of one name have segments of their own; purging one leaves the other."""
    async with perdure.open(url, archive=archive(tmp_path)) as store:
        other = store.for_tenant("acme")
        for each, count in ((store, 3), (other, 4)):
            await turns(each, count)
            await each.archive(S)
        await store.delete(S)
        await store.purge(S)
        assert (await other.read(S)).state == {"turns": [0, 1, 2, 3]}
        assert len(segments(tmp_path)) == 1


def test_blocking(tmp_path: Path) -> None:
    """The blocking API archives, reads, restores and compacts too."""
    with perdure.sync.open(f"sqlite:///{tmp_path}/s.db", archive=place(tmp_path)) as store:
        for number in range(5):
            with store.edit(S) as draft:
                draft.state["n"] = number
        assert store.archive(S).commits == 6
        assert store.read(S, at=3).state == {"n": 2}
        assert store.restore(S)
        assert store.compact(S, keep=0).commits == 2
        store.verify(S)


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("leased", [False, True])
async def test_a_second_life_is_known_after_its_beginning_went(tmp_path: Path, *, dropped: bool, leased: bool) -> None:
    """A process that meets a session in its second life, of which neither the tombstone nor the first commits are in the engine, tells the
    lives apart: a key of the first is new, one of the second is known, and what was read in the first may not be written on. It needs the
    archive for none of that but the receipt of a known key."""
    url = f"sqlite:///{tmp_path}/store.db"
    async with perdure.open(url, archive=place(tmp_path)) as store:
        await store.append(S, Event("first"), key="old")
        await store.append(S, Event("first"))
        await store.delete(S)
        await store.append(S, Event("second"), key="new", recreate=True)
        await turns(store, 12)
        if leased:
            async with store.lease(S, owner="w", wait=0) as lease:
                await store.append(S, Event("under"), lease=lease)
            await turns(store, 6, start=20)
        await store.compact(S, keep=3, drop=dropped)
        head = (await store.read(S)).version
    async with perdure.open(url) as fresh:
        (found,) = await fresh._core.backend.heads([_KEY])
        assert found is not None
        assert await fresh._core.reader.incarnation_start(_KEY, found) == 3
        with pytest.raises(perdure.Conflict, match="deleted and created again"):
            await fresh.append(S, Event("late"), expect=2)
        if dropped:
            again = await fresh.append(S, Event("second"), key="new")
            assert (again.version, again.duplicate) == (4, True)
        receipt = await fresh.append(S, Event("another"), key="old")
        assert (receipt.version, receipt.duplicate) == (head + 1, False)


_KEY = SessionKey("default", S)
