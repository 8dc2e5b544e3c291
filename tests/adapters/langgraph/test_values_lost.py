"""What cannot be made when it is read comes back as plain data, says so once, and is stored again as what it was."""

from __future__ import annotations

import copy
import enum
import logging
import pickle
import sys
from types import ModuleType
from typing import Annotated, Any, TypedDict

import msgspec
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from pydantic import RootModel, create_model

import perdure.sync
from perdure import Invalid, Unsupported
from perdure.adapters.langgraph import PerdureSaver, classes
from perdure.adapters.langgraph.memory import MessageCache
from perdure.adapters.langgraph.values import Codec, serialiser
from tests.adapters.langgraph import data_types as t

CLOSED = serialiser([])


def stored(value: Any) -> Any:
    """A value as it is stored."""
    return msgspec.json.decode(msgspec.json.encode(Codec(serialiser(None), MessageCache(), None).encode(value, "a")))


@pytest.mark.parametrize("value", t.objects(), ids=lambda value: type(value).__name__)
def test_content_without_its_class_is_stored_again_as_it_was(value: Any) -> None:
    """Whatever it is and wherever it stands: the next write holds the same bytes, also after copies."""
    codec = Codec(CLOSED, MessageCache(), [])
    for held in (value, [value], {"a": {"b": (value,)}}, HumanMessage("x", mood=value), ToolMessage("x", tool_call_id="1", artifact=value)):
        before = stored(held)
        read = codec.decode(before)
        assert codec.encode(read, "a") == before
        assert codec.encode(copy.deepcopy(read), "a") == before
        assert codec.encode(pickle.loads(pickle.dumps(read)), "a") == before
    again = Codec(serialiser(None), MessageCache(), None).decode(codec.encode(codec.decode(stored([value])), "a"))
    assert again == [value]


def test_content_is_that_of_the_strict_mode() -> None:
    """Models, dataclasses and tuples are dicts of their fields, members their values, roots what they hold."""
    codec = Codec(CLOSED, MessageCache(), [])
    expected = [
        (t.Hotel(name="x"), {"name": "x", "stars": 0}),
        (t.Open(x=2, y=3), {"x": 2, "y": 3}),
        (t.Spot(1, (2,)), {"x": 1, "y": (2,)}),
        (t.Point(1), {"x": 1, "y": 0}),
        (t.Color.RED, "r"),
        (t.Color.MIX, (1, (2, 3))),
        (t.Color.ADD, "ADD"),
        (t.Level.HIGH, 3),
        (t.Rows([1, 2]), [1, 2]),
        (t.Note("x", t.Color.RED), {"text": "x", "tags": "r", "length": 1}),
    ]
    for value, plain in expected:
        read = codec.decode(stored(value))
        assert read == plain and isinstance(read, type(plain))


def test_content_that_was_changed_is_refused() -> None:
    """It is no object any more and no plain value either; a new value made of it is what the program says it is."""
    codec = Codec(CLOSED, MessageCache(), [])
    read = codec.decode(stored({"hotels": [t.Hotel(name="x")]}))
    read["hotels"][0]["stars"] = 5
    with pytest.raises(Invalid, match=r"at \['hotels'\]\[0\], which holds the content of a .*:Hotel, whose class was not found"):
        codec.encode(read, "Channel 'a'")
    assert codec.encode({"hotels": [dict(read["hotels"][0])]}, "a") == {"hotels": [{"name": "x", "stars": 5}]}


def test_content_that_cannot_carry_what_it_was_is_not_read() -> None:
    """A member whose value is None would come back as None, and be stored as that: it says which class is missing."""
    nothing = enum.Enum("Nothing", {"NONE": None}, module=t.__name__, qualname="Nothing")
    with pytest.raises(Unsupported, match="Nothing"):
        Codec(CLOSED, MessageCache(), []).decode(stored(nothing["NONE"]))


def module(source: str, name: str = "renamed_types") -> ModuleType:
    """A module of a program, as it stands at one time."""
    made = ModuleType(name)
    sys.modules[name] = made
    exec(source, vars(made))
    return made


BEFORE = """
import dataclasses, enum
from pydantic import BaseModel
class State(enum.Enum):
    NEW = "n"
    OLD = "o"
class Trip(BaseModel):
    city: str
    nights: int = 1
@dataclasses.dataclass
class Note:
    text: str
    size: int = 0
class Gone(BaseModel):
    x: int = 1
"""
AFTER = """
import dataclasses, enum
from pydantic import BaseModel
class State(enum.Enum):
    NEW = "n"
class Trip(BaseModel):
    city: str
@dataclasses.dataclass
class Note:
    text: str
    author: str
"""


