"""Values survive exactly, through data alone; what could not come back is refused by name; and what is stored is for people to read."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import ipaddress
import json
import logging
import math
import pathlib
import re
import sys
import uuid
from collections import Counter, deque
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, RemoveMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Command, Interrupt, Send
from pydantic import BaseModel

import perdure.sync
from perdure import Corrupt, Invalid, Unsupported
from perdure.adapters.langgraph import PerdureSaver
from perdure.adapters.langgraph.memory import MessageCache, content_of
from perdure.adapters.langgraph.messages import EMPTY, NAME_OF
from perdure.adapters.langgraph.values import Codec
from tests.support.adapters.langgraph_chats import config


class Color(enum.Enum):
    """An enum of the user's."""

    RED = "r"


class Level(enum.IntEnum):
    """An enum that is an integer too."""

    HIGH = 3


@dataclasses.dataclass
class Hotel:
    """A dataclass of the user's."""

    name: str
    nights: list[Any]


class Trip(BaseModel):
    """A pydantic model of the user's."""

    hotel: str
    span: tuple[int, int]


class Point(NamedTuple):
    """A named tuple of the user's."""

    x: int
    y: int


MINE = [Color, Level, Hotel, Trip, Point]

CALL = {"name": "search", "args": {"city": "Lisbon"}, "id": "call-1", "type": "tool_call"}
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    10**40,
    0.1,
    -0.0,
    math.inf,
    "",
    "é",
    "\x00",
    "\ud800",
    b"",
    b"\x00\xff",
    bytearray(b"a"),
    [],
    {},
    (),
    (1, (2, [3])),
    {1, 2},
    frozenset({"a"}),
    deque([1, 2]),
    {1: "a", "1": "b"},
    {"$": 1},
    {(1, 2): {"x": None}},
    {"a": {"$": "human"}},
    dt.datetime(2026, 11, 23, 14, 2, 10, 123),  # noqa: DTZ001 - a naive one is a value too
    dt.datetime(2026, 11, 23, tzinfo=dt.UTC),
    dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))),
    dt.date(2026, 2, 3),
    dt.time(1, 2, 3),
    dt.timedelta(days=-1, microseconds=5),
    uuid.UUID(int=7),
    decimal.Decimal("1.10"),
    ipaddress.ip_network("10.0.0.0/8"),
    pathlib.Path("/a/b"),
    re.compile("a+", re.IGNORECASE),
    ZoneInfo("UTC"),
    HumanMessage("hi", id="1"),
    HumanMessage([{"type": "text", "text": "hi"}, {"type": "image", "data": b"\x89PNG"}], name="ana"),
    SystemMessage("be brief"),
    AIMessage(
        "", tool_calls=[CALL], response_metadata={"model": "m"}, usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    ),
    ToolMessage("found", tool_call_id="call-1", artifact=Hotel("Sol", [(1, b"x")][:0]), status="error"),
    AIMessageChunk("par"),
    RemoveMessage(id="1"),
    HumanMessage("x", mood={"good": (1,)}),
    Document("text", metadata={"page": 1}),
    Send("node", {"messages": [HumanMessage("hi")]}),
    Interrupt(value={"ask": "ok?"}, id="i"),
    Command(goto="next", update={"a": 1}),
    Color.RED,
    Level.HIGH,
    Hotel("Sol", [1, {"a": Color.RED}, dt.date(2026, 1, 1)]),
    Trip(hotel="Sol", span=(1, 2)),
    Point(1, 2),
]


def codec(*, allow: Any = MINE) -> Codec:
    return Codec(JsonPlusSerializer(allowed_msgpack_modules=allow or None), MessageCache())


def twin(value: Any) -> Any:
    """What makes two values the same, their types and those of what they hold included."""
    if isinstance(value, (list, tuple, deque)):
        return type(value), [twin(item) for item in value]
    if isinstance(value, dict):
        return type(value), [(twin(key), twin(item)) for key, item in value.items()]
    if isinstance(value, float):
        return type(value), repr(value)
    if isinstance(value, dt.datetime):
        return type(value), value.isoformat(), value.fold, str(value.tzinfo)
    if isinstance(value, BaseModel):
        return type(value), twin(value.__dict__), twin(value.__pydantic_extra__ or {})
    return type(value), value


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__} {str(value)!a:.30}")
def test_a_value_comes_back_as_what_it_was(value: Any) -> None:
    """Through JSON text and another codec: same type, same content, at every depth."""
    stored = msgspec.json.encode(codec().encode({"v": [value]}, "Channel 'a'"))
    assert twin(codec().decode(msgspec.json.decode(stored))) == twin({"v": [value]})


