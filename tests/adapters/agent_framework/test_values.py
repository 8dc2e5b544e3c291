"""What workflow checkpoints may hold: values come back exactly, as data; what is not allowed is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from types import ModuleType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from agent_framework import (
    AgentExecutorRequest,
    AgentExecutorResponse,
    AgentResponse,
    Content,
    Message,
    WorkflowCheckpointException,
    WorkflowEvent,
    register_checkpoint_type,
)
from agent_framework._workflows._runner_context import WorkflowMessage
from pydantic import BaseModel, PrivateAttr

from perdure.adapters.agent_framework.values import Codec


class Colour(Enum):
    """An enum of the program's."""

    RED = ("r", 1)


class Level(IntEnum):
    """One that is a number too."""

    HIGH = 3


@dataclass(frozen=True, slots=True)
class Point:
    """Frozen, in slots."""

    x: int
    tags: tuple[str, ...] = ()


@dataclass
class Trip:
    """With a default and an attribute that is no field."""

    city: str
    stops: list[Point] = field(default_factory=list)


class Offer(BaseModel):
    """A pydantic model with everything."""

    model_config = {"extra": "allow"}
    price: Decimal
    trip: Trip | None = None
    _seen: int = PrivateAttr(default=0)


class Plain:
    """No dataclass: members only, and a constructor that must not run again."""

    calls = 0

    def __init__(self, value: Any) -> None:
        Plain.calls += 1
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


OWN = [Colour, Level, Point, Trip, Offer, Plain]


def back(value: Any, codec: Codec | None = None) -> Any:
    """The value after it was encoded, written as JSON, and decoded by another codec."""
    encoded = json.loads(json.dumps((codec or Codec(OWN)).encode(value, "It"), allow_nan=False))
    return Codec(OWN).decode(encoded)


VALUES = [
    None,
    True,
    2**80,
    -0.0,
    float("inf"),
    "Bär 🐻",
    b"\x00\xff",
    bytearray(b"x"),
    [1, [2, (3, {4, 5})]],
    {"a": {"b": None}},
    {1: "a", "1": "b", (2, 3): "c", None: 0},
    {"$": "dict", "items": []},
    frozenset({1, "x"}),
    deque([1, 2]),
    OrderedDict([("b", 1), ("a", 2)]),
    Counter("aab"),
    datetime(2026, 11, 23, 12, 30, 1, 5, tzinfo=UTC),
    datetime(2026, 11, 23, tzinfo=timezone(timedelta(hours=5, minutes=30)), fold=1),
    datetime(2026, 11, 23),  # noqa: DTZ001 - naive ones come back naive
    date(2026, 11, 23),
    time(1, 2, 3),
    timedelta(days=-1, microseconds=5),
    UUID(int=7),
    Decimal("1.10"),
    1 + 2j,
    str,
    list[dict[str, int]],
    datetime,
    Trip,
    Colour.RED,
    Level.HIGH,
    Point(1, ("a",)),
    Trip("Rome", [Point(1), Point(2)]),
    Offer(price=Decimal("9.99"), trip=Trip("Rome"), note="extra"),
    Plain([Plain(1)]),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: str(type(value).__name__))
def test_a_value_comes_back_exactly(value: Any) -> None:
    """Equal, of the same type, and with the same text."""
    again = back(value)
    assert again == value and type(again) is type(value) and (isinstance(value, (set, frozenset, Plain)) or repr(again) == repr(value))


def test_what_a_class_keeps_beside_its_fields_comes_back() -> None:
    """An attribute that is no field, a model's private member and the set of given fields survive; no constructor runs."""
    trip = Trip("Rome")
    trip.mood = "good"  # type: ignore[attr-defined]
    assert back(trip).mood == "good"
    offer = Offer(price=Decimal(1))
    offer._seen = 5
    again = back(offer)
    assert (again._seen, again.model_fields_set) == (5, {"price"})
    before = Plain.calls
    back(Plain(1))
    assert Plain.calls == before + 1


def test_the_frameworks_values_come_back() -> None:
    """Messages with calls, results, thoughts and data, requests, responses, events and what is sent between executors."""
    message = Message(
        "assistant",
        [
            Content.from_text("text"),
            Content.from_text_reasoning(text="hm"),
            Content.from_function_call("c1", "look", arguments={"at": [1]}),
            Content.from_function_result("c1", result={"ok": True}),
            Content.from_data(b"\x00\xff", "image/png"),
        ],
        author_name="planner",
        message_id="m1",
        additional_properties={"k": [1]},
    )
    response = AgentExecutorResponse("e", AgentResponse(messages=[message]), full_conversation=[message])
    event = WorkflowEvent.request_info("r", "e", AgentExecutorRequest([message]), str)
    for value in (message, response, event, WorkflowMessage(source_id="a", data=[message, response])):
        encoded = Codec().encode(value, "It")
        again = Codec().decode(json.loads(json.dumps(encoded)))
        assert type(again) is type(value) and Codec().encode(again, "It") == encoded
    again = back(message)
    assert again.to_dict() == message.to_dict()
    assert vars(again.contents[0]) == vars(message.contents[0])
    assert back(event).response_type is str and back(event).request_id == "r"


