"""Holding a thread around runs: one worker at a time, and nothing is stored by one that lost it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import START, StateGraph

import perdure
import perdure.sync
from perdure import Event, Fenced, Held, Invalid
from perdure.adapters.langgraph import PerdureSaver
from tests.support.adapters.langgraph_chats import Chat, answer, chat, config, say

SESSION = "langgraph/trip-42"
Pair = tuple[perdure.sync.Store, perdure.sync.Store]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/agents.db"


@pytest.fixture
def stores(url: str) -> Iterator[Pair]:
    """As in two processes: two connections to one file."""
    with perdure.sync.open(url) as one, perdure.sync.open(url) as two:
        yield one, two


def texts(saver: PerdureSaver) -> list[str]:
    return [message.content for message in chat(saver).get_state(config()).values.get("messages", [])]


def commits(store: perdure.sync.Store) -> int:
    """How many commits of data the thread has."""
    return len(list(store.history(SESSION)))


def counting(calls: list[str], name: str) -> Callable[[Any], Any]:
    """A model that is paid by the call."""

    def model(state: Any) -> Any:
        calls.append(name)
        return answer(state)

    return model


@contextmanager
def refused() -> Iterator[None]:
    """Inside, a run is Fenced. An older LangGraph stores once more while that goes up, and raises what it meets then, with the first error
    as its context."""
    with pytest.raises(perdure.Error) as raised:
        yield
    error: BaseException | None = raised.value
    while error is not None and not isinstance(error, Fenced):
        error = error.__cause__ or error.__context__
    assert error is not None, raised.value


@pytest.mark.parametrize("begun", [True, False], ids=["a thread that is there", "a new thread"])
def test_a_second_worker_is_refused_and_follows(stores: Pair, begun: bool) -> None:
    """With wait=0 the second worker gets Held, with the first one's name, and nothing is written; after the release it goes on."""
    one, two = map(PerdureSaver, stores)
    if begun:
        chat(one).invoke(say("hello"), config())
    before = len(texts(one))
    with one.hold("trip-42", owner="one", ttl=3) as lease:
        assert (lease.session, lease.owner, lease.ttl, lease.exclusive) == (SESSION, "one", 3.0, True)
        chat(one).invoke(say("from one"), config())
        lease.confirm()
        version = stores[0].read(SESSION).version
        with pytest.raises(Held) as refused, two.hold("trip-42", owner="two", wait=0):
            raise AssertionError("not reached")
        assert refused.value.owner == "one"
        assert stores[0].read(SESSION).version == version
    with two.hold("trip-42", owner="two", ttl=3, wait=0):
        chat(two).invoke(say("from two"), config())
    assert texts(one)[before:] == ["from one", f"answer {before + 1}", "from two", f"answer {before + 3}"]
    assert len(list(chat(one).get_state_history(config()))) == (9 if begun else 6)
    stores[0].verify(SESSION)


async def test_a_second_worker_waits(url: str) -> None:
    """Two workers that hold the thread around a run each: one after the other, neither gets a Conflict, and both answers are there."""

    async def slow(state: Any) -> Any:
        await asyncio.sleep(0)
        return answer(state)

    async with perdure.open(url) as first, perdure.open(url) as second:
        savers = [PerdureSaver(first), PerdureSaver(second)]
        for saver in savers * 2:
            assert await saver.aget_tuple(config()) is None

        async def work(saver: PerdureSaver, text: str) -> None:
            async with saver.hold("trip-42", owner=text, ttl=3, wait=120) as lease:
                await chat(saver, slow).ainvoke(say(text), config())
                assert not lease.lost.is_set()

        await asyncio.gather(*(work(saver, f"{number}") for number, saver in enumerate(savers * 2)))
        state = await chat(savers[0]).aget_state(config())
        assert sorted(message.content for message in state.values["messages"][::2]) == ["0", "1", "2", "3"]
        assert [message.content for message in state.values["messages"][1::2]] == ["answer 1", "answer 3", "answer 5", "answer 7"]
        await first.verify(SESSION)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_worker_that_lost_the_thread_stores_nothing(stores: Pair, way: str, durability: Any) -> None:
    """The lease is lost while the model works: the run ends with Fenced, and the thread has not moved since the other worker took it."""
    one, two = map(PerdureSaver, stores)
    chat(one).invoke(say("hello"), config())
    there: list[int] = []

    def model(state: Any) -> Any:
        stores[1].break_lease(SESSION)
        with two.hold("trip-42", owner="two", ttl=3):
            chat(two).invoke(say("from two"), config())
        there.append(commits(stores[1]))
        return answer(state)

    if way == "invoke":
        with one.hold("trip-42", owner="one", ttl=3), pytest.raises(Fenced, match="no longer holds"):
            chat(one, model).invoke(say("from one"), config(), durability=durability)
    else:

        async def run() -> None:
            async with one.hold("trip-42", owner="one", ttl=3):
                with pytest.raises(Fenced, match="no longer holds"):
                    await chat(one, model).ainvoke(say("from one"), config(), durability=durability)

        asyncio.run(run())
    assert there == [commits(stores[1])]
    assert texts(two)[-2:] == ["from two", f"answer {len(texts(two)) - 1}"]


