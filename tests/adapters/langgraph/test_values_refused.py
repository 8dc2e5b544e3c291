"""What would not come back as it is is refused when it is written: by nested path and reason, and with advice only where it helps."""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
import subprocess
import sys
from collections import UserDict, defaultdict
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import dateutil.tz
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import HumanMessage, ToolMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import BaseModel, create_model

import perdure.sync
from perdure import Invalid
from perdure.adapters.langgraph import PerdureSaver, PerdureStore
from perdure.adapters.langgraph.memory import MessageCache
from perdure.adapters.langgraph.values import Codec, serialiser
from tests.adapters.langgraph import data_types as t
from tests.support.adapters.langgraph_chats import config


def refusal(value: Any, *, allow: Any = None) -> Invalid:
    """The error that refuses a value."""
    with pytest.raises(Invalid, match=r"^Channel 'a' holds a value of type ") as caught:
        Codec(serialiser(allow), MessageCache(), allow).encode(value, "Channel 'a'")
    return caught.value


class Meters(dt.tzinfo):
    """A zone that does not answer."""


LOSES: list[tuple[Any, str]] = [
    (defaultdict(lambda: 1), "default_factory"),
    (dt.datetime(2026, 1, 1, tzinfo=dateutil.tz.gettz("Europe/Rome")), "time zone"),
    (dt.time(1, tzinfo=dateutil.tz.gettz("Europe/Rome")), "time zone"),
    (dt.datetime(2026, 1, 1, tzinfo=Meters()), "time zone"),
    (ValueError("x"), r"repr\(error\)"),
    (type("Moment", (dt.datetime,), {})(2026, 1, 1), "plain date"),
]


@pytest.mark.parametrize(("value", "what"), LOSES, ids=lambda value: type(value).__name__)
def test_what_would_be_lost_is_said(value: Any, what: str) -> None:
    """At the top and deep in objects, lists, dicts and messages; and `allow` is not advised, for it would not help."""
    places = {
        "": value,
        "[1]": [0, value],
        "['k']['l'][2]": {"k": {"l": (1, 2, value)}},
        "['k'].tags[0]": {"k": t.Note("x", [value])},
        "[0].artifact": [ToolMessage("x", tool_call_id="1", artifact=value)],
        "[0].mood": [HumanMessage("x", mood=value)],
        ".held.held": t.Box(held=t.Box(held=value)),
        ".items[(1, 2)]": t.Box(held={(1, 2): value}),
    }
    for path, held in places.items():
        error = refusal(held)
        assert error.path == path.replace(".items", ".held")
        assert str(error).count("would not come back as it is") == 1
        assert "allow" not in str(error)
        assert re.search(what, str(error))


@pytest.mark.parametrize(
    "value", [1j, object(), len, type, Fraction(1, 2), range(2), SimpleNamespace(a=1), UserDict(), iter(()), memoryview(b"")]
)
def test_what_is_no_data_is_said(value: Any) -> None:
    """What no list could allow is not told to be put on one."""
    error = refusal({"x": [value]})
    assert error.path == "['x'][0]" and "more than data" in str(error)
    assert "allow" not in str(error)


class Loose(BaseModel):
    """A class that is not on the list."""

    x: int = 1


