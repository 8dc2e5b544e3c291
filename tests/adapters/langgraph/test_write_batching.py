"""Calls on one thread that come together share a commit; each still gets its own answer, and none returns before it is stored."""

from __future__ import annotations

import asyncio
import itertools
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

import perdure.sync
from perdure import Invalid, NotFound
from perdure.adapters.langgraph import PerdureSaver, write_batching
from perdure.adapters.langgraph.write_batching import PendingCall, WriteBatcher
from perdure.concurrency.replies import Reply, run_blocking
from tests.support.adapters.langgraph_chats import Chat, chat, comparable, config, say

META: Any = {"source": "loop", "step": 0, "parents": {}}
SESSION = "langgraph/trip-42"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[perdure.sync.Store]:
    with perdure.sync.open(f"sqlite:///{tmp_path}/agents.db") as opened:
        yield opened


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may be held is held until company comes: the clock decides nothing."""
    monkeypatch.setattr(write_batching, "HOLD", 60.0)


def running(here: Any) -> Any:
    """A config as a graph that runs passes it."""
    return {"configurable": {**here["configurable"], "__pregel_runtime": None}}


def checkpoint(**values: Any) -> Any:
    return {**empty_checkpoint(), "id": str(uuid6()), "channel_values": values}


def begun(saver: PerdureSaver) -> Any:
    return saver.put(config(checkpoint_ns=""), checkpoint(), META, {})


def until_held(saver: PerdureSaver, count: int = 1) -> None:
    """Wait until so many calls wait in the saver, and their leader for company."""
    while not any(queue.holding and len(queue.waiting) == count for queue in list(saver._batcher._queues.values())):
        threading.Event().wait(0.001)


def shape(store: perdure.sync.Store) -> list[list[str]]:
    return [[event.type for event in commit.events] for commit in store.history(SESSION)]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("kind", ["blocking", "asynchronous"])
def test_what_tasks_wrote_is_stored_with_the_checkpoint_that_follows(store: perdure.sync.Store, kind: str) -> None:
    """A run's commits hold its writes and the checkpoint that they made, and every step reads back as with the framework's saver."""
    histories = []
    for saver in (PerdureSaver(store), InMemorySaver()):
        graph = chat(saver)
        for text in ("one", "two", "three"):
            asyncio.run(graph.ainvoke(say(text), config())) if kind == "asynchronous" else graph.invoke(say(text), config())
        histories.append(comparable(list(graph.get_state_history(config()))))
    assert histories[0] == histories[1]
    assert ["writes", "checkpoint", "values"] in shape(store)
    store.verify(SESSION)


@pytest.mark.usefixtures("patient")
def test_writes_and_the_checkpoint_behind_them_are_one_commit(store: perdure.sync.Store) -> None:
    """The writes are read back with the checkpoint they were made on, by its id and in a listing, and no longer lie in the document."""
    saver = PerdureSaver(store)
    here = begun(saver)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(saver.put_writes, running(here), [("a", 1)], "task")
        until_held(saver)
        after = saver.put(here, checkpoint(a=1), META, {})
        held.result(30)
    assert shape(store)[1:] == [["writes", "checkpoint", "values"]]
    for reader in (saver, PerdureSaver(store)):
        assert reader.get_tuple(here).pending_writes == [("task", "a", 1)]
        assert [found.pending_writes for found in reader.list(config())] == [[], [("task", "a", 1)]]
        assert reader.get_tuple(config()).config["configurable"]["checkpoint_id"] == after["configurable"]["checkpoint_id"]
    assert store.read(SESSION).state["writes"] == {"": {}}
    saver.put_writes(running(here), [("a", 2)], "slow task")
    assert saver.get_tuple(here).pending_writes == [("slow task", "a", 2), ("task", "a", 1)]


def test_writes_without_company_are_stored_when_their_time_is_over(store: perdure.sync.Store) -> None:
    """A task's writes that no checkpoint follows are there for everyone when the call returns: a run killed then resumes from them."""
    saver = PerdureSaver(store)
    here = begun(saver)
    saver.put_writes(running(here), [("a", 1)], "task")
    assert PerdureSaver(store).get_tuple(here).pending_writes == [("task", "a", 1)]


