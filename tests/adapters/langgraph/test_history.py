"""What is read back is what the framework's own saver says of the same runs; older checkpoints, branches and subgraphs included."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec
import pytest
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

import perdure.sync
from perdure.adapters.langgraph import PerdureSaver
from tests.support.adapters.langgraph_chats import Chat, chat, comparable, config, say


@pytest.fixture
def store(tmp_path: Path) -> Iterator[perdure.sync.Store]:
    with perdure.sync.open(f"sqlite:///{tmp_path}/agents.db") as opened:
        yield opened


class Wide(TypedDict, total=False):
    """A state with channels of several kinds."""

    items: Annotated[list[Any], operator.add]
    best: Any
    asked: str


def fan_out(saver: Any) -> Any:
    """A graph that sends its items to parallel tasks, has an inner graph with an interrupt, and joins."""
    inner = StateGraph(Wide)
    inner.add_node("think", lambda state: {"items": [["thought", len(state.get("items", []))]]})
    inner.add_node("ask", lambda state: {"asked": interrupt({"ask": len(state["items"])})})
    inner.add_edge(START, "think")
    inner.add_edge("think", "ask")
    inner.add_edge("ask", END)
    graph = StateGraph(Wide)
    graph.add_node("plan", lambda state: {"best": {"a": 1, "b": None}, "items": ["plan"]})
    graph.add_node("work", lambda part: {"items": [part]})
    graph.add_node("team", inner.compile())
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", lambda state: [Send("work", {"part": number}) for number in range(3)], ["work"])
    graph.add_edge("work", "team")
    graph.add_edge("team", END)
    return graph.compile(checkpointer=saver)


def live(graph: Any, durability: str) -> list[Any]:
    """A thread's life, with interrupts, time travel and an update of the past; what the framework says along the way."""
    seen = []
    for number in range(2):
        graph.invoke({"items": [number]}, config(), durability=durability)
        seen.append(comparable([graph.get_state(config())]))
        state = graph.get_state(config(), subgraphs=True)
        seen.append([comparable([task.state]) for task in state.tasks if task.state is not None])
        graph.invoke(Command(resume=f"answer {number}"), config(), durability=durability)
    history = list(graph.get_state_history(config()))
    old = next(snapshot for snapshot in history if snapshot.next == ("plan",) or durability == "exit")
    graph.invoke(None, old.config, durability=durability)
    seen.append(comparable([graph.get_state(config())]))
    graph.update_state(old.config, {"items": ["corrected"]}, as_node="plan")
    seen += [comparable([graph.get_state(snapshot.config)]) for snapshot in history]
    seen.append(comparable(list(graph.get_state_history(config()))))
    seen.append(comparable(list(graph.get_state_history(config(), limit=3))))
    seen.append(comparable(list(graph.get_state_history(config(), filter={"source": "input"}, limit=1))))
    seen.append(comparable(list(graph.get_state_history(config(), before=history[2].config, limit=2))))
    return seen


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_life_reads_back_as_with_the_frameworks_saver(store: perdure.sync.Store, durability: str) -> None:
    """Fan-out, an inner graph, interrupts, time travel, updates: each snapshot is the one that InMemorySaver gives."""
    assert live(fan_out(PerdureSaver(store)), durability) == live(fan_out(InMemorySaver()), durability)
    store.verify("langgraph/trip-42")


def test_messages_that_are_edited_removed_and_replaced_read_back(store: perdure.sync.Store) -> None:
    """A list that a node edits in place, cuts, reorders or replaces reads back at every version as with the framework's saver."""

    def node(state: Chat) -> Any:
        messages = state["messages"]
        last = messages[-1].content
        if last == "edit":
            messages[0].content = "edited in place"
            return {"messages": [AIMessage("done", id="edit-done")]}
        if last == "remove":
            return {"messages": [RemoveMessage(id=messages[0].id), RemoveMessage(id=messages[2].id)]}
        if last == "replace":
            return {"messages": [HumanMessage("new text", id=messages[0].id), AIMessage("more", id="more")]}
        return {"messages": [AIMessage(f"re {last}", id=f"re {last}")]}

    histories = []
    for saver in (PerdureSaver(store), InMemorySaver()):
        graph = chat(saver, node)
        for text in ("one", "two", "three", "remove", "replace", "four"):
            graph.invoke(say(text), config())
        histories.append(comparable(list(graph.get_state_history(config()))))
        graph.invoke(say("edit"), config())
        assert graph.get_state(config()).values["messages"][0].content == "edited in place"
    assert histories[0] == histories[1]


