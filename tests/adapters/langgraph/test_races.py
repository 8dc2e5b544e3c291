"""Two workers on one thread: a lost race is refused, what is meant to branch may, and a retry counts once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.types import Command, interrupt

import perdure.sync
from perdure import Conflict, Deleted, Invalid, NotFound
from perdure.adapters.langgraph import PerdureSaver
from tests.support.adapters.langgraph_chats import answer, chat, config, say


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/agents.db"


@pytest.fixture
def store(url: str) -> Iterator[perdure.sync.Store]:
    with perdure.sync.open(url) as opened:
        yield opened


def texts(graph: Any) -> list[str]:
    return [message.content for message in graph.get_state(config()).values.get("messages", [])]


def meet(saver: PerdureSaver, gate: threading.Barrier) -> PerdureSaver:
    """The saver, which has both workers load the thread before either goes on."""
    load = saver.get_tuple

    def both(asked: Any) -> Any:
        found = load(asked)
        gate.wait(30)
        return found

    saver.get_tuple = both  # type: ignore[method-assign]
    return saver


@pytest.mark.parametrize("begun", [True, False], ids=["a thread that is there", "a new thread"])
@pytest.mark.parametrize("savers", [1, 2], ids=["one process", "two stores on one file"])
def test_of_two_runs_from_one_checkpoint_one_is_refused(url: str, begun: bool, savers: int) -> None:
    """Both load the same checkpoint; one goes on, the other gets Conflict, and the thread holds the winner's messages and no others."""
    with perdure.sync.open(url) as one, perdure.sync.open(url) as two:
        stores = [one, two] if savers == 2 else [one, one]
        if begun:
            chat(PerdureSaver(one)).invoke(say("hello"), config())
        gate = threading.Barrier(2)
        graphs = [chat(meet(PerdureSaver(store), gate)) for store in stores]

        def work(number: int) -> Any:
            try:
                return graphs[number].invoke(say(f"from {number}"), config())
            except Conflict as error:
                return error

        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(work, range(2)))
        lost = [answer for answer in answers if isinstance(answer, Conflict)]
        assert len(lost) == 1 and "Two runs at once on thread 'trip-42'" in str(lost[0])
        winner = 1 - answers.index(lost[0])
        told = texts(chat(PerdureSaver(one)))
        assert f"from {1 - winner}" not in told and f"from {winner}" in told
        parents = [snapshot.parent_config for snapshot in chat(PerdureSaver(one)).get_state_history(config())]
        ids = [None if parent is None else parent["configurable"]["checkpoint_id"] for parent in parents]
        assert len(ids) == len(set(ids)), "no checkpoint has two children"
        one.verify("langgraph/trip-42")


def test_a_stale_put_is_refused_and_a_branch_on_request_is_not(store: perdure.sync.Store) -> None:
    """Step by step: both load, one puts and goes on, the other's put is refused, and with on_race='branch' it is stored."""
    saver, branching = PerdureSaver(store), PerdureSaver(store, on_race="branch")
    first = saver.put(config(checkpoint_ns=""), empty_checkpoint(), {"source": "input", "step": -1, "parents": {}}, {})
    loaded = [saver.get_tuple(config()).config, saver.get_tuple(config()).config]
    meta: Any = {"source": "loop", "step": 0, "parents": {}}
    won = saver.put(loaded[0], empty_checkpoint(), meta, {})
    with pytest.raises(Conflict, match="another run did so first"):
        saver.put(loaded[1], empty_checkpoint(), meta, {})
    saver.put(won | {"configurable": loaded[0]["configurable"] | won["configurable"]}, empty_checkpoint(), meta, {})
    assert branching.put(loaded[1], empty_checkpoint(), meta, {})
    children = [tuple_.parent_config for tuple_ in saver.list(config())]
    assert [child["configurable"]["checkpoint_id"] for child in children if child].count(first["configurable"]["checkpoint_id"]) == 2


def test_time_travel_and_update_state_may_branch(store: perdure.sync.Store) -> None:
    """A run from an old checkpoint, an update of one, and a second one of each, are branches on purpose: none is refused."""
    graph = chat(PerdureSaver(store))
    for text in ("one", "two", "three"):
        graph.invoke(say(text), config())
    old = next(
        snapshot
        for snapshot in graph.get_state_history(config())
        if [m.content for m in snapshot.values["messages"]] == ["one", "answer 1"]
    )
    for text in ("other", "another"):
        graph.invoke(say(text), old.config)
        assert texts(graph) == ["one", "answer 1", text, "answer 3"]
        updated = graph.update_state(old.config, {"notes": [text]})
        assert graph.get_state(updated).values["notes"] == ["note 1", text]
    graph.invoke(None, old.config)
    assert (
        len(
            [
                s
                for s in graph.get_state_history(config())
                if s.parent_config and s.parent_config["configurable"]["checkpoint_id"] == old.config["configurable"]["checkpoint_id"]
            ]
        )
        >= 4
    )
    store.verify("langgraph/trip-42")