@pytest.mark.usefixtures("patient")
def test_each_part_of_a_commit_can_be_sent_again(store: perdure.sync.Store) -> None:
    """A checkpoint and writes that shared a commit are each known again when they come alone, at once and when the thread has gone on."""
    saver = PerdureSaver(store)
    here, second = begun(saver), checkpoint(a=[1])
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(saver.put_writes, running(here), [("a", 1)], "task")
        until_held(saver)
        after = saver.put(here, second, META, {})
        held.result(30)
    for again in (saver, PerdureSaver(store)):
        assert again.put(here, second, META, {}) == after
    assert len(shape(store)) == 2
    saver.put(after, checkpoint(a=[1, 2]), META, {})
    for again in (saver, PerdureSaver(store)):
        assert again.put(here, second, META, {}) == after
        with pytest.raises(Invalid, match="used"):
            again.put(here, {**second, "channel_values": {"a": "other"}}, META, {})
    assert len(shape(store)) == 3
    saver.put_writes(here, [("a", 2)], "task")
    assert saver.get_tuple(here).pending_writes == [("task", "a", 1)]


KILLED = """
import sys, time
import perdure.sync
from perdure.adapters.langgraph import PerdureSaver
from tests.adapters.langgraph.test_write_batching import config, pair

store = perdure.sync.open(sys.argv[1])
saver = PerdureSaver(store)

def slow(state):
    while "quick, once" not in repr(saver.get_tuple(config())):
        time.sleep(0.001)
    print("stored", flush=True)
    time.sleep(60)

pair(saver, lambda state: {"notes": ["quick, once"]}, slow).invoke({"notes": ["go"]}, config())
"""


def pair(saver: Any, quick: Any, slow: Any) -> Any:
    """A graph of two nodes that run side by side."""
    graph = StateGraph(Chat)
    for name, node in (("quick", quick), ("slow", slow)):
        graph.add_node(name, node)
        graph.add_edge(START, name)
    return graph.compile(checkpointer=saver)