def sizes(store: perdure.sync.Store, thread: str = "trip-42") -> list[int]:
    return [len(msgspec.json.encode(commit.events)) for commit in store.history(f"langgraph/{thread}")]


def test_a_turn_costs_what_it_adds(store: perdure.sync.Store) -> None:
    """With ordinary channels, turn 60 writes no more bytes than turn 3, though the state is twenty times as large."""
    graph = chat(PerdureSaver(store))
    marks = [0]
    for _ in range(60):
        graph.invoke({"messages": [HumanMessage("x" * 500)]}, config())
        marks.append(len(sizes(store)))
    written = sizes(store)
    early, late = sum(written[marks[2] : marks[5]]), sum(written[marks[-4] :])
    assert late < 1.1 * early
    assert late < 15_000 < len(msgspec.json.encode(store.read("langgraph/trip-42").state))


@pytest.mark.parametrize("edit", ["in place", "by id", "first removed", "a dict's member"])
def test_an_edit_of_a_large_list_costs_the_edit(store: perdure.sync.Store, edit: str) -> None:
    """One message of two hundred is changed, in place or by the reducer, or one is taken out: the commit holds that, not the list."""

    def node(state: Chat) -> Any:
        messages = state["messages"]
        if edit == "in place":
            messages[50].content = "changed"
            return {"notes": ["changed"]}
        if edit == "first removed":
            return {"messages": [RemoveMessage(id=messages[0].id)]}
        if edit == "a dict's member":
            messages[50].additional_kwargs["mark"] = 1
            return {"notes": ["marked"]}
        return {"messages": [HumanMessage("changed", id=messages[50].id)]}

    many = {"messages": [HumanMessage(f"{number} " * 100, id=f"m{number}") for number in range(200)]}
    graph = chat(PerdureSaver(store), node)
    chat(PerdureSaver(store), lambda state: {"notes": ["begun"]}).invoke(many, config())
    before = len(sizes(store))
    graph.invoke(say("go"), config())
    assert max(sizes(store)[before:]) < 1_500
    kept = graph.get_state(config()).values["messages"]
    assert (len(kept), kept[50].content == "changed") == ((200, False) if edit == "first removed" else (201, edit in ("in place", "by id")))


class Inner(TypedDict, total=False):
    """The state of an inner graph with a memory of its own."""

    asked: str
    log: Annotated[list[str], operator.add]


@pytest.mark.parametrize("memory", [True, None], ids=["a memory of its own", "a new run each turn"])
def test_a_subgraph_costs_what_it_adds(store: perdure.sync.Store, memory: bool | None) -> None:
    """An inner graph's checkpoints are differences too, in its own namespace or in that of each run: turn 30 costs what turn 3 does."""
    inner = StateGraph(Inner)
    inner.add_node("agent", lambda state: {"log": ["y" * 300], "asked": f"{len(state.get('log', []))} before"})
    inner.add_edge(START, "agent")
    graph = StateGraph(Wide)
    graph.add_node("team", inner.compile(checkpointer=memory))
    graph.add_edge(START, "team")
    compiled = graph.compile(checkpointer=PerdureSaver(store))
    marks = [0]
    for number in range(30):
        answer = compiled.invoke({"asked": str(number)}, config())
        assert answer["asked"] == f"{number if memory else 0} before"
        marks.append(len(sizes(store)))
    written = [sum(sizes(store)[start:end]) for start, end in pairwise(marks)]
    assert max(written[3:]) < 1.3 * min(written[2:])
    spaces = {
        found.config["configurable"]["checkpoint_ns"] for found in PerdureSaver(store).list({"configurable": {"thread_id": "trip-42"}})
    }
    assert len(spaces) == (2 if memory else 31)
    state = store.read("langgraph/trip-42").state
    assert list(state["subgraphs"]) == ["team"] and len(state.get("namespaces", {})) == (0 if memory else 29)


