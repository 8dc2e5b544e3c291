"""What a read gives: a state of one's own, at a version or a moment, the same with and without snapshots, and of one tenant alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

import perdure
from perdure import Event, op
from perdure.clock import SeededClock


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def noise(seed: int, size: int) -> str:
    """Text that does not compress below half its size."""
    return random.Random(seed).randbytes(size // 2).hex()


async def grow(store: perdure.Store, session: str, count: int = 30, size: int = 6_000) -> list[Any]:
    """Commits that make a state of some hundred KiB, and the states they make, kept by plain Python."""
    states: list[Any] = []
    state: dict[str, Any] = {}
    for number in range(count):
        text = noise(number, size)
        async with store.edit(session) as draft:
            draft.state[f"k{number % 20}"] = {"text": text, "n": [number]}
            draft.add("/count", 1)
        state = {**state, f"k{number % 20}": {"text": text, "n": [number]}, "count": number + 1}
        states.append(state)
    return states


async def test_snapshots_equal_the_fold(url: str) -> None:
    """A session that outgrows 64 KiB gets snapshots; every version reads as plain Python has it, and `verify` proves each snapshot."""

    async with perdure.open(url) as store:
        states = await grow(store, "s")
        assert (await store.verify("s")).snapshots >= 1
        for version, state in enumerate(states, 1):
            view = await store.read("s", at=version)
            assert (view.version, view.state) == (version, state)
        assert (await store.read("s")).state == states[-1]
        fork = await store.fork("s", at=17)
        async with store.edit(fork) as draft:
            assert draft.state == states[16]
            draft.state["fork"] = True
        assert (await store.read(fork)).state == {**states[16], "fork": True}
        await store.verify(fork)


async def test_another_store_reads_the_snapshot(file_url: str) -> None:
    """A cold open gives the same state, hash and versions, in either format and with any cache."""

    async with perdure.open(file_url) as store:
        states = await grow(store, "s")
        hash = (await store.read("s")).hash
    for options in ({}, {"format": "msgpack"}, {"cache_bytes": 0}, {"snapshot_bytes_min": 0}):
        async with perdure.open(file_url, **options) as store:  # type: ignore[arg-type]
            view = await store.read("s")
            assert (view.hash, view.state) == (hash, states[-1])
            assert (await store.read("s", at=11)).state == states[10]
            assert (await store.read("s", consistency="eventual")).state == states[-1]


async def test_a_damaged_snapshot_is_found(file_url: str) -> None:
    """A snapshot that was changed is `Corrupt` to who reads it and to `verify`; without it the state is folded from the commits."""

    async with perdure.open(file_url) as store:
        states = await grow(store, "s")
    connection = apsw.Connection(file_url.removeprefix("sqlite:///"))
    bodies = connection.execute("SELECT version, body FROM snapshot ORDER BY version").fetchall()
    version, body = bodies[-1]
    connection.execute("UPDATE snapshot SET body = ? WHERE version = ?", (body[:-1] + bytes((body[-1] ^ 1,)), version))
    connection.close()
    async with perdure.open(file_url) as store:
        with pytest.raises(perdure.Corrupt, match="snapshot of session 's'"):
            await store.read("s")
        with pytest.raises(perdure.Corrupt, match="snapshot of session 's'"):
            await store.verify("s")
    connection = apsw.Connection(file_url.removeprefix("sqlite:///"))
    connection.execute("DELETE FROM snapshot")
    connection.close()
    async with perdure.open(file_url) as store:
        assert (await store.read("s")).state == states[-1]
        await store.verify("s")


async def test_a_view_is_yours(url: str) -> None:
    """Whatever is done to a view's state, no other reader, draft or version sees it."""

    async with perdure.open(url) as store:
        async with store.edit("s") as draft:
            draft.state.update({"list": [1, {"a": 1}], "n": 0})
        for consistency in ("strong", "strong", "eventual", "strong"):
            view = await store.read("s", consistency=consistency)  # type: ignore[arg-type]
            assert view.state == {"list": [1, {"a": 1}], "n": 0}
            view.state["list"][1]["a"] = "spoiled"
            view.state["list"].append("spoiled")
            view.state["more"] = "spoiled"
            assert view.state["more"] == "spoiled"
        async with store.edit("s") as draft:
            assert draft.state == {"list": [1, {"a": 1}], "n": 0}
            draft.state["list"].append(2)
            kept = draft.state
        kept["list"].append("spoiled")
        past = await store.read("s", at=1)
        past.state["list"].append("spoiled")
        assert (await store.read("s")).state == {"list": [1, {"a": 1}, 2], "n": 0}
        assert (await store.read("s", at=1)).state == {"list": [1, {"a": 1}], "n": 0}