@pytest.fixture
def program() -> Any:
    """A program that changes, and goes."""
    yield module(BEFORE)
    sys.modules.pop("renamed_types", None)


def test_classes_that_changed_lose_nothing(program: Any, caplog: Any) -> None:
    """A member that is gone, a class that is gone, a field that is asked for and was not stored: plain data, said once by name.
    A field that is gone: the object without it. All are stored again as they were, and whole when the old program reads them."""
    value = {
        "members": [program.State.NEW, program.State.OLD],
        "trip": program.Trip(city="Rome", nights=3),
        "note": program.Note("x", 5),
        "gone": program.Gone(x=4),
    }
    before = stored(value)
    module(AFTER)
    codec = Codec(serialiser(None), MessageCache(), None)
    classes._warned.clear()
    with caplog.at_level(logging.WARNING, "perdure"):
        read, _ = codec.decode(before), codec.decode(before)
    assert read["members"][0] is sys.modules["renamed_types"].State.NEW
    assert (read["members"][1], read["note"], read["gone"]) == ("o", {"text": "x", "size": 5}, {"x": 4})
    assert type(read["trip"]).__name__ == "Trip" and read["trip"].city == "Rome"
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 4 and all(sum(f"renamed_types:{name}" in text for text in said) == 1 for name in ("State", "Trip", "Note", "Gone"))
    assert codec.encode(read, "a") == before
    module(BEFORE)
    again = Codec(serialiser(None), MessageCache(), None).decode(before)
    assert again["trip"].nights == 3 and again["members"][1].value == "o" and again["note"].size == 5 and again["gone"].x == 4


class Chat(TypedDict):
    """A state with a class in it."""

    messages: Annotated[list[Any], add_messages]
    hotel: Any
    level: Any


def test_a_thread_that_runs_on_without_its_classes_loses_nothing() -> None:
    """A worker that lacks the classes runs a graph's steps; one that has them finds the objects as they were."""

    def speak(state: Chat) -> dict[str, Any]:
        return {"messages": [HumanMessage("on", id=str(len(state["messages"])))]}

    def first(state: Chat) -> dict[str, Any]:
        return {
            "hotel": t.Hotel(name="Sol", stars=4),
            "level": [t.Level.HIGH],
            "messages": [ToolMessage("x", tool_call_id="1", id="t", artifact=t.Spot(1))],
        }

    with perdure.sync.open("memory:") as store:
        here: Any = {"configurable": {"thread_id": "1"}}

        def graph(node: Any, saver: PerdureSaver) -> Any:
            return StateGraph(Chat).add_node("n", node).add_edge(START, "n").add_edge("n", END).compile(checkpointer=saver)

        graph(first, PerdureSaver(store)).invoke({"messages": []}, here)
        poor = graph(speak, PerdureSaver(store, allow=[]))
        for _ in range(3):
            poor.invoke({"messages": []}, here)
        assert poor.get_state(here).values["hotel"] == {"name": "Sol", "stars": 4}
        values = graph(speak, PerdureSaver(store)).get_state(here).values
        assert (values["hotel"], values["level"]) == (t.Hotel(name="Sol", stars=4), [t.Level.HIGH])
        assert type(values["hotel"]) is t.Hotel and type(values["level"][0]) is t.Level
        assert values["messages"][0].artifact == t.Spot(1) and len(values["messages"]) == 4


def test_a_state_that_validates_makes_its_own_objects_of_plain_data() -> None:
    """As with the framework: what came back as the fields of a class without a name is an object again in a state that is a model."""
    local: Any = create_model("Local", x=(int, 0))
    whole: Any = create_model("Whole", local=(local, local()), rows=(RootModel[list[int]], ...))

    def node(state: Any) -> dict[str, Any]:
        assert type(state.local) is local and state.rows.root == [1]
        return {"local": local(x=state.local.x + 1)}

    with perdure.sync.open("memory:") as store:
        here: Any = {"configurable": {"thread_id": "1"}}
        for expected in (1, 2):
            graph = StateGraph(whole).add_node("n", node).add_edge(START, "n").add_edge("n", END).compile(checkpointer=PerdureSaver(store))
            made: Any = {"rows": RootModel[list[int]]([1])} if expected == 1 else {}
            answer = graph.invoke(made, here)
            assert answer["local"].x == expected
