"""Leases as their users see them: who holds, who waits, what is refused, and what costs nothing."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

import perdure
import perdure.sync
from perdure import Event, op
from perdure.backends.memory import MemoryBackend
from perdure.backends.spi import Append, Durability, Head, Outcome, Record
from perdure.clock import SeededClock, SystemClock
from perdure.codec.codec import Codec
from perdure.config import Settings
from perdure.engine.core import Core
from perdure.engine.leasing import rules as lease_rules
from perdure.engine.store import Store
from perdure.errors import Closed, Deleted, Fenced, Held, Invalid, Unavailable, Unsupported
from perdure.model.epoch import grant_of, is_held
from perdure.model.ids import SessionKey

S = SessionKey("default", "s")
OPS = Event("set", None, (op.set("/n", 1),))


class Counting(MemoryBackend):
    """Memory that counts its calls, and can be away."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.reads = self.looks = self.writes = 0
        self.away = False

    async def append(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
        self._check()
        self.writes += len(appends)
        return await super().append(appends)

    async def heads(self, sessions: Sequence[SessionKey]) -> Sequence[Head | None]:
        self._check()
        self.looks += 1
        return await super().heads(sessions)

    async def read(self, session: SessionKey, **options: Any) -> Sequence[Record]:
        self._check()
        self.reads += 1
        return await super().read(session, **options)

    def _check(self) -> None:
        if self.away:
            raise Unavailable("The engine is away.")


def store_on(backend: MemoryBackend, clock: Any = None) -> Store:
    """A store object of its own on this engine."""
    return Store(Core(backend, "memory:", clock or SystemClock(), Settings(), Durability.memory, Codec()), "default")


async def until(condition: Any, seconds: float = 60) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.01)


async def events(store: Store) -> list[str]:
    return [commit.events[0].type async for commit in store.history("s", control=True)]


async def test_a_lease_holds_and_ends(url: str) -> None:
    """It starts the session, its token rises from lease to lease, and after its end nothing is written under it."""
    async with perdure.open(url) as store:
        async with store.lease("s", owner="one", ttl=3) as first:
            assert (await store.append("s", Event("work"), lease=first)).version == 2
            async with store.edit("s", lease=first) as draft:
                draft.state["n"] = 1
            await store.update("s", lambda draft: draft.add("/n", 1), lease=first)
            await store.configure("s", tags={"a": "b"}, lease=first)
            await first.confirm()
            (held,) = [info async for info in store.leases()]
            assert (held.session, held.owner, held.token, held.ttl) == ("s", "one", first.token, 3.0)
        assert first.lost.is_set()
        async with store.lease("s", owner="two", ttl=3) as second:
            assert second.token > first.token
        assert [info async for info in store.leases()] == []
        with pytest.raises(Fenced, match="was released"):
            await store.append("s", Event("late"), lease=first)
        assert (await store.read("s")).state == {"n": 2}
        await store.verify("s")


async def test_what_was_leased_reads_as_before(url: str) -> None:
    """History, watch and their limits leave lease commits out unless they are asked for."""
    async with perdure.open(url) as store:
        async with store.lease("s", owner="one", ttl=3) as lease:
            await store.append("s", Event("work"), lease=lease)
        assert [commit.version async for commit in store.history("s", limit=1)] == [2]
        assert await events(store) == ["leased", "work", "released"]
        watch = store.watch("s")
        assert (await anext(watch)).version == 2
        await watch.aclose()
        watch = store.watch("s", control=True)
        assert [(await anext(watch)).version for _ in range(3)] == [1, 2, 3]
        await watch.aclose()


async def test_two_takers_at_once(url: str) -> None:
    """Of many that want a session at once each holds it alone, one after the other, and none is left out."""
    async with perdure.open(url) as store:
        inside, tokens = [], []

        async def work(number: int) -> None:
            async with store.lease("s", owner=f"worker {number}", ttl=3, wait=120) as lease:
                inside.append(number)
                assert inside == [number]
                tokens.append(lease.token)
                await store.append("s", Event("work", number), lease=lease)
                await asyncio.sleep(0.02)
                inside.remove(number)

        await asyncio.gather(*(work(number) for number in range(8)))
        assert tokens == sorted(tokens)
        assert len([commit async for commit in store.history("s")]) == 8