async def test_a_view_is_yours_while_others_write(file_url: str) -> None:
    """Also when a snapshot is due and commits land while it is read: nothing of a view is shared with what the store remembers."""

    async with perdure.open(file_url) as mine, perdure.open(file_url) as other:
        for turn in range(15):
            name = f"s{turn}"
            await mine.append(name, Event("x", None, (op.set("", {"deep": {"list": [1]}, "n": 0}),)))
            await mine.read(name)
            await mine.read(name)
            for number in range(2):
                await other.append(name, Event("y", None, (op.set(f"/big{number}", noise(turn + number, 100_000)),)))

            async def spoil(name: str = name, turn: int = turn) -> None:
                for _ in range(turn % 7):
                    await asyncio.sleep(0.0003)
                view = await mine.read(name)
                view.state["deep"]["list"].append("spoiled")

            add = Event("x", None, (op.add("/n", 1),))
            await asyncio.gather(mine.append(name, add), spoil(), mine.append(name, add))
            view = await mine.read(name)
            assert (view.state["deep"], view.state["n"]) == ({"list": [1]}, 2)


async def test_moments(url: str) -> None:
    """A datetime gives the last version not later, through a fork to its parent; before the first there is nothing."""

    async with perdure.open(url, clock=SeededClock(5, step=1_000_000)) as store:
        for _ in range(6):
            await store.append("s", Event("x", None, (op.add("/n", 1),)))
        fork = await store.fork("s", at=4)
        await store.append(fork, Event("x", None, (op.add("/n", 10),)))
        times = {commit.version: commit.at async for commit in store.history("s")}

        def moment(nanoseconds: int) -> datetime:
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1_000)

        for version in range(1, 7):
            for at in (moment(times[version]), moment(times[version + 1] - 1_000), moment(times[version]).astimezone(_west())):
                view = await store.read("s", at=at)
                assert (view.version, view.state) == (version, {"n": version})
        assert (await store.read(fork, at=moment(times[2]))).state == {"n": 2}
        assert (await store.read(fork, at=datetime.now(UTC) + timedelta(days=1))).state == {"n": 14}
        with pytest.raises(perdure.NotFound, match="did not exist at that time"):
            await store.read("s", at=moment(times[1] - 1_000))


def _west() -> Any:
    from datetime import timezone

    return timezone(timedelta(hours=-7))


async def test_eventual_and_strong(file_url: str) -> None:
    """An eventual read is some version, whole; a strong one sees all that another process was told is stored."""

    async with perdure.open(file_url) as mine, perdure.open(file_url) as other:
        async with mine.edit("s") as draft:
            draft.state["n"] = 1
        for number in range(2, 12):
            await other.append("s", Event("x", None, (op.set("/n", number),)))
            view = await mine.read("s", consistency="eventual")
            assert view.state == {"n": view.version}
            assert view.version <= number
            view = await mine.read("s")
            assert (view.version, view.state) == (number, {"n": number})
            assert (await mine.read("s", consistency="eventual")).version == number
        await other.delete("s")
        with pytest.raises(perdure.Deleted):
            await mine.read("s")


