"""Threads as wholes, and input that is not as it should be: what is not ours is refused, and a refusal changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import ToolMessage
from langgraph.checkpoint.base import empty_checkpoint

import perdure.sync
from perdure import AlreadyExists, Closed, Event, Invalid, NotFound, TooLarge, Unsupported, op
from perdure.adapters.common import versions
from perdure.adapters.langgraph import PerdureSaver, PerdureStore
from perdure.adapters.langgraph.memory import RECENT_MAX, RecentCheckpoints
from tests.support.adapters.langgraph_chats import chat, comparable, config, say

META: Any = {"source": "loop", "step": 0, "parents": {}}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[perdure.sync.Store]:
    with perdure.sync.open(f"sqlite:///{tmp_path}/agents.db") as opened:
        yield opened


def put(saver: PerdureSaver, thread: str = "trip-42", ns: str = "", **values: Any) -> Any:
    """A checkpoint on a thread's newest one."""
    found = saver.get_tuple(config(thread, checkpoint_ns=ns))
    here = config(thread, checkpoint_ns=ns) if found is None else found.config
    return saver.put(here, {**empty_checkpoint(), "channel_values": values}, META, {})


def test_a_copy_is_a_fork_and_lives_on_by_itself(store: perdure.sync.Store) -> None:
    """A copied thread has the same history under the same ids; both go on apart; a copy of the copy and time travel in it work."""
    saver = PerdureSaver(store)
    graph = chat(saver)
    for text in ("one", "two"):
        graph.invoke(say(text), config())
    saver.copy_thread("trip-42", "copy")
    saver.copy_thread("copy", "again")
    assert comparable(list(graph.get_state_history(config()))) == comparable(list(graph.get_state_history(config("again"))))
    graph.invoke(say("three"), config("again"))
    old = list(graph.get_state_history(config("again")))[-2]
    assert comparable([graph.get_state(old.config)]) == comparable([old])
    assert [len(graph.get_state(config(name)).values["messages"]) for name in ("trip-42", "copy", "again")] == [4, 4, 6]
    saver.delete_thread("trip-42")
    assert len(list(graph.get_state_history(config("copy")))) == 6
    for source, target, error in (("nobody", "x", NotFound), ("copy", "again", AlreadyExists), ("trip-42", "x", NotFound)):
        with pytest.raises(error):
            saver.copy_thread(source, target)
    store.verify("langgraph/again")


def test_what_is_taken_out_is_not_found_and_the_one_before_takes_its_place(store: perdure.sync.Store) -> None:
    """delete_for_runs removes a run's checkpoints by id, in listings and as the newest; the thread goes on from what is left."""
    saver = PerdureSaver(store)
    graph = chat(saver)
    for text in ("one", "two"):
        graph.invoke(say(text), config() | {"metadata": {"run_id": text}})
    gone = graph.get_state(config()).config
    saver.delete_for_runs(["two"])
    assert saver.get_tuple(gone) is None
    assert graph.get_state(config()).values["messages"][-1].content == "answer 1"
    assert len(list(saver.list(config()))) == 3
    graph.invoke(say("three"), config())
    assert [message.content for message in graph.get_state(config()).values["messages"]] == ["one", "answer 1", "three", "answer 3"]
    saver.delete_for_runs(["one", "nothing"])
    assert {found.metadata.get("run_id") for found in saver.list(None)} == {None}
    asyncio.run(saver.adelete_thread("trip-42"))
    assert list(saver.list(None)) == []
    store.verify("langgraph/trip-42")


def test_pruning_leaves_the_newest_of_each_namespace(store: perdure.sync.Store) -> None:
    """keep_latest hides all else, also by id, and again after more steps; an unknown strategy is refused."""
    saver = PerdureSaver(store)
    first = put(saver, a=1)
    for ns in ("", "team:1", "team:2", "team:1"):
        put(saver, ns=ns, a=ns)
    saver.prune(["trip-42", "nobody"])
    left = list(saver.list({"configurable": {"thread_id": "trip-42"}}))
    assert {(found.config["configurable"]["checkpoint_ns"], found.checkpoint["channel_values"]["a"]) for found in left} == {
        ("", ""),
        ("team:1", "team:1"),
        ("team:2", "team:2"),
    }
    assert saver.get_tuple(first) is None
    put(saver, a="more")
    saver.prune(["trip-42"])
    assert [found.checkpoint["channel_values"]["a"] for found in saver.list(config(checkpoint_ns=""))] == ["more"]
    with pytest.raises(Invalid, match="'keep_two'"):
        saver.prune(["trip-42"], strategy="keep_two")