def test_every_write_of_a_worker_that_lost_it_is_fenced(stores: Pair) -> None:
    """Checkpoints, writes, update_state, prune and delete_for_runs: each is Fenced, and the history stays as it is."""
    saver = PerdureSaver(stores[0])
    graph = chat(saver)
    for text in ("one", "two"):
        graph.invoke(say(text), config() | {"metadata": {"run_id": text}})
    with saver.hold("trip-42", owner="one", exclusive=False):
        stores[1].break_lease(SESSION)
        here = saver.get_tuple(config())
        assert here is not None
        before = commits(stores[1])
        for write in (
            lambda: saver.put(here.config, empty_checkpoint(), {"source": "loop", "step": 9, "parents": {}}, {}),
            lambda: saver.put_writes(here.config, [("notes", ["late"])], "task"),
            lambda: graph.update_state(config(), {"notes": ["late"]}),
            lambda: saver.prune(["trip-42"]),
            lambda: saver.delete_for_runs(["two"]),
        ):
            with pytest.raises(Fenced, match="no longer holds"):
                write()
        assert commits(stores[1]) == before
    assert saver.put_writes(here.config, [("notes", ["free"])], "task") is None  # type: ignore[func-returns-value]
    assert commits(stores[1]) == before + 1


@pytest.mark.parametrize("same", [True, False], ids=["the holder's saver", "another store"])
def test_who_does_not_hold_is_refused_before_the_model(stores: Pair, same: bool) -> None:
    """A run outside of the block's context is Fenced, even on the same saver; with durability="sync" its model is not called."""
    one, two = map(PerdureSaver, stores)
    calls: list[str] = []

    def stranger() -> Any:
        saver = one if same else two
        return chat(saver, counting(calls, "stranger")).invoke(say("stranger"), config(), durability="sync")

    with one.hold("trip-42", owner="one"), ThreadPoolExecutor() as pool:
        with refused():
            pool.submit(stranger).result(60)
        assert calls == []
        run = lambda: chat(one, counting(calls, "holder")).invoke(say("mine"), config())  # noqa: E731
        pool.submit(copy_context().run, run).result(60)
        assert one.get_tuple(config()) is not None
    assert calls == ["holder"]
    stranger()
    assert calls == ["holder", "stranger"]


def test_without_exclusive_others_write(stores: Pair) -> None:
    """exclusive=False binds those who hold: another hold is refused, a run without one is not."""
    one, two = map(PerdureSaver, stores)
    with one.hold("trip-42", owner="one", exclusive=False) as lease:
        assert not lease.exclusive
        with pytest.raises(Held), two.hold("trip-42", owner="two", wait=0):
            raise AssertionError("not reached")
        chat(two).invoke(say("from two"), config())
        chat(one).invoke(say("from one"), config())
    assert texts(one) == ["from two", "answer 1", "from one", "answer 3"]


def test_calls_of_a_holder_and_of_others_share_no_commit(stores: Pair) -> None:
    """Threads write at once through one saver, half of them in the block's context: these are stored, and none of the others."""
    saver = PerdureSaver(stores[0])
    chat(saver).invoke(say("hello"), config())
    here = saver.get_tuple(config())
    assert here is not None
    with saver.hold("trip-42", owner="one"):
        gate = threading.Barrier(16)

        def write(number: int) -> str:
            gate.wait(60)
            try:
                saver.put_writes(here.config, [("notes", [str(number)])], f"task {number}")
            except Fenced:
                return "fenced"
            return "stored"

        with ThreadPoolExecutor(16) as pool:
            jobs = [
                pool.submit(copy_context().run if number % 2 else lambda call, *given: call(*given), write, number) for number in range(16)
            ]
            assert [job.result(60) for job in jobs] == ["fenced", "stored"] * 8
    found = saver.get_tuple(config())
    assert found is not None and found.pending_writes is not None
    assert sorted(task for task, _, _ in found.pending_writes) == sorted(f"task {number}" for number in range(1, 16, 2))


