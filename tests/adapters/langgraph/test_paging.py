"""Pages of a history follow the chain, whatever the clocks of those that made its checkpoints said; filters are the framework's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base import id as ids
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

import perdure.sync
from perdure.adapters.langgraph import PerdureSaver
from tests.support.adapters.langgraph_chats import Chat, answer, chat, config, say


@pytest.fixture
def store(tmp_path: Path) -> Iterator[perdure.sync.Store]:
    with perdure.sync.open(f"sqlite:///{tmp_path}/agents.db") as opened:
        yield opened


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The ids of checkpoints that are made after `clocks(hours)` are of a clock so many hours ahead."""
    real, shift = ids.time.time_ns, 0

    class Time:
        @staticmethod
        def time_ns() -> int:
            return real() + shift

    def ahead(hours: float) -> None:
        nonlocal shift
        shift = int(hours * 3_600e9)
        monkeypatch.setattr(ids, "_last_v6_timestamp", None)  # Another process, which knows nothing of the ids of this one.

    monkeypatch.setattr(ids, "time", Time)
    return ahead


def skewed(saver: Any, clocks: Any) -> list[Any]:
    """A thread that five workers went on with, whose clocks are hours apart; its checkpoints, newest first."""
    for hours in (0, 2, -1, 3, -2):
        clocks(hours)
        chat(saver).invoke(say(f"at {hours}"), config())
    return list(chat(saver).get_state_history(config()))


def id_of(given: Any) -> str:
    return given.config["configurable"]["checkpoint_id"]


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("filter", [None, {"source": "loop"}, {"nowhere": None}], ids=str)
def test_pages_hide_nothing_where_clocks_differ(store: perdure.sync.Store, clocks: Any, size: int, filter: Any) -> None:
    """Page by page, each `before` the last one of the page before it, a history is whole and in its order, however the ids go."""
    saver = PerdureSaver(store)
    history = skewed(saver, clocks)
    assert len(history) == 15 and sorted(map(id_of, history), reverse=True) != list(map(id_of, history))
    whole = list(saver.list(config(), filter=filter))
    assert len(whole) == (10 if filter == {"source": "loop"} else 15)
    pages: list[Any] = []
    while page := list(saver.list(config(), filter=filter, limit=size, before=pages[-1].config if pages else None)):
        pages += page
    assert list(map(id_of, pages)) == list(map(id_of, whole))
    children = {id_of(found): found.parent_config for found in history}
    assert [id_of(older) for older in history[1:]] == [children[id_of(found)]["configurable"]["checkpoint_id"] for found in history[:-1]]


def test_a_bare_checkpoint_bounds_a_page_as_its_config_does(store: perdure.sync.Store) -> None:
    """What LangGraph's server passes on from its clients, the inside of a config, is understood: else each page would be the first one."""
    saver = PerdureSaver(store)
    chat(saver).invoke(say("one"), config())
    newest, *older = saver.list(config())
    assert list(map(id_of, saver.list(config(), before=newest.config["configurable"]))) == list(map(id_of, older))


def test_pages_of_all_threads_keep_each_in_its_order(store: perdure.sync.Store, clocks: Any) -> None:
    """A listing over all threads has each thread's checkpoints in the order of its chain, from `before` on."""
    saver = PerdureSaver(store)
    history = skewed(saver, clocks)
    saver.put(config("other", checkpoint_ns=""), empty_checkpoint(), {"source": "input", "step": -1, "parents": {}}, {})
    mine = [found for found in saver.list(None) if found.config["configurable"]["thread_id"] == "trip-42"]
    assert list(map(id_of, mine)) == list(map(id_of, history))
    page = [found for found in saver.list(None, before=history[6].config) if found.config["configurable"]["thread_id"] == "trip-42"]
    assert list(map(id_of, page)) == list(map(id_of, history[7:]))
    assert len(list(saver.list(None, limit=7))) == 7


def test_writes_of_a_checkpoint_that_was_gone_on_from_leave_the_document(store: perdure.sync.Store, clocks: Any) -> None:
    """However the ids go, the state holds the writes on its newest checkpoint and no old ones, and each is found with its own."""
    saver = PerdureSaver(store)
    history = skewed(saver, clocks)
    assert store.read("langgraph/trip-42").state.get("writes", {}).get("", {}).keys() <= {id_of(history[0])}
    assert all(bool(saver.get_tuple(found.config).pending_writes) == bool(found.next) for found in history)


def test_a_replay_finds_where_its_subgraph_stood(store: perdure.sync.Store, clocks: Any) -> None:
    """Time travel of a graph whose subgraph has a memory starts the subgraph where it stood then, as the framework's saver does."""

    def build(saver: Any) -> Any:
        outer = StateGraph(Chat)
        inner = StateGraph(Chat)
        inner.add_node("agent", answer)
        inner.add_edge(START, "agent")
        inner.add_edge("agent", END)
        outer.add_node("inner", inner.compile(checkpointer=True))
        outer.add_node("after", lambda state: {"notes": [f"after {len(state['notes'])}"]})
        outer.add_edge(START, "inner")
        outer.add_edge("inner", "after")
        outer.add_edge("after", END)
        return outer.compile(checkpointer=saver)

    told = []
    for saver, skew in ((InMemorySaver(), False), (PerdureSaver(store), False), (PerdureSaver(store), True)):
        graph, here = build(saver), config(f"replay-{skew}")
        for number in range(3):
            if skew:
                clocks(-number)
            graph.invoke(say(f"turn {number}"), here)
        old = [found for found in graph.get_state_history(here) if found.next == ("inner",)][1]
        graph.invoke(None, old.config)
        told.append(graph.get_state(here).values)
    assert told[0] == told[1] == told[2]


FILTERS: list[Any] = [
    {"k": None},
    {"k": 1},
    {"k": "1"},
    {"nowhere": None},
    {"nowhere": 1},
    {"source": None},
    {"step": None},
    {"k": None, "source": "loop"},
    {"step": 1, "nowhere": None},
    {"source": "loop"},
    {"parents": {}},
    {"k": [1]},
    {},
]


@pytest.mark.parametrize(("filter", "limit"), list(itertools.product(FILTERS, [None, 1, 3])), ids=str)
def test_filters_choose_what_the_frameworks_saver_chooses(store: perdure.sync.Store, filter: Any, limit: int | None) -> None:
    """Of checkpoints whose metadata hold null, nothing, numbers, texts and lists, each filter finds the same as with the framework's."""
    found = []
    for saver in (InMemorySaver(), PerdureSaver(store)):
        here = config(checkpoint_ns="")
        for number, more in enumerate([{"k": None}, {}, {"k": 1}, {"k": "1"}, {"k": [1]}, {"k": 1}, {}]):
            meta: Any = {"source": "loop" if number % 2 else "input", "step": number, "parents": {}, **more}
            if number == 6:
                meta = {"parents": {}}
            here = saver.put(here, empty_checkpoint(), meta, {})
        found.append([tuple_.metadata for tuple_ in saver.list(config(), filter=filter, limit=limit)])
    assert found[0] == found[1]
