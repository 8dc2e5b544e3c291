"""A config is the framework's own: three names. What a run knew of its thread is remembered elsewhere, and losers are still refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import END, START, StateGraph

import perdure.sync
from perdure import Conflict
from perdure.adapters.langgraph import PerdureSaver
from perdure.adapters.langgraph.memory import SEEN_MAX
from tests.support.adapters.langgraph_chats import Chat, answer, chat, config, say

NAMES = {"thread_id", "checkpoint_ns", "checkpoint_id"}
LOOP: Any = {"source": "loop", "step": 1, "parents": {}}
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/agents.db"


@pytest.fixture
def store(url: str) -> Iterator[perdure.sync.Store]:
    with perdure.sync.open(url) as opened:
        yield opened


def through_json(given: Any) -> Any:
    return json.loads(json.dumps(given))


def texts(graph: Any) -> list[str]:
    return [message.content for message in graph.get_state(config()).values["messages"]]


def nested(saver: PerdureSaver) -> Any:
    """A graph with a subgraph in it."""
    outer = StateGraph(Chat)
    outer.add_node("inner", chat(None))
    outer.add_node("after", answer)
    outer.add_edge(START, "inner")
    outer.add_edge("inner", "after")
    outer.add_edge("after", END)
    return outer.compile(checkpointer=saver, interrupt_before=["after"])


def configs_in(value: Any) -> Iterator[dict[str, Any]]:
    """All configs, however deep, in what the framework gave out."""
    if isinstance(value, dict):
        if isinstance(value.get("configurable"), dict):
            yield value
        for inner in value.values():
            yield from configs_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from configs_in(inner)


def test_configs_hold_the_frameworks_names_and_no_other(store: perdure.sync.Store) -> None:
    """Loads, listings, puts, snapshots, histories, streams and updates give out three strings, and a saver's own config is just those."""
    saver = PerdureSaver(store)
    graph = nested(saver)
    given = list(graph.stream(say("one"), config(), stream_mode=["debug", "checkpoints", "tasks"], subgraphs=True))
    given += graph.stream(None, config(), stream_mode="checkpoints")
    given += [graph.get_state(config()), graph.get_state(config(), subgraphs=True), *graph.get_state_history(config())]
    given += [saver.get_tuple(config()), *saver.list(config()), *saver.list(None)]
    given.append(graph.update_state(config(), {"notes": ["mine"]}))
    given.append(saver.put(saver.get_tuple(config()).config, empty_checkpoint(), LOOP, {}))
    for tuple_ in saver.list(config()):
        given.append(saver.get_tuple(tuple_.config))
    found = list(configs_in(given))
    assert len(found) > 50
    for one in found:
        names = one["configurable"].keys() - {"checkpoint_map"}  # The engine's own, in the configs of subgraphs.
        assert names <= NAMES and {type(one["configurable"][name]) for name in names} == {str}
        assert through_json(one["configurable"]) == one["configurable"]
    for tuple_ in saver.list(None):
        assert [one["configurable"].keys() for one in configs_in(list(tuple_))] == [NAMES] * (2 if tuple_.parent_config else 1)


@pytest.mark.parametrize("carry", [lambda given: given, through_json], ids=["as given", "through JSON"])
def test_of_two_that_loaded_one_checkpoint_the_later_put_is_refused(store: perdure.sync.Store, carry: Any) -> None:
    """Whatever way the loser's config came, its put is a Conflict; on the newest checkpoint, loaded again, it is stored."""
    saver = PerdureSaver(store)
    saver.put(config(checkpoint_ns=""), empty_checkpoint(), LOOP, {})
    mine, theirs = carry(saver.get_tuple(config()).config), carry(saver.get_tuple(config()).config)
    saver.put(theirs, empty_checkpoint(), LOOP, {})
    for loser in (mine, theirs):
        with pytest.raises(Conflict, match="another run did so first"):
            saver.put(loser, empty_checkpoint(), LOOP, {})
    saver.put(carry(saver.get_tuple(config()).config), empty_checkpoint(), LOOP, {})


def test_a_branch_on_purpose_does_not_open_the_door_to_a_loser(store: perdure.sync.Store) -> None:
    """A run loads the newest checkpoint and is overtaken; another branches from that checkpoint on purpose; the first is still refused."""
    saver = PerdureSaver(store)
    chat(saver).invoke(say("one"), config())
    stale = saver.get_tuple(config()).config
    chat(saver).invoke(say("two"), config())
    for text in ("other", "another"):
        chat(saver).invoke(say(text), through_json(stale))
        assert texts(chat(saver)) == ["one", "answer 1", text, "answer 3"]
        with pytest.raises(Conflict, match="another run did so first"):
            saver.put(stale, empty_checkpoint(), LOOP, {})


def test_a_branch_that_was_overtaken_by_another_of_its_parent_is_refused(store: perdure.sync.Store) -> None:
    """Two runs load the same older checkpoint: what was there before is no race, the other one's branch is."""
    saver = PerdureSaver(store)
    for text in ("one", "two"):
        chat(saver).invoke(say(text), config())
    old = next(snapshot for snapshot in chat(saver).get_state_history(config()) if len(snapshot.values.get("messages", [])) == 2)
    mine, theirs = (saver.get_tuple(old.config).config for _ in range(2))
    saver.put(theirs, empty_checkpoint(), LOOP, {})
    with pytest.raises(Conflict, match="another run did so first"):
        saver.put(mine, empty_checkpoint(), LOOP, {})


