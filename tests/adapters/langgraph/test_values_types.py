"""Values of the program's own types, and containers and numbers beyond JSON, come back equal and of the same type."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from langchain_core.agents import AgentAction, AgentFinish
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables.utils import AddableDict
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.store.base import Item
from langgraph.types import Command, Interrupt, Overwrite, PregelTask, Send, TimeoutPolicy
from pydantic import BaseModel, ByteSize, TypeAdapter, create_model

from perdure import Invalid
from perdure.adapters.langgraph.compare import compare
from perdure.adapters.langgraph.memory import MessageCache
from perdure.adapters.langgraph.values import Codec, serialiser
from tests.adapters.langgraph import data_types as t

OPEN = JsonPlusSerializer(allowed_msgpack_modules=True)


def through(value: Any, codec: Codec | None = None) -> Any:
    """A value after it was stored and read by another codec."""
    stored = msgspec.json.encode((codec or Codec(OPEN, MessageCache())).encode(value, "Channel 'a'"))
    return (codec or Codec(OPEN, MessageCache())).decode(msgspec.json.decode(stored))


def same(value: Any, other: Any) -> None:
    """Equal as Python says, and equal in every type and part."""
    compare(value, other)
    assert value == other and type(value) is type(other)


@pytest.mark.parametrize("value", t.objects(), ids=lambda value: type(value).__name__)
def test_an_object_of_an_imported_type_comes_back(value: Any) -> None:
    """By default, and without a list: the same type, equal, with what it holds in places that no constructor knows."""
    same(value, through(value))
    same([value], through([value]))
    for wrapped in (Send("node", {"a": value}), Interrupt(value=value, id="i"), Command(update={"a": value}), Overwrite(value)):
        compare(wrapped, through(wrapped))


def test_a_model_comes_back_whole() -> None:
    """Messages keep their tool calls, base types the fields of the subclass; private attributes, and what was set, stay."""
    trip = through(t.objects()[8])
    assert trip.messages[1].tool_calls == [t.CALL]
    assert type(trip.place) is t.Hotel and trip.place.stars == 4
    assert trip._seen == [3]
    assert trip.secret.get_secret_value() == "s"
    assert trip.groups["new"] == []
    assert t.Trip.model_fields.keys() - trip.model_fields_set == set()
    assert through(t.Hotel(name="x")).model_fields_set == {"name"}
    assert through(t.Note("hello")).more == [5]
    again = through(t.Strict(text="a"))
    assert again.text == "a!"
    assert through(deque([1, 2], maxlen=2)).maxlen == 2


ZONES = [dt.UTC, dt.timezone(dt.timedelta(hours=1), "CET"), ZoneInfo("Europe/Rome"), dt.timezone(dt.timedelta(seconds=5))]


@pytest.mark.parametrize(
    "value",
    [
        defaultdict(list, {"a": [1]}),
        defaultdict(None, {1: 2}),
        defaultdict(int),
        Counter({"b": 1, "a": 2}),
        Counter({(1, 2): -1}),
        OrderedDict([("b", 1), ("a", 2)]),
        deque([1], maxlen=3),
        deque(maxlen=0),
        {"$": defaultdict(dict)},
        [frozenset({(1, "a"), frozenset()})],
        *[dt.datetime(2026, 7, 1, 12, tzinfo=zone) for zone in ZONES],
        *[t.Note("x", dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=zone)) for zone in ZONES],
        *[t.Note("x", dt.time(1, 2, tzinfo=zone)) for zone in ZONES],
        *[t.Note("x", zone) for zone in ZONES],
        AIMessage("x", additional_kwargs={"d": defaultdict(list)}, response_metadata={"t": (1,), "e": t.Level.HIGH}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_container_or_a_zone_comes_back_as_what_it_was(value: Any) -> None:
    """Its class, what it makes missing members with, its bound, its order, its zone."""
    same(value, through(value))


def test_a_named_offset_keeps_its_name() -> None:
    """A zone that equals another may still be called otherwise."""
    zone = dt.timezone(dt.timedelta(hours=1), "CET")
    assert through(dt.datetime(2026, 1, 1, tzinfo=zone)).tzname() == "CET"
    assert through([zone])[0].tzname(None) == "CET"


def test_a_time_that_pydantic_read_comes_back_equal() -> None:
    """Pydantic has a class of its own for offsets: it is nothing but an offset, and comes back as one."""
    read = TypeAdapter(dt.datetime).validate_json('"2026-11-23T14:00:00+05:30"')
    again = through(read)
    assert again == read and again.utcoffset() == read.utcoffset()


@pytest.mark.parametrize("write", [True, False])
@pytest.mark.parametrize(
    "made",
    [
        "n.arange(6).reshape(2, 3)",
        "n.asfortranarray(n.ones((2, 2), 'f4'))",
        "n.array([], dtype='u1').reshape(0, 3)",
        "n.array(5)",
        "n.arange(10)[::2]",
        "n.array([1, 2], '>i4')",
        "n.array([1j, float('nan')])",
        "n.array(['a', 'bé'])",
        "n.array([b'ab'])",
        "n.array(['2026-01-01', 'NaT'], 'M8[s]')",
        "n.array([True])",
    ],
)
def test_an_array_comes_back(made: str, write: bool) -> None:
    """Dtype, shape, order, content, and whether it may be written."""
    numpy = pytest.importorskip("numpy", reason="numpy is optional for the framework too")
    array = eval(made, {"n": numpy})
    array.flags.writeable = write
    again = through({"a": [array]})["a"][0]
    assert (type(again), again.dtype, again.shape, again.flags.writeable) == (type(array), array.dtype, array.shape, write)
    assert again.tobytes() == array.tobytes()
    assert again.flags.f_contiguous == array.flags.f_contiguous or not array.flags.c_contiguous


NUMBERS = (
    "float64(1.5) float32(0.1) float16(2) int64(-5) uint64(2**64-1) bool_(True) float64('nan') float64('-inf') complex128(1j) "
    "datetime64('2026-01-01') timedelta64(5,'s') str_('é') bytes_(b'x') longdouble('1.1')"
)


@pytest.mark.parametrize("made", NUMBERS.split())
def test_a_number_of_numpy_comes_back(made: str) -> None:
    """It stays what it is, also where Python takes it for a float or a string, and as a member of others."""
    numpy = pytest.importorskip("numpy", reason="numpy is optional for the framework too")
    number = eval(f"n.{made}", {"n": numpy})
    for again in (through(number), through({"a": t.Note("x", [number])})["a"].tags[0], next(iter(through({number: 1})))):
        assert type(again) is type(number) and again.tobytes() == number.tobytes()


def test_arrays_that_are_more_than_bytes_are_refused() -> None:
    """Objects, named fields, masks and other subclasses: refused, with the place."""
    numpy = pytest.importorskip("numpy", reason="numpy is optional for the framework too")
    refused = [
        numpy.array([object()]),
        numpy.zeros(2, dtype=[("a", "i4")]),
        numpy.zeros(2, dtype=[("a", "i4")])[0],
        numpy.ma.masked_array([1, 2], [True, False]),
        numpy.rec.array([(1, 2)]),
    ]
    for value in refused:
        with pytest.raises(Invalid, match=r"type numpy[\w.]+ at \['x'\]\.tags\[0\], which would not come back as it is") as caught:
            through({"x": t.Note("n", [value])})
        assert caught.value.path == "['x'].tags[0]"


def test_classes_that_are_given_need_no_place() -> None:
    """What `create_model` or a function made is found by the object that `allow` holds."""

    class Local(BaseModel):
        x: int

    made = create_model("Made", x=(int, 1), local=(Local, Local(x=2)))
    codec = Codec(serialiser([made, Local]), MessageCache(), [made, Local])
    same(made(x=3), through(made(x=3), codec))


def test_an_enum_follows_its_members() -> None:
    """A member is found by its name, and when it was renamed by its value."""
    stored = Codec(OPEN, MessageCache()).encode(t.Color.MIX, "a")
    assert Codec(OPEN, MessageCache()).decode({**stored, "member": "MIXED"}) is t.Color.MIX
    assert Codec(OPEN, MessageCache()).decode({**stored, "value": 7}) is t.Color.MIX


def test_classes_that_grew_are_filled_with_their_defaults() -> None:
    """A field that came later has its default in what was stored before."""
    codec = Codec(OPEN, MessageCache())
    for value in (t.Hotel(name="x", stars=5), t.Note("x", [1]), t.Piece(1, [2]), t.Row(a=1, b=2), t.Point(1, 2)):
        stored = codec.encode(value, "a")
        optional = {"Hotel": "stars", "Note": "tags", "Piece": "b", "Row": "b", "Point": "y"}[type(value).__name__]
        del stored["fields"][optional]
        again = codec.decode(stored)
        assert type(again) is type(value)
        assert getattr(again, optional) in (0, [], None)


def test_objects_come_back_in_another_process() -> None:
    """Names lead to the same classes there, once their module is imported."""
    stored = msgspec.json.encode(Codec(OPEN, MessageCache()).encode([t.Trip.Leg(miles=2), t.IntBox(held=1), t.Point(1)], "a"))
    program = f"""
