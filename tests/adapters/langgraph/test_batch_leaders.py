"""Who leads a batch of calls, and what becomes of it when the leader is cancelled, fails or stands still."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest

import perdure.sync
from perdure import Invalid
from perdure.adapters.langgraph import PerdureSaver, write_batching
from perdure.adapters.langgraph.write_batching import PendingCall, WriteBatcher
from perdure.concurrency.replies import Reply, run_blocking
from tests.support.adapters.langgraph_batches import SESSION, begun, patient, running, store, until_held

__all__ = ["patient", "store"]


class Numbered(PendingCall):
    """A call of the test below."""

    def __init__(self, number: int, *, held: bool) -> None:
        super().__init__()
        self.number, self.held = number, held

    def may_wait(self) -> bool:
        return self.held


def hurried(one: Callable[[], Coroutine[Any, Any, None]], chance: random.Random) -> list[bool]:
    """Two threads and two event loops make these calls, some of which are cancelled; who of the four did not come to an end."""

    async def several() -> None:
        for _ in range(40):
            task = asyncio.ensure_future(one())
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() / 1_000)
                task.cancel()
            await asyncio.wait([task])

    async def loop() -> None:
        await asyncio.gather(several(), several(), several())

    def thread() -> None:
        for _ in range(80):
            run_blocking(one())

    work = [threading.Thread(target=target, daemon=True) for target in (thread, thread, *[lambda: asyncio.run(loop())] * 2)]
    for each in work:
        each.start()
    for each in work:
        each.join(60)
    return [each.is_alive() for each in work]


@pytest.mark.parametrize("seed", range(3))
def test_whatever_callers_do_each_gets_its_answer(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Threads and two event loops call, are cancelled, are refused and fail while they lead: nobody waits for ever, one stores at a time,
    and a call that returned was stored."""
    monkeypatch.setattr(write_batching, "HOLD", 0.001)
    gathered: WriteBatcher[Numbered] = WriteBatcher()
    chance, inside, stored, slips = random.Random(seed), threading.Lock(), set[int](), []
    numbers = itertools.count()

    async def commit(batch: Sequence[Numbered]) -> None:
        if not inside.acquire(blocking=False):
            slips.append("two at once")
            return
        try:
            pause: Reply[None] = Reply()
            await pause.within(chance.random() / 2_000)
            for call in batch:
                stored.add(call.number)
                call.done(Invalid("no") if chance.random() < 0.05 else None)
            if chance.random() < 0.02:
                raise RuntimeError
        finally:
            inside.release()

    def choose(waiting: Sequence[Numbered]) -> list[Numbered]:
        end = next((place for place, call in enumerate(waiting) if not call.held), len(waiting))
        return list(waiting[: end + 1])

    async def one() -> None:
        call = Numbered(next(numbers), held=chance.random() < 0.6)
        try:
            await gathered.store("s", call, choose, commit)
        except (Invalid, RuntimeError):
            return
        if call.number not in stored:
            slips.append(f"{call.number} was not stored")

    alive = hurried(one, chance)
    assert (slips, alive, gathered._queues) == ([], [False] * 4, {})


class Stopping:
    """An event loop in a thread of its own that can be stopped with its tasks in the middle, and go on later."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread()
        self.go_on()

    def go_on(self) -> None:
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)


@pytest.fixture
def stopping() -> Iterator[Stopping]:
    made = Stopping()
    yield made
    made.stop()
    made.loop.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader without progress is replaced soon."""
    monkeypatch.setattr(write_batching, "LEADER_TIMEOUT", 0.02)


@pytest.mark.usefixtures("patient", "impatient")
def test_a_leader_whose_loop_stopped_while_it_held_is_replaced(
    store: perdure.sync.Store, stopping: Stopping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another task's writes and those of the leader are stored, and the leader gets its answer when its loop goes on."""
    saver = PerdureSaver(store)
    here = begun(saver)
    led = stopping.call(saver.aput_writes(running(here), [("a", 1)], "leader"))
    until_held(saver)
    stopping.stop()
    monkeypatch.setattr(write_batching, "HOLD", 0.001)
    saver.put_writes(running(here), [("a", 2)], "follower")
    assert saver.get_tuple(here).pending_writes == [("follower", "a", 2), ("leader", "a", 1)]
    stopping.go_on()
    led.result(30)
    assert not saver._batcher._queues
    store.verify(SESSION)


async def _commit_all(batch: Sequence[Numbered]) -> None:
    for call in batch:
        call.done()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", ["blocking", "asynchronous"])
def test_a_leader_that_stopped_while_it_stored_is_replaced(stopping: Stopping, kind: str) -> None:
    """Those that it was about to store and those that came later are stored by another caller; one whose loop goes on harms nobody."""
    batcher: WriteBatcher[Numbered] = WriteBatcher()
    begun, answer, stored = threading.Event(), Reply[None](), []

    async def stuck(batch: Sequence[Numbered]) -> None:
        begun.set()
        await answer
        await _commit_all(batch)

    async def good(batch: Sequence[Numbered]) -> None:
        stored.extend(call.number for call in batch)
        await _commit_all(batch)

    def store(number: int, commit: Any) -> Any:
        return batcher.store("s", Numbered(number, held=False), list, commit)

    led = stopping.call(store(0, stuck))
    assert begun.wait(30)
    stopping.stop()
    if kind == "blocking":
        run_blocking(store(1, good))
    else:
        asyncio.run(store(1, good))
    assert stored == [0, 1]
    run_blocking(store(2, good))
    assert stored == [0, 1, 2]
    stopping.go_on()
    answer.set(None)
    led.result(30)
    run_blocking(store(3, good))
    assert (stored, batcher._queues) == ([0, 1, 2, 3], {})


@pytest.mark.usefixtures("impatient")
def test_a_blocking_call_in_the_loop_of_a_leader_that_stores_goes_ahead(store: perdure.sync.Store) -> None:
    """A node that blocks its loop while a task of that loop is storing does not wait for it for ever: both are stored, each once."""
    saver = PerdureSaver(store)
    here = begun(saver)

    async def work() -> None:
        task = asyncio.create_task(saver.aput_writes(here, [("a", 1)], "leader"))
        while not any(queue.storing for queue in saver._batcher._queues.values()):  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(0)
        saver.put_writes(here, [("a", 2)], "other")
        await task

    asyncio.run(work())
    assert saver.get_tuple(here).pending_writes == [("leader", "a", 1), ("other", "a", 2)]
    assert not saver._batcher._queues
    store.verify(SESSION)


@pytest.mark.parametrize("seed", range(3))
def test_leaders_that_are_replaced_while_they_work_lose_nothing(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """With a timeout shorter than a commit, leaders are replaced all the time: every call that returned was stored, and all return."""
    monkeypatch.setattr(write_batching, "HOLD", 0.0005)
    monkeypatch.setattr(write_batching, "LEADER_TIMEOUT", 0.0005)
    batcher: WriteBatcher[Numbered] = WriteBatcher()
    chance, stored, numbers, slips = random.Random(seed), set[int](), itertools.count(), []

    async def commit(batch: Sequence[Numbered]) -> None:
        pause: Reply[None] = Reply()
        await pause.within(chance.random() / 500)
        for call in batch:
            stored.add(call.number)
            call.done()

    async def one() -> None:
        call = Numbered(next(numbers), held=chance.random() < 0.6)
        await batcher.store("s", call, lambda waiting: list(waiting[: chance.randint(1, 3)]), commit)
        if call.number not in stored:
            slips.append(call.number)

    alive = hurried(one, chance)
    assert (slips, alive, batcher._queues) == ([], [False] * 4, {})