async def test_subgraphs_and_parallel_nodes_are_covered(url: str) -> None:
    """Namespaces of a thread are its session: a graph with a subgraph and two nodes at once runs whole under an exclusive lease."""
    inner = StateGraph(Chat)
    inner.add_node("agent", answer)
    inner.add_edge(START, "agent")
    outer = StateGraph(Chat)
    for name in ("left", "right"):
        outer.add_node(name, inner.compile(checkpointer=True))
        outer.add_edge(START, name)
    async with perdure.open(url) as store:
        saver = PerdureSaver(store)
        graph = outer.compile(checkpointer=saver)
        async with saver.hold("trip-42", owner="one"):
            await graph.ainvoke(say("hello"), config())
            await asyncio.to_thread(graph.invoke, say("again"), config())
            assert len((await graph.aget_state(config())).values["notes"]) >= 4
        namespaces = {found.config["configurable"]["checkpoint_ns"] async for found in saver.alist(config())}
        assert namespaces == {"", "left", "right"}
        await store.verify(SESSION)


def test_nodes_at_once_in_threads_are_covered(stores: Pair) -> None:
    """A blocking run that is resumed, whose nodes run at once: what each wrote is stored under the lease, and that of a stranger is not."""
    saver, both = PerdureSaver(stores[0]), StateGraph(Chat)
    for name in ("left", "right"):
        both.add_node(name, lambda state, name=name: {"notes": [name]})  # type: ignore[misc]
        both.add_edge(START, name)
    graph = both.compile(checkpointer=saver, interrupt_before=["left", "right"])
    graph.invoke(say("hello"), config())
    with saver.hold("trip-42", owner="one"), ThreadPoolExecutor() as pool:
        before = commits(stores[0])
        with pytest.raises(Fenced, match="exclusive"):
            pool.submit(graph.invoke, None, config()).result(60)
        assert commits(stores[0]) == before
        assert graph.invoke(None, config())["notes"] == ["left", "right"]
    assert graph.get_state(config()).next == ()


def test_several_threads_are_held_at_once(stores: Pair) -> None:
    """Holds of different threads nest, and each covers its own."""
    one, two = map(PerdureSaver, stores)
    with one.hold("trip-42", owner="one"), one.hold("trip-43", owner="one"):
        for thread in ("trip-42", "trip-43"):
            chat(one).invoke(say("hello"), config(thread))
            with refused():
                chat(two).invoke(say("hello"), config(thread), durability="sync")
    chat(two).invoke(say("hello"), config("trip-43"))


def test_a_nested_hold_of_one_thread_is_invalid(stores: Pair) -> None:
    """It would wait for itself. The outer block goes on, and afterwards the thread can be held again."""
    saver = PerdureSaver(stores[0])
    with saver.hold("trip-42", owner="one"):
        with pytest.raises(Invalid, match="held here already"), PerdureSaver(stores[0]).hold("trip-42", owner="two"):
            raise AssertionError("not reached")
        chat(saver).invoke(say("hello"), config())
    again = saver.hold("trip-42", owner="one")
    with again, pytest.raises(Invalid, match="once"):
        again.__enter__()
    with pytest.raises(Invalid, match="once"):
        again.__enter__()
    chat(saver).invoke(say("free"), config())


async def test_work_that_outlives_the_block_is_fenced(url: str) -> None:
    """A task that the block began and that runs after its end stores nothing; it can hold the thread itself."""
    async with perdure.open(url) as store:
        saver, over = PerdureSaver(store), asyncio.Event()

        async def late() -> None:
            await over.wait()
            with pytest.raises(Fenced, match="was released"):
                await chat(saver).ainvoke(say("late"), config())
            async with saver.hold("trip-42", owner="late"):
                await chat(saver).ainvoke(say("held"), config())

        async with saver.hold("trip-42", owner="one"):
            task = asyncio.create_task(late())
        over.set()
        await task
        state = await chat(saver).aget_state(config())
        assert [message.content for message in state.values["messages"]] == ["held", "answer 1"]