def test_the_log_reads_without_the_framework(store: perdure.sync.Store) -> None:
    """Commits say step, source and node; messages stand in them by kind and text; a version names a step in the past."""
    graph = chat(PerdureSaver(store))
    graph.invoke(say("Two nights in Lisbon"), config())
    told_ = [(event.type, event.data) for commit in store.history("langgraph/trip-42") for event in commit.events if event.data]
    assert told_ == [
        ("checkpoint", {"step": -1, "source": "input"}),
        ("checkpoint", {"step": 0, "source": "loop"}),
        ("checkpoint", {"step": 1, "source": "loop", "nodes": ["agent"]}),
    ]
    state = store.read("langgraph/trip-42").state
    assert state["values"]["messages"] == [
        {"$": "human", "content": "Two nights in Lisbon", "id": "Two nights in Lisbon"},
        {"$": "ai", "content": "answer 1", "id": "a1"},
    ]
    assert "messages" not in store.read("langgraph/trip-42", at=1).state.get("values", {})


def test_late_writes_are_found_on_their_checkpoint(store: perdure.sync.Store) -> None:
    """Writes that land before their checkpoint, beside the next ones, or long after, are all read back with it, by id and in a listing."""
    saver = PerdureSaver(store)
    checkpoint: Any = lambda id: {"v": 4, "id": id, "ts": "t", "channel_values": {}, "channel_versions": {}, "versions_seen": {}}  # noqa: E731
    here = config(checkpoint_ns="")
    saver.put_writes(config(checkpoint_ns="", checkpoint_id="1"), [("a", "early")], "t0")
    for number in range(1, 9):
        here = saver.put(here, checkpoint(str(number)), {"source": "loop", "step": number, "parents": {}}, {})
        if number in (1, 2, 7):
            saver.put_writes(config(checkpoint_ns="", checkpoint_id="1"), [("a", f"at {number}")], f"t{number}")
    for reader in (saver, PerdureSaver(store)):
        reader.put_writes(config(checkpoint_ns="", checkpoint_id="1"), [("a", "again")], "t1")
        wanted = [("t0", "a", "early"), ("t1", "a", "at 1"), ("t2", "a", "at 2"), ("t7", "a", "at 7")]
        assert reader.get_tuple(config(checkpoint_ns="", checkpoint_id="1")).pending_writes == wanted
        assert list(reader.list(config()))[-1].pending_writes == wanted
        assert reader.get_tuple(config()).pending_writes == []


def test_writes_that_are_ahead_of_their_checkpoint_stay(store: perdure.sync.Store) -> None:
    """Writes on a checkpoint that another one comes before are there when it comes: a put drops those on earlier ones alone."""
    saver = PerdureSaver(store)
    checkpoint: Any = lambda id: {"v": 4, "id": id, "ts": "t", "channel_values": {}, "channel_versions": {}, "versions_seen": {}}  # noqa: E731
    here = saver.put(config(checkpoint_ns=""), checkpoint("1"), {"source": "input", "step": -1, "parents": {}}, {})
    saver.put_writes(config(checkpoint_ns="", checkpoint_id="3"), [("a", "ahead")], "t3")
    saver.put_writes(here, [("a", "on 1")], "t1")
    for number in (2, 3):
        here = saver.put(here, checkpoint(str(number)), {"source": "loop", "step": number, "parents": {}}, {})
    assert saver.get_tuple(config()).pending_writes == [("t3", "a", "ahead")]
    assert list(store.read("langgraph/trip-42").state["writes"][""]) == ["3"]
    assert [found.pending_writes for found in saver.list(config())] == [[("t3", "a", "ahead")], [], [("t1", "a", "on 1")]]