class Stranger:
    """Allowed to nobody."""


class Shouting(str):
    """Allowed, and more than its members."""

    __slots__ = ()


@dataclass
class Loop:
    """Holds itself."""

    me: Any = None


def test_what_is_not_allowed_is_refused_by_name_and_with_its_place() -> None:
    """Classes nobody registered, functions, containers with behaviour, a named time zone, endless nesting: each in one sentence."""
    endless: list[Any] = []
    endless.append(endless)
    refused = [
        (Stranger(), "Stranger"),
        (Stranger, "Stranger"),
        (print, "builtin_function_or_method"),
        (lambda: None, "function"),
        (defaultdict(list), "defaultdict"),
        (ValueError("x"), "ValueError"),
        (deque([1], maxlen=3), "deque"),
        (object(), "object"),
        (Shouting("x"), "Shouting.* extends a built-in class"),
        (datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Rome")), "named time zone"),
        (endless, "inside one another"),
        (iter([]), "iterator"),
    ]
    for value, named in refused:
        with pytest.raises(WorkflowCheckpointException, match=named) as caught:
            Codec([Shouting]).encode({"deep": {"here": value}}, "Checkpoint c")
        assert "Checkpoint c.deep.here" in str(caught.value)


def test_a_class_is_allowed_in_any_of_three_ways() -> None:
    """Registered with the framework, given to the codec as a class, or spelled as in the framework's own storage."""
    key = f"{__name__}:Loop"
    with pytest.raises(WorkflowCheckpointException, match="register_checkpoint_type"):
        Codec().encode(Loop(), "It")
    for codec in (Codec([Loop]), Codec([key])):
        assert codec.decode(codec.encode(Loop(1), "It")) == Loop(1)
    register_checkpoint_type(Loop)
    assert Codec().decode(Codec().encode(Loop(2), "It")) == Loop(2)


@pytest.mark.parametrize(
    "stored",
    [
        {"$": "os:system", "state": {}},
        {"$": "subprocess:Popen", "state": {"args": "x"}},
        {"$": "class", "value": "builtins:eval"},
        {"$": "class", "value": "builtins:object.__subclasses__"},
        {"$": "agent_framework._workflows._checkpoint_encoding:_RestrictedUnpickler", "state": {}},
        {"$": "agent_framework._types:Content.__init__", "state": {}},
        {"$": "agent_framework.os:system", "state": {}},
        {"$": "agent_framework._agents:Agent", "state": {}},
        {"$": "agent_framework._sessions:Path", "state": {}},
        {"$": "agent_framework._sessions:Message", "state": {}},
        {"$": "antigravity:x", "state": {}},
        {"$": f"{__name__}:Stranger", "state": {}},
        {"$": "builtins:list", "state": {}},
        {"$": "datetime:datetime", "state": None},
        {"$": "tests:", "member": "x"},
        {"$": 7},
        {"$": "bytes", "value": "no base64!"},
        {"$": "datetime", "value": "yesterday"},
        {"$": "dict", "items": 5},
        {"$": f"{__name__}:Colour", "member": "NOBODY"},
        {"$": f"{__name__}:Point"},
    ],
    ids=lambda stored: str(stored["$"])[-30:],
)
def test_stored_names_reach_no_code(stored: dict[str, Any]) -> None:
    """Names of functions, of modules that were not imported, of what nobody allowed, and broken records end in the framework's error."""
    with pytest.raises(WorkflowCheckpointException):
        Codec(OWN).decode({"deep": [stored]})
    assert "antigravity" not in sys.modules


def test_a_module_that_imports_when_it_is_asked_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The framework's packages load their parts when an attribute of them is asked for: a stored name asks for none."""
    asked: list[str] = []
    lazy = ModuleType("agent_framework.lazy_part")
    lazy.__getattr__ = asked.append  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, lazy.__name__, lazy)
    for codec in (Codec(), Codec([f"{lazy.__name__}:Client"])):
        with pytest.raises(WorkflowCheckpointException, match="did not allow or has not imported"):
            codec.decode({"$": f"{lazy.__name__}:Client", "state": {}})
    assert asked == []


def test_nothing_is_pickled() -> None:
    """A process without pickle's functions encodes and decodes; no module of the adapter names pickle."""
    program = (
        "import agent_framework, pickle\n"
        "from agent_framework import Message\n"
        "from perdure.adapters.agent_framework.values import Codec\n"
        "del pickle.loads, pickle.dumps, pickle.Unpickler, pickle.Pickler\n"
        "assert Codec().decode(Codec().encode([Message('user', ['hi'])], 'It'))[0].text == 'hi'\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