@pytest.mark.parametrize("ns", ["", "a:1", "a:1|b:2", "a/b~1:x", "ü|:|", "x" * 300])
@pytest.mark.parametrize("thread", ["trip/42", "a:b|c", "ünïcode ~ %", "langgraph/x", "7"])
def test_names_of_any_kind_are_kept_apart(store: perdure.sync.Store, ns: str, thread: str) -> None:
    """Threads and namespaces with separators in them read back as themselves, with versions and channels of any name."""
    saver = PerdureSaver(store)
    for number in range(2):
        put(saver, thread, ns, **{"a/b~c": number, "": number, "$": {"$": 1}})
        put(saver, thread + "x", ns, other=number)
    found = saver.get_tuple(config(thread, checkpoint_ns=ns))
    assert found is not None and found.checkpoint["channel_values"] == {"a/b~c": 1, "": 1, "$": {"$": 1}}
    assert len(list(saver.list(config(thread, checkpoint_ns=ns)))) == 2
    assert {listed.config["configurable"]["thread_id"] for listed in saver.list(None)} == {thread, thread + "x"}


def test_bad_configs_are_refused(store: perdure.sync.Store) -> None:
    """No thread, a thread that no session can be, a namespace or limit that is none: Invalid, and nothing is written."""
    saver = PerdureSaver(store)
    for bad in ({}, {"configurable": {}}, config("x" * 300), config("a\nb"), config(checkpoint_ns=7), config(checkpoint_id=7)):
        with pytest.raises(Invalid):
            saver.get_tuple(bad)
        with pytest.raises(Invalid):
            saver.put(bad, empty_checkpoint(), META, {})
    with pytest.raises(Invalid, match="no checkpoint_id"):
        saver.put_writes(config(), [("a", 1)], "task")
    with pytest.raises(Invalid, match="limit"):
        list(saver.list(config(), limit=-1))
    with pytest.raises(Invalid, match="id must be"):
        saver.put(config(), {**empty_checkpoint(), "id": ""}, META, {})
    for arguments in ({"on_race": "maybe"}, {"serde": saver.serde, "allow": [int]}):
        with pytest.raises(Invalid):
            PerdureSaver(store, **arguments)
    with pytest.raises(Invalid, match="open store"):
        PerdureSaver("sqlite:///x.db")
    assert list(store.list()) == []


def test_a_session_that_is_not_ours_is_refused(store: perdure.sync.Store) -> None:
    """A session under a thread's name that something else wrote is named and left alone by every call, deletion included."""
    store.append("langgraph/trip-42", Event("note", None, (op.set("/checkpoint", {"id": "x"}),)))
    store.append("langgraph-store/users", Event("note", None, (op.set("/items", {"a": 1}),)))
    saver, memory = PerdureSaver(store), PerdureStore(store)
    for call in (
        lambda: saver.get_tuple(config()),
        lambda: list(saver.list(config())),
        lambda: put(saver, a=1),
        lambda: saver.put_writes(config(checkpoint_id="x"), [("a", 1)], "task"),
        lambda: saver.delete_thread("trip-42"),
        lambda: saver.prune(["trip-42"]),
        lambda: memory.put(("users",), "a", {"b": 1}),
        lambda: memory.search(("users",)),
    ):
        with pytest.raises(Invalid, match="something else wrote it"):
            call()
    assert store.read("langgraph/trip-42").version == 1