async def test_status_and_tags_are_todays(url: str) -> None:
    """At an older version the state is of then; tags, status and times are the session's of today, with and without snapshots."""

    async with perdure.open(url) as store:
        await grow(store, "s", count=15, size=12_000)
        await store.configure("s", tags={"a": "1"})
        await store.append("s", Event("x"))
        await store.configure("s", tags={"a": "2"})
        now = await store.read("s")
        (info,) = [info async for info in store.list()]
        assert (info.version, info.tags, info.updated_at) == (18, {"a": "2"}, now.updated_at)
        for version in range(1, 19):
            view = await store.read("s", at=version)
            assert (view.tags, view.status, view.created_at, view.updated_at) == (now.tags, now.status, now.created_at, now.updated_at)


async def test_tenants_are_strangers(url: str) -> None:
    """Each call sees and changes its own tenant's sessions: same ids, same keys, other worlds."""

    async with perdure.open(url, tenant="acme") as acme:
        globex = acme.for_tenant("globex")
        assert (acme.tenant, globex.tenant) == ("acme", "globex")
        for store, number in ((acme, 1), (globex, 2)):
            receipt = await store.append("s", Event("x", number, (op.set("/n", number),)), key="k", expect=0)
            assert (receipt.version, receipt.duplicate) == (1, False)
            async with store.edit("s") as draft:
                assert draft.state == {"n": number}
                draft.state["mine"] = number
            await store.update("s", lambda draft: draft.add("/n", 10))
            await store.configure("s", tags={"tenant": store.tenant})
            fork = await store.fork("s", id="fork")
            await store.append(fork, Event("x", None, (op.set("/forked", number),)))
            await store.merge(fork, into="s")
        for store, number in ((acme, 1), (globex, 2)):
            view = await store.read("s")
            assert view.state == {"n": 10 + number, "mine": number, "forked": number}
            assert view.tags == {"tenant": store.tenant}
            data = [event.data async for commit in store.history("s", types=["x"]) for event in commit.events]
            assert data == [number]
            assert [info.session async for info in store.list()] == ["fork", "s"]
            assert [info.session async for info in store.list(tags={"tenant": "globex"})] == (["s"] if store is globex else [])
        await acme.append("only", Event("x"))
        with pytest.raises(perdure.NotFound, match="'globex'"):
            await globex.read("only")
        with pytest.raises(perdure.NotFound):
            await globex.delete("only")
        await acme.delete("s")
        await globex.verify("s")
        assert (await globex.append("s", Event("x"))).version == 7
        with pytest.raises(perdure.Deleted):
            await acme.read("s")
        await globex.close()
        with pytest.raises(perdure.Closed):
            await acme.read("only")


async def test_history_by_page_type_and_direction(url: str) -> None:
    """Ranges, types, limits and both directions give what plain slices of the whole history give, through a fork too."""

    async with perdure.open(url) as store:
        for number in range(12):
            await store.append("s", Event("even" if number % 2 == 0 else "odd", number), Event("all", number))
        await store.fork("s", at=9, id="fork")
        for number in range(4):
            await store.append("fork", Event("even", number))
        for session in ("s", "fork"):
            whole = [commit async for commit in store.history(session)]
            assert [commit.version for commit in whole] == list(range(1, len(whole) + 1))
            for after in (0, 3, 8, 9, 10, 40):
                for before in (None, 0, 1, 5, 9, 10, 11, 50):
                    inside = [commit for commit in whole if commit.version > after and (before is None or commit.version < before)]
                    for limit in (None, 0, 1, 3):
                        forth = [c async for c in store.history(session, after=after, before=before, limit=limit)]
                        back = [c async for c in store.history(session, after=after, before=before, limit=limit, newest_first=True)]
                        assert forth == inside[:limit]
                        assert back == inside[::-1][:limit]
            even = [commit async for commit in store.history(session, types={"even"}, limit=5)]
            assert [event.type for commit in even for event in commit.events] == ["even"] * 5
            assert [commit.hash for commit in even] == [c.hash for c in whole if any(e.type == "even" for e in c.events)][:5]