class Unknown(BaseModel):
    """A class that nobody allowed."""

    x: int = 1


@pytest.mark.parametrize(
    "value", [Unknown(), Hotel("x", [Unknown()]), {"deep": [Unknown()]}, 1j, object(), lambda: 1, type], ids=lambda value: f"{value!a:.20}"
)
def test_what_could_not_come_back_is_refused_by_name(value: Any, caplog: Any) -> None:
    """A class that the serialiser does not allow, at any depth, or no data at all: refused when it is written, naming place and type."""
    with pytest.raises(Invalid, match=r"Channel 'a' holds a value of type .*(allow|serialiser)"):
        codec().encode(value, "Channel 'a'")


def test_pickle_is_refused() -> None:
    """A serialiser that would fall back to pickle is not let to."""
    with pytest.raises(Invalid, match="more than data"):
        Codec(JsonPlusSerializer(pickle_fallback=True), MessageCache()).encode([1j], "Channel 'a'")


def test_reading_imports_nothing_because_stored_bytes_say_so(caplog: Any) -> None:
    """A stored value that names a class is made only if the reader's serialiser allows that class; its module is not even imported."""
    assert "antigravity" not in sys.modules
    stored = {"$": "antigravity.fly", "ext": 0, "value": "x"}
    with caplog.at_level(logging.CRITICAL):
        assert codec(allow=None).decode(stored) == "x"
    assert "antigravity" not in sys.modules
    written = codec().encode(Hotel("Sol", []), "a")
    assert codec(allow=None).decode(written) == {"name": "Sol", "nights": []}


@pytest.mark.parametrize(
    "stored",
    [
        {"$": "human", "content": "x", "id": {"$": "bytes", "base64": "!"}},
        {"$": "bytes"},
        {"$": "tuple", "items": 1},
        {"$": ["x"]},
        {"$": "datetime", "value": "y"},
    ],
)
def test_what_no_encoder_wrote_is_corrupt(stored: Any) -> None:
    """A damaged value is Corrupt, never something else."""
    with pytest.raises(Corrupt):
        codec().decode(stored)


def test_a_value_of_a_newer_adapter_is_unsupported() -> None:
    """A tag that this version does not know says so."""
    with pytest.raises(Unsupported, match="'quaternion'"):
        codec().decode({"$": "quaternion", "items": [1, 2, 3, 4]})


def test_too_deep_is_refused() -> None:
    """Containers inside one another beyond the limit are Invalid, a value that holds itself too."""
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(Invalid, match="nested too deep"):
        codec().encode(loop, "Channel 'a'")


def test_messages_are_stored_as_people_write_them() -> None:
    """A message is its type and the fields that say something."""
    assert codec().encode(HumanMessage("hi", id="1"), "a") == {"$": "human", "content": "hi", "id": "1"}
    assert codec().encode(AIMessage("", tool_calls=[CALL]), "a") == {"$": "ai", "content": "", "tool_calls": [CALL]}


@pytest.mark.parametrize("kind", sorted(NAME_OF, key=lambda kind: kind.__name__))
def test_a_message_is_made_as_the_framework_makes_it(kind: Any) -> None:
    """Fields, which of them were set, and extras are those of `model_construct`; no two messages share a list or a dict."""
    codec = Codec(JsonPlusSerializer(), MessageCache())
    required = {name: "x" for name, field in kind.model_fields.items() if field.is_required()}
    for more in ({}, {"surprise": 1}):
        if kind is RemoveMessage and more:
            continue
        original = RemoveMessage(id="x") if kind is RemoveMessage else kind(**required, **more)
        stored = codec.encode(original, "Channel")
        one, other = codec.decode(stored), codec.decode(stored)
        fields = {name: getattr(original, name) for name in kind.model_fields}
        made = kind.model_construct(**fields, **(original.__pydantic_extra__ or {}))
        assert (one, one.model_fields_set, one.__pydantic_extra__ or {}) == (made, made.model_fields_set, made.__pydantic_extra__ or {})
        assert one == other == original
        for name, value in one.__dict__.items():
            if isinstance(value, (dict, list)):
                assert value is not getattr(other, name)
                assert value is not getattr(EMPTY[kind][0], name)