def test_a_run_that_is_killed_goes_on_from_what_its_tasks_wrote(tmp_path: Path) -> None:
    """A run is killed while one of two tasks is at work: what the other one wrote is stored, and it is not run again."""
    url = f"sqlite:///{tmp_path}/agents.db"
    with subprocess.Popen([sys.executable, "-c", KILLED, url], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None and process.stdout.readline() == "stored\n"
        process.kill()
    again: list[str] = []
    with perdure.sync.open(url) as store:
        graph = pair(PerdureSaver(store), lambda state: again.append("quick"), lambda state: {"notes": ["slow"]})
        assert graph.invoke(None, config())["notes"] == ["go", "quick, once", "slow"]
        store.verify(SESSION)
    assert again == []


@pytest.mark.usefixtures("patient")
def test_parallel_tasks_share_a_commit_and_an_interrupt_waits_for_nobody(store: perdure.sync.Store) -> None:
    """Writes that are held go with whatever is not: an interrupt is stored at once and takes them along."""
    saver = PerdureSaver(store)
    here = begun(saver)
    with ThreadPoolExecutor(3) as pool:
        held = [pool.submit(saver.put_writes, running(here), [("a", number)], f"task {number}") for number in range(2)]
        until_held(saver, 2)
        saver.put_writes(running(here), [("__interrupt__", ["?"])], "task 2")
        for call in held:
            call.result(30)
    assert shape(store)[1:] == [["writes", "writes", "writes"]]
    assert {(task, channel) for task, channel, _ in saver.get_tuple(here).pending_writes} == {
        ("task 0", "a"),
        ("task 1", "a"),
        ("task 2", "__interrupt__"),
    }


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("wrong", ["a parent that is not there", "too large together"])
def test_what_cannot_be_stored_together_is_stored_alone(store: perdure.sync.Store, wrong: str) -> None:
    """A checkpoint that is refused does not take the writes with it, and two changes that are too large for one commit are two."""
    saver = PerdureSaver(store)
    here = begun(saver)
    large = "x" * (9 << 20)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(saver.put_writes, running(here), [("a", large)], "task")
        until_held(saver)
        if wrong == "too large together":
            saver.put(here, checkpoint(a=large), META, {})
        else:
            with pytest.raises(NotFound, match="never"):
                saver.put(config(checkpoint_ns="", checkpoint_id="never"), checkpoint(a=large), META, {})
        held.result(30)
    assert [event for events in shape(store)[1:] for event in events][:1] == ["writes"]
    assert saver.get_tuple(here).pending_writes == [("task", "a", large)]
    assert ("a" in saver.get_tuple(config()).checkpoint["channel_values"]) == (wrong == "too large together")


@pytest.mark.usefixtures("patient")
def test_a_caller_that_is_cancelled_leaves_the_others_whole(store: perdure.sync.Store) -> None:
    """The leader is cancelled while it holds, a follower while it waits: the calls that are left are stored, by one of their callers."""
    saver = PerdureSaver(store)
    here = begun(saver)

    async def work() -> list[Any]:
        tasks = [asyncio.create_task(saver.aput_writes(running(here), [("a", number)], f"task {number}")) for number in range(4)]
        await asyncio.to_thread(until_held, saver, 4)
        for number in (0, 2):
            tasks[number].cancel()
        await asyncio.sleep(0)
        await saver.aput(here, checkpoint(), META, {})
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(answer) for answer in asyncio.run(work())] == [asyncio.CancelledError, type(None), asyncio.CancelledError, type(None)]
    found = saver.get_tuple(here)
    assert found is not None and found.pending_writes == [("task 1", "a", 1), ("task 3", "a", 3)]
    assert shape(store)[1:] == [["writes", "writes", "checkpoint"]]
    assert not saver._batcher._queues


@pytest.mark.usefixtures("patient")
def test_a_blocking_call_in_the_loop_of_a_leader_that_holds_goes_ahead(store: perdure.sync.Store) -> None:
    """A node that blocks its loop with a call on its own thread does not wait for a task of that loop, which could not go on."""
    saver = PerdureSaver(store)
    here = begun(saver)

    async def work() -> None:
        task = asyncio.create_task(saver.aput_writes(running(here), [("a", 1)], "task"))
        await asyncio.to_thread(until_held, saver)
        saver.put_writes(here, [("a", 2)], "other")
        await task

    asyncio.run(work())
    assert saver.get_tuple(here).pending_writes == [("other", "a", 2), ("task", "a", 1)]


class Numbered(PendingCall):
    """A call of the test below."""

    def __init__(self, number: int, *, held: bool) -> None:
        super().__init__()
        self.number, self.held = number, held

    def may_wait(self) -> bool:
        return self.held


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
        each.join(20)
    assert (slips, [each.is_alive() for each in work], gathered._queues) == ([], [False] * 4, {})


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
    assert (slips, [each.is_alive() for each in work], batcher._queues) == ([], [False] * 4, {})


def test_an_answer_is_waited_for_no_longer_than_is_said() -> None:
    """`Reply.within` says whether the answer came, blocking and in a loop, and leaves it to be taken, before its time and after it."""

    async def wait(reply: Reply[int], seconds: float) -> bool:
        return await reply.within(seconds)

    for run in (run_blocking, asyncio.run):
        late: Reply[int] = Reply()
        assert run(wait(late, 0.0)) is False
        late.set(1)
        assert run(wait(late, 60.0)) is True

        soon: Reply[int] = Reply()
        timer = threading.Timer(0.01, soon.set, (2,))
        timer.start()
        assert run(wait(soon, 60.0)) is True
        timer.join()