async def test_held_names_the_holder_and_wait_0_writes_nothing(url: str) -> None:
    """One that does not wait learns who holds, since when, and for how long at least; the chain is as before."""
    async with perdure.open(url) as store, store.lease("s", owner="one", ttl=3):
        before = (await store.read("s")).version
        with pytest.raises(Held) as error:
            await store.lease("s", owner="two", wait=0).__aenter__()
        assert (error.value.owner, error.value.ttl, error.value.retryable) == ("one", 3.0, True)
        assert error.value.since.utcoffset() is not None
        assert (await store.read("s")).version == before


async def test_a_blocked_loop_keeps_its_lease(file_url: str) -> None:
    """The holder's loop stands still for longer than its ttl; the thread answers, and who waits gets nothing."""
    async with perdure.open(file_url) as store, store.lease("s", owner="one", ttl=3) as lease:
        found: list[Any] = []

        def rival() -> None:
            with perdure.sync.open(file_url) as other:
                try:
                    with other.lease("s", owner="two", ttl=3, wait=7):
                        found.append("took it")
                except Held as error:
                    found.append(error)

        thread = threading.Thread(target=rival)
        thread.start()
        time.sleep(8)
        thread.join()
        assert isinstance(found[0], Held)
        await store.append("s", Event("work"), lease=lease)
        assert not lease.lost.is_set()


async def test_a_silent_holder_is_deposed_and_fenced(file_url: str) -> None:
    """Nobody answers: who waits takes over after the ttl, and the old holder can neither write, nor confirm, nor release."""
    async with perdure.open(file_url) as store, perdure.open(file_url) as other:
        lease = await store.lease("s", owner="one", ttl=3).__aenter__()
        store._core.leases.keeper.remove(lease)  # As if its process stood still.
        async with other.lease("s", owner="two", ttl=3, wait=60) as taken:
            assert taken.token > lease.token
            for write in (
                store.append("s", Event("late"), lease=lease),
                store.append("s", OPS, lease=lease),
                store.update("s", lambda draft: draft.add("/n", 1), lease=lease),
                store.configure("s", tags={}, lease=lease),
                lease.confirm(),
                lease.release(),
            ):
                with pytest.raises(Fenced):
                    await write
            assert lease.lost.is_set()
            await other.append("s", Event("work"), lease=taken)
        assert "late" not in await events(store)


async def test_short_waits_add_up(file_url: str) -> None:
    """One that never waits for a whole ttl takes over in the end: the store remembers since when the holder has been silent."""
    async with perdure.open(file_url) as store, perdure.open(file_url) as other:
        lease = await store.lease("s", owner="one", ttl=3).__aenter__()
        store._core.leases.keeper.remove(lease)
        refused = 0
        while True:
            try:
                async with other.lease("s", owner="two", ttl=3, wait=0.5):
                    break
            except Held:
                refused += 1
                assert refused < 100
        assert refused > 1
        assert (await events(store)).count("challenged") == 1


async def test_a_release_is_noticed_by_who_waits(url: str) -> None:
    """Who waits takes over when the holder lets go, long before the ttl is over."""
    async with perdure.open(url) as store:
        lease = await store.lease("s", owner="one", ttl=3_600).__aenter__()

        async def wait() -> int:
            async with store.lease("s", owner="two", ttl=3, wait=60) as next:
                return next.token

        waiter = asyncio.create_task(wait())
        await asyncio.sleep(0.2)
        await lease.release()
        async with asyncio.timeout(30):
            assert await waiter > lease.token


async def test_the_loss_is_an_event(file_url: str) -> None:
    """`lost` wakes a task and a thread when another grant is seen; a lease that was broken is lost too."""
    async with perdure.open(file_url) as store:
        async with store.lease("s", owner="one", ttl=3) as lease:
            seen = threading.Event()
            thread = threading.Thread(target=lambda: perdure.sync.LeaseEnd(lease.lost).wait(60) and seen.set())
            thread.start()
            waiter = asyncio.create_task(lease.lost.wait(60))
            assert not await lease.lost.wait(0.01)
            broken = await store.break_lease("s", actor="operator")
            assert broken is not None
            assert broken.owner == "one"
            assert await waiter
            thread.join(60)
            assert seen.is_set()
        assert await store.break_lease("s") is None
        assert [(commit.events[0].type, commit.actor) async for commit in store.history("s", control=True)][-1] == ("broken", "operator")


async def test_an_engine_that_is_away_for_a_ttl() -> None:
    """`lost` is set when the engine was not reached for a ttl, and not before it has been asked."""
    backend = Counting()
    store = store_on(backend)
    async with store.lease("s", owner="one", ttl=3) as lease:
        backend.away = True
        assert await lease.lost.wait(60)
        backend.away = False
    await store.close()


