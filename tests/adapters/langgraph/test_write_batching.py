"""Calls on one thread that come together share a commit; each still gets its own answer, and none returns before it is stored."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

import perdure.sync
from perdure import Invalid, NotFound
from perdure.adapters.langgraph import PerdureSaver
from tests.support.adapters.langgraph_batches import META, SESSION, begun, checkpoint, patient, running, store, until_held
from tests.support.adapters.langgraph_chats import Chat, chat, comparable, config, say

__all__ = ["patient", "store"]
ROOT = Path(__file__).parents[3]


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