def test_a_listed_checkpoint_may_be_gone_on_from(store: perdure.sync.Store) -> None:
    """A listing shows what is there; a branch from one of its older checkpoints, or from a parent that it names, is on purpose."""
    saver = PerdureSaver(store)
    for text in ("one", "two"):
        chat(saver).invoke(say(text), config())
    for number in range(1, 4):
        saver.put(list(saver.list(config()))[number].config, empty_checkpoint(), LOOP, {})
        saver.put(list(saver.list(config()))[number].parent_config, empty_checkpoint(), LOOP, {})
    assert chat(saver).update_state(config(), None, as_node="__copy__")
    store.verify("langgraph/trip-42")


def test_whoever_made_a_checkpoint_may_go_on_from_it_twice(store: perdure.sync.Store) -> None:
    """The config that a put returned leads to two branches by its holder; a run that went on from there meanwhile is not passed over."""
    saver = PerdureSaver(store)
    first = saver.put(config(checkpoint_ns=""), empty_checkpoint(), LOOP, {})
    for _ in range(3):
        saver.put(first, empty_checkpoint(), LOOP, {})
    second = saver.put(saver.get_tuple(config()).config, empty_checkpoint(), LOOP, {})
    saver.put(saver.get_tuple(config()).config, empty_checkpoint(), LOOP, {})
    with pytest.raises(Conflict, match="another run did so first"):
        saver.put(second, empty_checkpoint(), LOOP, {})


def test_what_is_forgotten_is_refused_and_not_forked(store: perdure.sync.Store) -> None:
    """However many loads came between, the loser is refused; the memory of them is bounded."""
    saver = PerdureSaver(store)
    saver.put(config(checkpoint_ns=""), empty_checkpoint(), LOOP, {})
    stale = saver.get_tuple(config()).config
    saver.put(saver.get_tuple(config()).config, empty_checkpoint(), LOOP, {})
    give = saver._seen.at(1)
    for number in range(SEEN_MAX + 1):
        give(str(number))
    assert len(saver._seen) == SEEN_MAX
    with pytest.raises(Conflict, match="another run did so first"):
        saver.put(stale, empty_checkpoint(), LOOP, {})


WORKER = """
import json, sys
import perdure.sync
from langgraph.checkpoint.base import empty_checkpoint
from perdure.adapters.langgraph import PerdureSaver
from tests.support.adapters.langgraph_chats import chat, config, say

with perdure.sync.open(sys.argv[1]) as store:
    saver = PerdureSaver(store)
    loaded = saver.get_tuple(config()).config
    print(json.dumps(loaded), flush=True)
    for line in sys.stdin:
        verb, *given = json.loads(line)
        try:
            if verb == "put":
                saver.put(given[0] if given else loaded, empty_checkpoint(), {"source": "loop", "step": 9, "parents": {}}, {})
            elif verb == "invoke":
                chat(saver).invoke(say(given[1]), given[0])
            else:
                chat(saver).update_state(given[0], {"notes": [given[1]]})
            print("stored", flush=True)
        except perdure.Conflict as error:
            print("conflict", error.code, flush=True)
"""


class Worker:
    """Another process, which has loaded the newest checkpoint and then does what it is asked to."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, url], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.loaded = json.loads(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, *request: Any) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._line()


@pytest.fixture
def worker(url: str, store: perdure.sync.Store) -> Iterator[Worker]:
    chat(PerdureSaver(store)).invoke(say("one"), config())
    other = Worker(url)
    yield other
    other.process.communicate(timeout=60)
    assert other.process.returncode == 0


def test_two_processes_the_one_that_was_overtaken_is_refused(store: perdure.sync.Store, worker: Worker) -> None:
    """The other process loaded, this one goes on: what the other loaded, its copy through JSON and this process's own are all refused."""
    saver = PerdureSaver(store)
    stale = saver.get_tuple(config()).config
    chat(saver).invoke(say("two"), config())
    assert worker.ask("put") == "conflict conflict"
    assert worker.ask("put", worker.loaded) == "conflict conflict"
    assert worker.ask("put", stale) == "conflict conflict"
    with pytest.raises(Conflict):
        saver.put(worker.loaded, empty_checkpoint(), LOOP, {})
    assert texts(chat(saver)) == ["one", "answer 1", "two", "answer 3"]
    store.verify("langgraph/trip-42")


def test_two_processes_time_travel_by_a_config_from_the_other_is_no_race(store: perdure.sync.Store, worker: Worker) -> None:
    """Runs and updates from an older checkpoint, named by a config that came from another process, make branches on purpose."""
    saver = PerdureSaver(store)
    stale = saver.get_tuple(config()).config
    chat(saver).invoke(say("two"), config())
    assert worker.ask("invoke", stale, "other") == "stored"
    assert texts(chat(saver)) == ["one", "answer 1", "other", "answer 3"]
    assert worker.ask("update", stale, "note") == "stored"
    assert chat(saver).get_state(config()).values["notes"] == ["note 1", "note"]
    chat(saver).invoke(say("here"), worker.loaded)
    assert texts(chat(saver)) == ["one", "answer 1", "here", "answer 3"]
    assert worker.ask("put") == "conflict conflict"
    with pytest.raises(Conflict):
        saver.put(stale, empty_checkpoint(), LOOP, {})