import msgspec
from tests.adapters.langgraph import data_types as t
from tests.adapters.langgraph.test_values_types import OPEN, Codec, MessageCache
made = Codec(OPEN, MessageCache()).decode(msgspec.json.decode({stored!r}))
assert made == [t.Trip.Leg(miles=2), t.IntBox(held=1), t.Point(1)] and type(made[2]) is t.Point, made
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


FRAMEWORK: list[Any] = [
    AIMessage("x").text,
    AddableDict(a=[1]),
    Item(value={"a": t.Spot(1)}, key="k", namespace=("a",), created_at=dt.datetime.now(dt.UTC), updated_at=dt.datetime.now(dt.UTC)),
    TimeoutPolicy(run_timeout=1),
    Send("node", t.Spot(1), timeout=3),
    PregelTask("1", "node", ("a",)),
    AgentAction(tool="a", tool_input={"x": 1}, log=""),
    AgentFinish({"a": 1}, "x"),
    ChatPromptValue(messages=[AIMessage("x", tool_calls=[t.CALL])]),
    ChatGeneration(message=AIMessage("x")),
    ByteSize(5),
    Decimal("sNaN"),
    t.Note("x", [math.nan, -0.0, Decimal("NaN")]),
]


@pytest.mark.parametrize("value", FRAMEWORK, ids=lambda value: type(value).__name__)
def test_types_of_the_framework_and_of_pydantic_come_back(value: Any) -> None:
    """Also those that extend built-in classes, and values that are not equal to themselves."""
    compare(value, through(value))
    compare([t.Note("x", value)], through([t.Note("x", value)]))


