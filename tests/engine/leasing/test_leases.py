"""Leases as their users see them: who holds, who waits, what is refused, and what costs nothing."""

from __future__ import annotations

import asyncio
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
from perdure.backends.spi import Append, Outcome
from perdure.clock import SeededClock, SystemClock
from perdure.engine.leasing import rules as lease_rules
from perdure.errors import Deleted, Fenced, Held
from perdure.model.epoch import grant_of, is_held
from tests.support.engine.leased import OPS, Counting, S, events, store_on, until


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