def test_an_update_that_a_run_overtook_is_refused(store: perdure.sync.Store) -> None:
    """update_state loads, a run goes on from the same checkpoint, and the update's put is refused: neither is lost unseen."""
    saver = PerdureSaver(store)
    chat(saver).invoke(say("one"), config())
    load = saver.get_tuple

    def overtaken(asked: Any) -> Any:
        found = load(asked)
        saver.get_tuple = load  # type: ignore[method-assign]
        chat(saver).invoke(say("two"), config())
        return found

    saver.get_tuple = overtaken  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        chat(saver).update_state(config(), {"notes": ["mine"]})
    assert texts(chat(saver)) == ["one", "answer 1", "two", "answer 3"]


def test_a_deleted_thread_refuses_the_worker_that_still_runs_and_may_begin_anew(store: perdure.sync.Store) -> None:
    """A run whose thread is deleted meanwhile fails, and nothing of it comes back; the same id then begins an empty thread."""
    saver = PerdureSaver(store)
    chat(saver).invoke(say("one"), config())

    def delete(state: Any) -> Any:
        saver.delete_thread("trip-42")
        return answer(state)

    with pytest.raises((Deleted, NotFound)):
        chat(saver, delete).invoke(say("two"), config())
    assert saver.get_tuple(config()) is None
    chat(saver).invoke(say("fresh"), config())
    assert texts(chat(saver)) == ["fresh", "answer 1"]
    for _ in range(2):
        saver.delete_thread("trip-42")
    assert list(saver.list(config())) == []
    store.verify("langgraph/trip-42")


def test_a_parent_that_is_gone_is_said(store: perdure.sync.Store) -> None:
    """A checkpoint that follows one that was pruned, deleted or never stored is NotFound, naming it."""
    saver = PerdureSaver(store)
    graph = chat(saver)
    for text in ("one", "two"):
        graph.invoke(say(text), config())
    first = list(saver.list(config()))[-1].config
    saver.prune(["trip-42"])
    for parent in (first, config(checkpoint_ns="", checkpoint_id="never")):
        with pytest.raises(NotFound, match=parent["configurable"]["checkpoint_id"]):
            saver.put(parent, empty_checkpoint(), {"source": "loop", "step": 9, "parents": {}}, {})


def test_a_retry_counts_once(store: perdure.sync.Store) -> None:
    """A checkpoint, and a task's writes, sent again change nothing; other content under an old id is refused."""
    saver = PerdureSaver(store)
    meta: Any = {"source": "loop", "step": 0, "parents": {}}
    checkpoints = [{**empty_checkpoint(), "channel_values": {"a": [number]}} for number in range(3)]
    here, parents = config(checkpoint_ns=""), []
    for checkpoint in checkpoints:
        parents.append(here)
        here = saver.put(here, checkpoint, meta, {})
        saver.put_writes(here, [("a", "first"), ("b", 2)], "task", "path")
    version = store.read("langgraph/trip-42").version
    for parent, checkpoint in zip(parents, checkpoints, strict=True):
        again = saver.put(parent, checkpoint, meta, {})
        assert again["configurable"]["checkpoint_id"] == checkpoint["id"]
    saver.put_writes(here, [("a", "second run of the node"), ("b", 2)], "task", "path")
    assert store.read("langgraph/trip-42").version == version
    assert saver.get_tuple(here).pending_writes == [("task", "a", "first"), ("task", "b", 2)]
    with pytest.raises(Invalid, match="used"):
        saver.put(parents[0], {**checkpoints[0], "channel_values": {"a": "other"}}, meta, {})


def test_interrupts_are_resumed_once(store: perdure.sync.Store) -> None:
    """An interrupted run is resumed by another saver; its interrupt is shown, its answer used, and the thread goes on."""

    def ask(state: Any) -> Any:
        return {"notes": [interrupt("ok?")]}

    chat(PerdureSaver(store), ask).invoke(say("one"), config())
    waiting = chat(PerdureSaver(store), ask).get_state(config())
    assert [task.interrupts[0].value for task in waiting.tasks] == ["ok?"]
    assert chat(PerdureSaver(store), ask).invoke(Command(resume="yes"), config())["notes"] == ["yes"]


def test_threads_loops_and_both_halves_serve_one_store(url: str) -> None:
    """Blocking runs in a pool and runs of two event loops at once, on one saver of either kind of store: every thread is whole."""

    async def many(graph: Any, names: list[str]) -> None:
        for text in ("one", "two"):
            await asyncio.gather(*[graph.ainvoke(say(text), config(name)) for name in names])

    with perdure.sync.open(url) as opened:
        for saver in (PerdureSaver(opened), PerdureSaver(opened.asynchronous)):
            graph = chat(saver)
            names = [[f"{id(saver)}-{group}-{number}" for number in range(4)] for group in range(3)]
            with ThreadPoolExecutor() as pool:
                loops = [pool.submit(asyncio.run, many(graph, part)) for part in names[:2]]
                calls = [pool.submit(graph.invoke, say("one"), config(name)) for name in names[2]]
                for done in loops + calls:
                    done.result(60)
            for group, told in zip(names, (4, 4, 2), strict=True):
                for name in group:
                    assert len(graph.get_state(config(name)).values["messages"]) == told