@dataclasses.dataclass
class Late:
    """What gives a message its id while it is looked at, as the engine does in another thread while a task's writes are stored."""

    message: Any

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name == "message":
            found.id = "given"
        return found


def test_a_message_that_gets_its_id_meanwhile_is_no_loss() -> None:
    """What is read back is compared with what the value has become, and written again if that is what differs."""
    message = AIMessage("x")
    again = through(t.Note("x", [message, Late(message)]))
    assert message.id == "given" and again.tags[0] == message


@dataclasses.dataclass(eq=False)
class Failing:
    """A class whose attributes, comparison and hash fail."""

    x: int = 0

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __hash__(self) -> int:
        return 1 if self.x else 1 // self.x


def test_code_of_the_users_that_fails_is_an_error_of_ours() -> None:
    """An object that was never finished, a hash that fails when a set is read back: refused, with the place."""
    unfinished = object.__new__(t.Place)
    with pytest.raises(Invalid, match=r"type .*Place at \['a'\], which would not come back as it is: its parts cannot be read"):
        through({"a": unfinished})
    held = Failing(1)
    keys = {held}
    held.x = 0
    with pytest.raises(Invalid, match=r"which would not come back as it is: reading it back fails"):
        through(t.Note("x", keys))
    compare(Failing(2).x, through(Failing(2)).x)