async def test_nobody_competes_and_nothing_is_written() -> None:
    """Holders of 300 sessions look at their heads, two requests a look, and write nothing; appends under a lease cost one request each."""
    backend = Counting()
    store = store_on(backend)
    leases = [await store.lease(f"s{number}", owner="one", ttl=3).__aenter__() for number in range(300)]
    began, writes, looks = time.monotonic(), backend.writes, backend.looks
    await until(lambda: backend.looks >= looks + 4)
    seconds = time.monotonic() - began
    assert backend.writes == writes
    assert backend.looks - looks <= 2 * (seconds / (0.8 * 3 / 3) + 2)
    backend.looks, backend.writes = 0, 0
    store._core.leases.keeper.stop()
    for lease in leases[:50]:
        await store.append(lease.session, Event("work"), lease=lease)
    assert backend.writes == 50
    await store.close()


async def test_max_hold_ends_a_lease(url: str) -> None:
    """A worker that hangs keeps others out for `max_hold` at most, though its thread is alive."""
    async with perdure.open(url) as store, store.lease("s", owner="one", ttl=3, max_hold=0.5) as lease:
        async with store.lease("s", owner="two", ttl=3, wait=60) as next:
            assert next.token > lease.token
        assert lease.lost.is_set()
        with pytest.raises(Fenced):
            await store.append("s", Event("late"), lease=lease)


async def test_exclusive_refuses_everyone_else(url: str) -> None:
    """Data, merges and tags without the lease are `Fenced`; reads, forks, a delete and who waits are not."""
    async with perdure.open(url) as store:
        await store.append("s", OPS)
        child = await store.fork("s")
        await store.append(child, Event("more", None, (op.set("/m", 1),)))
        async with store.lease("s", owner="one", ttl=3, exclusive=True) as lease:
            for write in (
                store.append("s", Event("x")),
                store.append("s", OPS),
                store.update("s", lambda draft: draft.add("/n", 1)),
                store.merge(child, into="s"),
                store.configure("s", tags={}),
            ):
                with pytest.raises(Fenced, match="exclusive"):
                    await write
            with pytest.raises(Fenced):
                async with store.edit("s") as draft:
                    draft.state["n"] = 3
            second = await store.fork("s")
            await store.append(second, OPS)
            await store.merge(child, into="s", lease=lease)
            await store.configure("s", tags={"a": "b"}, lease=lease)
            await store.delete("s")
            with pytest.raises(Deleted):
                await store.append("s", Event("x"), lease=lease)
        await store.append("s", OPS, recreate=True)
        assert lease.lost.is_set()


async def test_a_second_life_fits_no_lease_of_the_first(url: str) -> None:
    """A lease that was taken before a delete is `Fenced` after the session was created again, also with `recreate`."""
    async with perdure.open(url) as store:
        lease = await store.lease("s", owner="one", ttl=3).__aenter__()
        await store.append("s", OPS, lease=lease)
        await store.delete("s")
        with pytest.raises(Fenced):
            await store.append("s", OPS, lease=lease, recreate=True)
        await store.append("s", OPS, recreate=True)
        with pytest.raises(Fenced):
            await store.append("s", OPS, lease=lease)
        with pytest.raises(Fenced):
            await lease.release()
        async with store.lease("s", owner="two", ttl=3, wait=0):
            pass


async def test_a_deleted_session_is_not_leased(url: str) -> None:
    """Nor one in a store that is closed."""
    async with perdure.open(url) as store:
        await store.append("s", OPS)
        await store.delete("s")
        with pytest.raises(Deleted):
            await store.lease("s", owner="one").__aenter__()
    with pytest.raises(Closed):
        store.lease("s", owner="one")


async def test_leases_of_others_are_invalid(file_url: str) -> None:
    """A lease of another session, tenant or store object, and what is no lease, are `Invalid`; nothing is written."""
    async with perdure.open(file_url) as store, perdure.open(file_url) as other, store.lease("s", owner="one", ttl=3) as lease:
        for write in (
            lambda: store.append("t", OPS, lease=lease),
            lambda: store.for_tenant("acme").append("s", OPS, lease=lease),
            lambda: other.append("s", OPS, lease=lease),
            lambda: store.append("s", OPS, lease=lease.token),
            lambda: store.edit("t", lease=lease),
        ):
            with pytest.raises(Invalid):
                await write()
        assert await events(store) == ["leased"]