def test_a_thread_that_is_deleted_while_held(stores: Pair) -> None:
    """The delete is not refused and ends the lease: a run in the block is Fenced, and the next hold begins the thread again."""
    saver, other = map(PerdureSaver, stores)
    chat(saver).invoke(say("hello"), config())
    for deleting in (saver, other):
        with saver.hold("trip-42", owner="one"):
            deleting.delete_thread("trip-42")
            assert saver.get_tuple(config()) is None
            with pytest.raises(Fenced):
                chat(saver).invoke(say("late"), config())
            assert saver.get_tuple(config()) is None
        with other.hold("trip-42", owner="two"):
            assert other.get_tuple(config()) is None
            chat(other).invoke(say("a second life"), config())
        assert texts(saver) == ["a second life", "answer 1"]


async def test_one_who_waits_for_a_thread_that_is_deleted_begins_it_again(url: str) -> None:
    """The holder deletes the thread while another worker waits: that one holds the thread's next life."""
    async with perdure.open(url) as first, perdure.open(url) as second:
        one, two = PerdureSaver(first), PerdureSaver(second)

        async def follow() -> None:
            async with two.hold("trip-42", owner="two", ttl=3, wait=120):
                await chat(two).ainvoke(say("after"), config())

        async with one.hold("trip-42", owner="one", ttl=3):
            task = asyncio.create_task(follow())
            async with asyncio.timeout(60):
                async for commit in first.watch(SESSION, control=True):
                    if any(event.type == "perdure.lease.challenged" or "challenge" in event.type for event in commit.events):
                        break
            await one.adelete_thread("trip-42")
        await task
        state = await chat(one).aget_state(config())
        assert [message.content for message in state.values["messages"]] == ["after", "answer 1"]


def test_a_held_thread_without_a_checkpoint_is_an_empty_thread(stores: Pair) -> None:
    """Before its first run a held thread reads as empty, for everybody, and can be pruned, listed and deleted."""
    saver, other = map(PerdureSaver, stores)
    with saver.hold("trip-42", owner="one"):
        for reader in (saver, other):
            assert reader.get_tuple(config()) is None
            assert list(reader.list(None)) == list(reader.list(config())) == []
        saver.prune(["trip-42"])
        assert chat(other).get_state(config()).values == {}
    saver.delete_thread("trip-42")


def test_sessions_that_are_no_threads_are_refused(stores: Pair) -> None:
    """What something else wrote is Invalid and not held afterwards; what a plain lease has started becomes a thread."""
    store = stores[0]
    saver = PerdureSaver(store)
    store.append(SESSION, Event("alien"))
    store.append("langgraph/alien", Event("alien", None, (perdure.op.set("/x", 1),)))
    for thread in ("trip-42", "alien"):
        with pytest.raises(Invalid, match="not a LangGraph thread"), saver.hold(thread, owner="one"):
            raise AssertionError("not reached")
    assert list(store.leases()) == []
    with store.lease("langgraph/leased", owner="plain"):
        pass
    with saver.hold("leased", owner="one"):
        chat(saver).invoke(say("hello"), config("leased"))


@pytest.mark.parametrize(
    "bad",
    [{"owner": ""}, {"ttl": 1}, {"wait": -1}, {"exclusive": "yes"}, {"thread_id": "x" * 300}],
    ids=str,
)
def test_bad_input(stores: Pair, bad: dict[str, Any]) -> None:
    """Each is Invalid at the call, and no session is started."""
    with pytest.raises(Invalid):
        PerdureSaver(stores[0]).hold(**{"thread_id": "trip-42", "owner": "one", **bad})
    assert list(stores[0].list()) == []


def test_a_hold_that_is_not_entered_says_how() -> None:
    """Used before it is entered it is Invalid, and says how it is used."""
    with perdure.sync.open("memory:") as store, pytest.raises(Invalid, match=r"with saver\.hold"):
        PerdureSaver(store).hold("trip-42", owner="one").confirm()  # type: ignore[attr-defined]


@pytest.mark.parametrize("seconds", [0, 0.001, 0.003, 0.01])
async def test_a_cancelled_hold_holds_nothing(url: str, seconds: float) -> None:
    """A task that is cancelled while it enters leaves the thread to the next one, within the lease's ttl."""
    async with perdure.open(url) as store, perdure.open(url) as other:
        saver = PerdureSaver(store)

        async def enter() -> None:
            async with saver.hold("trip-42", owner="one", ttl=3):
                await asyncio.Event().wait()

        task = asyncio.create_task(enter())
        await asyncio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with PerdureSaver(other).hold("trip-42", owner="two", ttl=3, wait=120):
            await chat(PerdureSaver(other)).ainvoke(say("hello"), config())