@pytest.mark.parametrize("allow", [[], [t.Hotel]])
def test_a_list_closes(allow: Any) -> None:
    """With `allow` the classes that are listed are taken, the framework's safe ones, and no others, at any depth."""
    for path, value in {"": Loose(), "[0].tags": [t.Note("x", 1)], ".held": t.Hotel(name="x")}.items():
        if allow and type(value) in allow:
            continue
        error = refusal(value, allow=allow)
        assert "is not allowed: pass it in allow=[…]" in str(error) and error.path in ("", "[0]", path)
    Codec(serialiser(allow), MessageCache(), allow).encode([HumanMessage("x"), dt.date(2026, 1, 1), {1}], "a")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (t.Settings(), "settings"),
        (t.Importing(), "ImportString"),
        (t.Client(), "client"),
        (DeterministicFakeEmbedding(size=3), "client"),
        (t.Closing(), "runs code"),
        (t.Text("x"), "extension"),
        (t.Bag(a=1), "extension"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_reaches_beyond_its_data_is_taken_only_when_listed(value: Any, reason: str) -> None:
    """Settings, imports by name, clients, finalizers and extensions of built-in classes are no data types by default."""
    assert reason in str(refusal([value])) and "pass it in allow=[…]" in str(refusal([value]))
    if type(value) in (t.Settings, t.Importing, t.Client, t.Closing, t.Text, t.Bag):
        codec = Codec(serialiser([type(value)]), MessageCache(), [type(value)])
        again = codec.decode(codec.encode([value], "a"))[0]
        assert type(again) is type(value) and again == value


def test_one_name_means_one_class() -> None:
    """An object of a class that another one has replaced under its name would become one of the other: refused."""
    stale = type("Hotel", (BaseModel,), {"__module__": t.__name__, "__qualname__": "Hotel", "__annotations__": {"name": str}})
    assert "its name means another class" in str(refusal(stale(name="x")))
    assert "its name means another class" in str(refusal(stale(name="x"), allow=[t.Hotel]))


def test_a_class_without_a_name_is_taken_with_a_warning(caplog: Any) -> None:
    """As the framework takes it: it comes back as plain data, which is said once when it is written."""
    made = create_model("Passing", x=(int, 1))
    codec = Codec(serialiser(None), MessageCache(), None)
    with caplog.at_level(logging.WARNING):
        stored = codec.encode([made(), made()], "a")
    assert len([record for record in caplog.records if "cannot be found by its name" in record.message and "allow=" in record.message]) == 1
    assert codec.decode(stored) == [{"x": 1}, {"x": 1}]


def test_allow_is_a_list_of_classes() -> None:
    """Anything else on it is refused at once; a serialiser brings its own list."""
    with perdure.sync.open("memory:") as store:
        for made in (PerdureSaver, PerdureStore):
            with pytest.raises(Invalid, match="list of classes"):
                made(store, allow=[t.Hotel(name="x")])  # type: ignore[list-item]
        with pytest.raises(Invalid, match="allow belongs"):
            PerdureSaver(store, serde=JsonPlusSerializer(), allow=[])


def test_a_refused_checkpoint_stores_nothing() -> None:
    """The thread is as it was, and the error names the channel."""
    with perdure.sync.open("memory:") as store:
        saver = PerdureSaver(store)
        checkpoint = {**empty_checkpoint(), "channel_values": {"fine": 1, "bad": {"x": [1j]}}}
        with pytest.raises(Invalid, match=r"Channel 'bad' holds a value of type builtins.complex at \['x'\]\[0\]"):
            saver.put(config(checkpoint_ns=""), checkpoint, {"source": "loop", "step": 1, "parents": {}}, {})
        assert saver.get_tuple(config(checkpoint_ns="")) is None


STRICT = """
import logging
from typing import Any, TypedDict
from langgraph.graph import END, START, StateGraph
import perdure.sync
from perdure.adapters.langgraph import PerdureSaver
from tests.adapters.langgraph import data_types as t

class State(TypedDict, total=False):
    hotel: t.Hotel
    other: Any

def node(state):
    return {"hotel": t.Hotel(name="Sol", stars=3), "other": t.Spot(1)}

with perdure.sync.open("memory:") as store:
    graph = StateGraph(State).add_node("n", node).add_edge(START, "n").add_edge("n", END)
    here = {"configurable": {"thread_id": "1"}}
    graph.compile(checkpointer=PerdureSaver(store)).invoke({}, here)
    state = graph.compile(checkpointer=PerdureSaver(store)).get_state(here).values
    assert state["hotel"] == t.Hotel(name="Sol", stars=3) and type(state["hotel"]) is t.Hotel, state
    assert state["other"] == {"x": 1, "y": ()}, state
    open = graph.compile(checkpointer=PerdureSaver(store, allow=[t.Spot])).get_state(here).values
    assert open["other"] == t.Spot(1), open
"""


def test_the_strict_mode_of_the_framework_makes_the_graphs_own_types() -> None:
    """Under LANGGRAPH_STRICT_MSGPACK the classes of the graph's schemas come back, others as plain data that is not lost: with `allow` they
    come back too."""
    environment = {**os.environ, "LANGGRAPH_STRICT_MSGPACK": "true"}
    subprocess.run([sys.executable, "-c", STRICT], check=True, env=environment, timeout=60)


def test_items_of_the_store_hold_the_same_types() -> None:
    """`PerdureStore` takes, refuses and makes what the checkpointer does."""
    with perdure.sync.open("memory:") as store:
        PerdureStore(store).put(("a",), "k", {"hotel": t.Hotel(name="x"), "zone": defaultdict(list)}, index=False)
        value = PerdureStore(store).get(("a",), "k").value
        assert type(value["hotel"]) is t.Hotel and type(value["zone"]) is defaultdict
        closed = PerdureStore(store, allow=[])
        assert closed.get(("a",), "k").value["hotel"] == {"name": "x", "stars": 0}
        closed.put(("a",), "copy", closed.get(("a",), "k").value, index=False)
        assert PerdureStore(store).get(("a",), "copy").value == value
        with pytest.raises(Invalid, match=r"Item 'k' of a holds a value of type .*Hotel at \['h'\], which is not allowed"):
            closed.put(("a",), "k", {"h": t.Hotel(name="x")}, index=False)