async def test_the_end_of_a_long_history_is_read_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest few of 600 commits cost one small read; all of them, newest first, are complete and in order over growing pages."""
    read: list[int] = []

    async with perdure.open(url) as store:
        for number in range(600):
            await store.append("s", Event("step", number))
        backend = store._core.backend
        original = backend.read

        async def counted(*args: Any, **kwargs: Any) -> Any:
            records = await original(*args, **kwargs)
            read.append(len(records))
            return records

        monkeypatch.setattr(backend, "read", counted)
        newest = [commit.events[0].data async for commit in store.history("s", newest_first=True, limit=3)]
        assert (newest, read) == ([599, 598, 597], [16])
        assert [commit.events[0].data async for commit in store.history("s", newest_first=True)] == list(range(599, -1, -1))


async def test_a_fork_verifies_after_the_clock_stepped_back(tmp_path: Path) -> None:
    """A fork's first commit is later than its parent's, whatever the clock says by then."""

    url = f"sqlite:///{tmp_path}/store.db"
    async with perdure.open(url, clock=SeededClock(1)) as store:
        for _ in range(5):
            await store.append("p", Event("x"))
    async with perdure.open(url, clock=SeededClock(2, start=1_000)) as store:
        await store.fork("p", at=3, id="child")
        assert (await store.verify("child")).version == 4


async def test_the_frozen_state_is_the_copied_one(url: str) -> None:
    """`view.frozen_state` says what `view.state` says, at the head and in the past, and changing the copy leaves it as it is."""

    async with perdure.open(url) as store:
        await store.append("s", Event("e", None, (op.set("/a", [1]),)))
        await store.append("s", Event("e", None, (op.append("/a", [2]),)))
        for view, expected in ((await store.read("s"), [1, 2]), (await store.read("s", at=1), [1])):
            assert view.frozen_state == view.state == {"a": expected}
        now = await store.read("s")
        now.state["a"].append(3)
        assert now.frozen_state == (await store.read("s")).state == {"a": [1, 2]}


async def test_the_old_name_of_the_frozen_state_says_the_new_one(url: str) -> None:
    """`view.shared` is `view.frozen_state` until version 1.0, with a warning that names it."""
    async with perdure.open(url) as store:
        await store.append("s", Event("e", None, (op.set("/a", 1),)))
        view = await store.read("s")
        with pytest.warns(DeprecationWarning, match=r"use View\.frozen_state"):
            assert view.shared is view.frozen_state


@pytest.mark.parametrize("engine", ["memory:", "sqlite"])
async def test_sessions_are_listed_by_the_time_of_their_newest_commit(engine: str, tmp_path: Path) -> None:
    """Both ends are exclusive; a limit counts what fits, on however many of the engine's pages; an older session that is written to again
    is newer."""

    async with perdure.open(f"sqlite:///{tmp_path}/t.db" if engine == "sqlite" else engine) as store:
        moments = []
        for number in range(250):
            await store.append(f"s{number:03}", Event("x"))
            moments.append((await store.read(f"s{number:03}")).updated_at)

        async def listed(**asked: Any) -> list[str]:
            return [info.session async for info in store.list(**asked)]

        names = [f"s{number:03}" for number in range(250)]
        assert await listed(updated_after=moments[239]) == [name for name, at in zip(names, moments, strict=True) if at > moments[239]]
        assert await listed(updated_before=moments[10]) == [name for name, at in zip(names, moments, strict=True) if at < moments[10]]
        assert await listed(updated_after=moments[100], updated_before=moments[100]) == []
        late = [name for name, at in zip(names, moments, strict=True) if at > moments[230]]
        assert await listed(updated_after=moments[230], limit=3) == late[:3]
        assert await listed(updated_after=moments[230], limit=3, cursor=late[2]) == late[3:6]
        await store.append("s000", Event("again"))
        assert "s000" in await listed(updated_after=moments[249])