def test_what_a_newer_adapter_wrote_is_unsupported(store: perdure.sync.Store) -> None:
    """A layout with a higher number is not guessed at."""
    saver, memory = PerdureSaver(store), PerdureStore(store)
    put(saver, a=1)
    memory.put(("users",), "a", {"b": 1})
    store.append("langgraph/trip-42", Event("upgraded", None, (op.set("/langgraph", 2),)))
    store.append("langgraph-store/users", Event("upgraded", None, (op.set("/langgraph_store", 2),)))
    for call in (lambda: saver.get_tuple(config()), lambda: put(saver, a=2), lambda: memory.get(("users",), "a")):
        with pytest.raises(Unsupported, match="newer adapter"):
            call()


def test_ten_megabytes_are_stored_or_too_large(store: perdure.sync.Store) -> None:
    """A tool result of 10 MB reads back whole; what no record can hold is TooLarge and changes nothing."""
    saver = PerdureSaver(store)
    result = ToolMessage("0123456789" * 1_000_000, tool_call_id="c")
    stored = put(saver, messages=[result])
    assert saver.get_tuple(stored).checkpoint["channel_values"]["messages"] == [result]
    saver.put_writes(stored, [("messages", [result])], "task")
    with pytest.raises(TooLarge):
        put(saver, messages=[ToolMessage("x" * (store.capabilities.record_bytes_max + 1), tool_call_id="c")])
    assert len(list(saver.list(config()))) == 1


def test_tenants_and_closed_stores(tmp_path: Path) -> None:
    """Threads of one tenant are not another's; a saver on a closed store says so."""
    with perdure.sync.open(f"sqlite:///{tmp_path}/agents.db") as opened:
        mine, theirs = PerdureSaver(opened), PerdureSaver(opened.for_tenant("acme"))
        put(mine, a=1)
        assert theirs.get_tuple(config()) is None and list(theirs.list(None)) == []
    with pytest.raises(Closed):
        mine.get_tuple(config())


def test_what_a_saver_remembers_of_threads_is_bounded() -> None:
    """The newest few thousand checkpoints are remembered, whatever number of threads a saver has served."""
    recent = RecentCheckpoints()
    for number in range(3 * RECENT_MAX):
        recent.put(f"langgraph/{number}", "", "id", number)
    assert len(recent) == RECENT_MAX and recent.get("langgraph/0", "", "id") is None


def test_a_version_outside_the_range_is_said() -> None:
    """A package that is missing, too old or too new: Unsupported with the range and the line that installs it."""
    versions.require("langgraph-checkpoint", "4.0", "5", "langgraph")
    for package, low, high in (("langgraph-checkpoint", "1.0", "4"), ("langgraph-checkpoint", "5", "6"), ("no-such-package", "1", "2")):
        with pytest.raises(Unsupported, match=rf"{package}>={low},<{high}.*pip install '\.\[langgraph\]'"):
            versions.require(package, low, high, "langgraph")


def test_items_expire_and_live_on_by_being_read(store: perdure.sync.Store) -> None:
    """An item whose minutes are over is not found, searched or listed; reading renews it; a sweep removes what is over, and counts it."""
    memory = PerdureStore(store, ttl={"default_ttl": None, "refresh_on_read": True})
    memory.put(("a",), "gone", {"v": 1}, ttl=0)
    memory.put(("a", "b"), "kept", {"v": 2}, ttl=60)
    memory.put(("a", "b"), "for ever", {"v": 3})
    assert memory.get(("a",), "gone") is None and [item.key for item in memory.search(("a",))] == ["for ever", "kept"]
    assert memory.list_namespaces() == [("a", "b")]
    before = store.read("langgraph-store/a.b").state["items"]["kept"]["expires"]
    assert memory.get(("a", "b"), "kept", refresh_ttl=False).value == {"v": 2}
    assert store.read("langgraph-store/a.b").state["items"]["kept"]["expires"] == before
    memory.get(("a", "b"), "kept")
    assert store.read("langgraph-store/a.b").state["items"]["kept"]["expires"] > before
    assert (memory.sweep_ttl(), memory.sweep_ttl()) == (1, 0)
    assert store.read("langgraph-store/a").state["items"] == {}