def test_a_message_changed_in_place_is_seen() -> None:
    """What is remembered of a message holds for its content only: any change, however deep, is encoded anew."""
    mine = codec()
    message = AIMessage("a", additional_kwargs={"k": {"deep": [1]}})
    first = mine.encode(message, "a")
    assert mine.encode(message, "a") is first
    message.additional_kwargs["k"]["deep"][0] = True
    assert json.dumps(mine.encode(message, "a")) == '{"$": "ai", "content": "a", "additional_kwargs": {"k": {"deep": [true]}}}'
    message.content = "b"
    assert mine.encode(message, "a")["content"] == "b"


def test_memory_is_bounded() -> None:
    """However many messages a saver has seen, it remembers about as many bytes as it may, twice."""
    memory = MessageCache(bytes_max=100_000)
    kept = [HumanMessage("x" * 1_000) for _ in range(1_000)]
    for message in kept:
        memory.put(message, {}, content_of(message))
    assert 60 < len(memory) < 140
    assert memory.get(kept[-1]) == {} and memory.get(kept[0]) is None
    kept.clear()
    del message
    assert len(memory) == 0


class Xor:
    """A cipher for tests, with a fresh nonce each time, so that equal values never have equal bytes."""

    def encrypt(self, plain: bytes) -> tuple[str, bytes]:
        nonce = uuid.uuid4().bytes
        return "xor", nonce + bytes(a ^ nonce[i % 16] for i, a in enumerate(plain))

    def decrypt(self, name: str, sealed: bytes) -> bytes:
        return bytes(a ^ sealed[i % 16] for i, a in enumerate(sealed[16:]))


class NamesAfterwards(JsonPlusSerializer):
    """A serialiser during whose work another thread gives the message its id, as the engine does while a task's writes are stored."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        made = super().dumps_typed(obj)
        if isinstance(obj, AIMessage) and obj.id is None:
            obj.id = "given"
        return made


def test_a_message_that_gets_its_id_while_it_is_written_is_written_again() -> None:
    """What was written of a message before it had its id is not taken for what it holds with it: it would be added to the list twice."""
    mine = Codec(EncryptedSerializer(Xor(), NamesAfterwards()), MessageCache())
    message = AIMessage("hello")
    assert mine.decode(mine.encode(message, "first")).id is None
    assert mine.decode(mine.encode(message, "again")).id == "given"


def test_an_encrypted_serialiser_keeps_content_sealed_and_bytes_linear() -> None:
    """With the framework's encrypted serialiser no content is stored in the clear, and a growing list is still written by its new items."""
    with perdure.sync.open("memory:") as store:
        saver = PerdureSaver(store, serde=EncryptedSerializer(Xor(), JsonPlusSerializer()))
        here, messages = config(checkpoint_ns=""), []
        for number in range(20):
            messages = [*messages, HumanMessage(f"secret {number} " * 20)]
            checkpoint = {**empty_checkpoint(), "channel_values": {"messages": messages, "other": {"secret": 1}}}
            here = saver.put(here, checkpoint, {"source": "loop", "step": number, "parents": {}}, {})
            messages = saver.get_tuple(here).checkpoint["channel_values"]["messages"]
        commits = list(store.history("langgraph/trip-42"))
        text = msgspec.json.encode([commit.events for commit in commits])
        assert b"secret" not in text
        sizes = [len(msgspec.json.encode(commit.events)) for commit in commits]
        assert max(sizes[1:]) < 1.5 * min(sizes[1:])
        assert messages == [HumanMessage(f"secret {number} " * 20) for number in range(20)]
    assert Counter(map(type, messages)) == {HumanMessage: 20}