@pytest.mark.parametrize(
    "bad",
    [
        {"ttl": 2.9}, {"ttl": 86_401}, {"ttl": 10**400}, {"wait": 10**5_000},
        {"ttl": float("nan")}, {"ttl": "30"}, {"ttl": True}, {"wait": -1}, {"wait": float("inf")},
        {"max_hold": -1}, {"max_hold": float("inf")}, {"owner": ""}, {"owner": 7}, {"owner": "x" * 256}, {"exclusive": 1},
    ],
    ids=lambda bad: str({name: value if not isinstance(value, int) or value < 10**9 else "huge" for name, value in bad.items()}),
)  # fmt: skip
async def test_bad_input(bad: dict[str, Any]) -> None:
    """Each is `Invalid` at the call, before anything is asked."""
    async with perdure.open("memory:") as store:
        with pytest.raises(Invalid):
            store.lease("s", **{"owner": "one", **bad})


async def test_a_wait_for_the_end_of_a_lease_is_a_number_of_seconds() -> None:
    """Anything else is `Invalid`, and not a wait without an end."""
    async with perdure.open("memory:") as store, store.lease("s", owner="one", ttl=3) as lease:
        for timeout in (-1, float("nan"), float("inf"), 10**5_000, "30", True):
            with pytest.raises(Invalid, match="timeout must be"):
                await lease.lost.wait(timeout)  # type: ignore[arg-type]
        assert not await lease.lost.wait(0)


async def test_an_edit_that_writes_to_its_own_leased_session(url: str) -> None:
    """Neither waits for the other. What the block writes by other calls stands when they return; the edit is merged with it, or is a
    `Conflict` of which nothing is stored."""
    async with perdure.open(url) as store, store.lease("s", owner="one", ttl=30, exclusive=True) as lease:
        async with asyncio.timeout(30), store.edit("s", lease=lease) as draft:
            draft.state["outer"] = 1
            await store.append("s", Event("inner"), lease=lease)
            async with store.edit("s", lease=lease) as inner:
                inner.state["inner"] = 1
        assert (await store.read("s")).state == {"outer": 1, "inner": 1}
        before = (await store.read("s")).version

        async def clash() -> None:
            async with asyncio.timeout(30), store.edit("s", lease=lease) as draft:
                draft.state["outer"] = 2
                await store.append("s", Event("inner", None, (op.set("/outer", 3),)), lease=lease)

        with pytest.raises(perdure.Conflict, match="nothing was written"):
            await clash()
        view = await store.read("s")
        assert (view.state["outer"], view.version) == (3, before + 1)
        with pytest.raises(perdure.Fenced):
            async with store.edit("s") as draft:
                draft.state["outer"] = 4
        await lease.confirm()


async def test_a_lease_of_an_earlier_life_is_fenced(url: str) -> None:
    """Every call that takes a lease refuses one of a session that was deleted, or created again, since; nothing is written."""
    async with perdure.open(url) as store, store.lease("s", owner="one", ttl=30) as lease:
        await store.append("s", OPS, lease=lease)
        await store.delete("s")
        with pytest.raises((perdure.Fenced, Deleted)):
            await store.append("s", OPS, lease=lease)
        await store.append("s", OPS, recreate=True)
        before = (await store.read("s")).version
        await store.append("other", OPS)
        await store.fork("s", id="fork")
        before = (await store.read("s")).version
        for write in (
            lambda: store.append("s", OPS, lease=lease),
            lambda: store.update("s", lambda draft: draft.add("/n", 1), lease=lease),
            lambda: store.configure("s", tags={"a": "b"}, lease=lease),
            lambda: store.merge("fork", into="s", lease=lease),
            lease.confirm,
            lease.release,
        ):
            with pytest.raises(perdure.Fenced, match=r"decide again|holds the session|has ended|was released"):
                await write()
        assert (await store.read("s")).version == before


async def test_a_lease_is_entered_once_and_rightly() -> None:
    """Used wrongly, it says how it is used."""
    async with perdure.open("memory:") as store:
        leasing = store.lease("s", owner="one", ttl=3)
        with pytest.raises(Invalid, match="asynchronous"), leasing:  # type: ignore[attr-defined]
            pass
        async with leasing:
            with pytest.raises(Invalid, match="once"):
                await leasing.__aenter__()


async def test_a_ttl_is_longer_where_the_engine_does_not_notify() -> None:
    """Holders look less often there."""

    class Deaf(MemoryBackend):
        capabilities = perdure.Capabilities(**{
            name: getattr(MemoryBackend.capabilities, name) for name in perdure.Capabilities.__struct_fields__ if name != "notification"
        }, notification=False)  # fmt: skip

    store = store_on(Deaf(SystemClock()))
    with pytest.raises(Invalid, match="10 to 86,400"):
        store.lease("s", owner="one", ttl=9)
    await store.close()


async def test_rows_without_a_place_for_leases() -> None:
    """A store of schema 1 says which command gives it one; nothing is written."""

    class Old(MemoryBackend):
        capabilities = perdure.Capabilities(**{
            name: getattr(MemoryBackend.capabilities, name) for name in perdure.Capabilities.__struct_fields__ if name != "scan_orders"
        })  # fmt: skip

    store = store_on(Old(SystemClock()))
    with pytest.raises(Unsupported, match="perdure upgrade"):
        store.lease("s", owner="one")
    await store.close()


async def test_a_take_between_is_no_new_life(url: str) -> None:
    """A fork's pin, a key of an earlier life, an edit and a merge that a take came between go on as if nothing had been."""
    async with perdure.open(url) as store:
        await store.append("s", OPS, key="k")
        await store.delete("s")
        await store.append("s", OPS, recreate=True)
        child = await store.fork("s")
        await store.append(child, Event("more", None, (op.set("/m", 1),)))
        taking = store._core.backend.append

        async def slip(appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
            """Somebody takes and releases the lease between the decision and the append."""
            if appends[0].key == "k":  # The first try, which finds that an earlier life has used the key.
                return await taking(appends)
            store._core.backend.append = taking  # type: ignore[method-assign]
            async with store.lease("s", owner="one", ttl=3):
                pass
            return await taking(appends)

        async def edited() -> None:
            async with store.edit("s") as draft:
                draft.state["e"] = 1

        for write in (
            lambda: store.fork("s"),
            lambda: store.append("s", OPS, key="k"),
            lambda: store.append("s", Event("x"), key="k2"),
            edited,
            lambda: store.update("s", lambda draft: draft.add("/n", 1)),
            lambda: store.merge(child, into="s"),
        ):
            store._core.backend.append = slip  # type: ignore[method-assign]
            await write()
        assert (await store.read("s")).state == {"n": 2, "e": 1, "m": 1}
        found = await store.find("s", "k")
        assert found is not None
        assert found.version > 5
        await store.verify("s")


async def test_a_new_life_between_is_not_the_same(url: str) -> None:
    """The same calls are refused where a delete and a second life, which somebody leased, came between."""
    async with perdure.open(url) as store:
        await store.append("s", OPS, key="k")
        await store.delete("s")
        taking = store._core.backend.append

        async def slip(appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
            if appends[0].key == "k":
                return await taking(appends)
            store._core.backend.append = taking  # type: ignore[method-assign]
            await store.delete("s")
            await store.append("s", OPS, recreate=True)
            async with store.lease("s", owner="one", ttl=3):
                pass
            return await taking(appends)

        for write in (lambda: store.fork("s"), lambda: store.append("s", Event("x"), key="k")):
            await store.append("s", OPS, recreate=True) if (await store._core.backend.heads([S]))[0].status else None
            store._core.backend.append = slip  # type: ignore[method-assign]
            with pytest.raises(perdure.Conflict, match="deleted and created again"):
                await write()


async def test_a_session_leased_a_thousand_times_costs_few_reads() -> None:
    """A cold history, find and fork bisect once for the session's life, over a thousand takes; what was read before costs none."""
    backend = Counting()
    store = store_on(backend)
    await store.append("s", OPS, key="first")
    await store.delete("s")
    await store.append("s", OPS, recreate=True)
    for _ in range(1_000):
        async with store.lease("s", owner="one", ttl=3):
            pass

    async def cost(call: Any, cold: bool) -> int:
        user = store_on(backend) if cold else store
        backend.reads = 0
        await call(user)
        spent = backend.reads
        if cold:
            user._core.closed = True
        return spent

    async def newest(user: Store) -> None:
        assert [commit.version async for commit in user.history("s", newest_first=True, limit=1, control=True)] == [2003]

    calls = {"history": newest, "find": lambda user: user.find("s", "first"), "fork": lambda user: user.fork("s")}
    for name, call in calls.items():
        assert await cost(call, cold=True) <= 20, name
        assert await cost(call, cold=False) <= 2, name  # The commits that it shows, not the life that they are of.
    assert await store.find("s", "first") is None
    await store.close()


async def test_a_take_whose_answer_was_lost() -> None:
    """It is known for one's own when it has landed, and let go where its caller was cancelled."""
    from perdure.errors import Unknown

    class Losing(MemoryBackend):
        lose = 1

        async def append(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
            outcomes = await super().append(appends)
            if self.lose:
                self.lose -= 1
                raise Unknown("The answer was lost.")
            return outcomes

    backend = Losing(SystemClock())
    store = store_on(backend)
    async with store.lease("s", owner="one", ttl=3) as lease:
        await store.append("s", Event("work"), lease=lease)
        assert await events(store) == ["leased", "work"]
    backend.lose = 100
    task = asyncio.create_task(store.lease("s", owner="two", ttl=3).__aenter__())
    await asyncio.sleep(0.1)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    backend.lose = 0

    async def free() -> bool:
        (head,) = await backend.heads([S])
        return head is not None and not is_held(head.epoch)

    async with asyncio.timeout(60):
        while not await free():  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.05)
    await store.close()


async def test_a_holder_takes_a_new_grant_when_its_sequence_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token rises, the lease goes on, and writes that are under way meanwhile are not fenced."""
    from perdure.model import epoch, fence

    for module in (epoch, lease_rules, fence):
        monkeypatch.setattr(module, "SEQUENCE_MAX", 1)
    backend = Counting()
    store = store_on(backend)
    async with store.lease("s", owner="one", ttl=3) as lease:
        token = lease.token

        async def rival() -> None:
            with suppress(Held):
                await store.lease("s", owner="two", ttl=3, wait=4).__aenter__()

        waiting = asyncio.create_task(rival())
        while not waiting.done():
            await store.append("s", Event("work"), lease=lease)
            await asyncio.sleep(0.005)
        assert lease.token > token
        assert not lease.lost.is_set()
        (head,) = await backend.heads([S])
        assert head is not None
        assert grant_of(head.epoch) == lease.token
    await store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_lease_is_not_used_in_a_child(tmp_path: Any) -> None:
    """In a forked child a lease is `Closed`, whatever is done with it; the parent's goes on."""
    url = f"sqlite:///{tmp_path}/s.db"
    with perdure.sync.open(url) as store, store.lease("s", owner="one", ttl=3) as lease:
        child = os.fork()
        if not child:
            refused = 0
            for call in (
                lease.confirm,
                lease.release,
                lambda: store.append("s", Event("x"), lease=lease),
                lambda: store.lease("s", owner="x"),
            ):
                try:
                    call()
                except Closed:
                    refused += 1
            with perdure.sync.open(url) as mine:
                try:
                    mine.append("s", Event("x"), lease=lease)
                except Invalid:
                    refused += 1
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
        store.append("s", Event("work"), lease=lease)
        assert not lease.lost.wait(0.01)


def test_the_blocking_api(tmp_path: Any) -> None:
    """It has the same lease: held, confirmed, passed on, released."""
    with perdure.sync.open(f"sqlite:///{tmp_path}/s.db") as store:
        with store.lease("s", owner="one", ttl=3) as lease:
            store.append("s", Event("work"), lease=lease)
            with store.edit("s", lease=lease) as draft:
                draft.state["n"] = 1
            lease.confirm()
            assert not lease.lost.is_set()
            assert [info.token for info in store.leases()] == [lease.token]
            assert (lease.session, lease.owner, lease.ttl, lease.exclusive) == ("s", "one", 3.0, False)
            lease.release()
            lease.release()
        with pytest.raises(Fenced):
            store.append("s", Event("late"), lease=lease)


async def test_closing_ends_the_thread_and_the_leases(url: str) -> None:
    """After `close` no thread is left, and leases that were not released are lost."""
    before = {thread for thread in threading.enumerate() if thread.name == "perdure-leases"}
    store = await perdure.open(url)
    lease = await store.lease("s", owner="one", ttl=3).__aenter__()
    assert {thread for thread in threading.enumerate() if thread.name == "perdure-leases"} != before
    await store.close()
    assert lease.lost.is_set()
    await until(lambda: not {thread for thread in threading.enumerate() if thread.name == "perdure-leases"} - before)


async def test_a_seeded_clock_gives_the_same_tokens() -> None:
    """Steps of grants come from the clock's chance: a seed replays a run."""

    async def tokens() -> list[int]:
        found = []
        async with perdure.open("memory:", clock=SeededClock(7)) as store:
            for _ in range(5):
                async with store.lease("s", owner="one", ttl=3) as lease:
                    found.append(lease.token)
        return found

    assert await tokens() == await tokens()
