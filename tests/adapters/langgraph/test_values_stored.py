"""Bytes that were stored stay readable, and what an encrypting serialiser seals is all that a value holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

import perdure.sync
from perdure import Invalid
from perdure.adapters.langgraph import PerdureSaver
from perdure.adapters.langgraph.compare import compare
from perdure.adapters.langgraph.memory import MessageCache
from perdure.adapters.langgraph.values import Codec, serialiser
from tests.adapters.langgraph import data_types as t
from tests.adapters.langgraph.test_values import VALUES, Hotel, Point, Trip, Xor
from tests.adapters.langgraph.test_values_types import OPEN
from tests.support.adapters.langgraph_chats import config

HERE = Path(__file__).parent
FIRST = json.loads((HERE / "golden_values_1.json").read_text())
SECOND = json.loads((HERE / "golden_values_2.json").read_text())


@pytest.mark.parametrize("index", range(len(FIRST["values"])))
def test_the_first_versions_values_are_read(index: int) -> None:
    """They name classes as the framework's serialiser does, with the arguments of a call."""
    for codec in (Codec(OPEN, MessageCache()), Codec(serialiser([Hotel, Trip, Point, *map(type, VALUES[-5:])]), MessageCache(), [Hotel])):
        compare(VALUES[index], codec.decode(FIRST["values"][index]))


def test_the_first_versions_arrays_and_nested_objects_are_read() -> None:
    """Arrays can be written to; objects in objects are objects."""
    numpy = pytest.importorskip("numpy", reason="numpy is optional for the framework too")
    codec = Codec(OPEN, MessageCache())
    arrays = [codec.decode(stored) for stored in FIRST["arrays"]]
    assert [array.tolist() for array in arrays] == [[[0, 1, 2], [3, 4, 5]], [[1, 1], [1, 1]], []]
    assert [array.dtype for array in arrays] == [numpy.dtype(name) for name in ("<i8", "<f4", "u1")] and arrays[0].flags.writeable
    nested = codec.decode(FIRST["nested"][0])
    assert nested == Hotel("Sol", [Trip(hotel="x", span=(1, 2)), Point(1, 2), HumanMessage("hi"), {(1, 2): 3}])
    assert [type(item) for item in nested.nights] == [Trip, Point, HumanMessage, dict]


def test_the_first_versions_objects_without_their_classes_are_kept() -> None:
    """As bare content, which is stored again as it was."""
    codec = Codec(serialiser([]), MessageCache(), [])
    for stored in [*FIRST["nested"], *FIRST["values"][-5:]]:
        read = codec.decode(stored)
        assert codec.encode({"a": [read]}, "a") == {"a": [stored]}
    assert codec.decode(FIRST["values"][-2]) == {"hotel": "Sol", "span": [1, 2]}


def test_the_first_versions_sealed_values_are_read() -> None:
    """What the framework's encrypted serialiser wrote as a whole."""
    codec = Codec(EncryptedSerializer(Xor(), JsonPlusSerializer(allowed_msgpack_modules=[Hotel])), MessageCache())
    assert codec.decode(FIRST["sealed"][0]) == {"a": [1, Hotel("x", [])]}


def test_what_is_written_now_is_what_was_written() -> None:
    """The bytes of every form, and what they mean, do not change."""
    codec = Codec(OPEN, MessageCache())
    values = t.objects()
    assert len(SECOND) == len(values)
    for value, stored in zip(values, SECOND, strict=True):
        assert msgspec.json.decode(msgspec.json.encode(codec.encode(value, "a"))) == stored
        compare(value, codec.decode(stored))


@pytest.mark.parametrize("value", [*t.objects(), *[value for value in VALUES if value is not None]], ids=lambda value: type(value).__name__)
def test_a_sealed_value_comes_back_whole(value: Any) -> None:
    """Sealing changes nothing of what is kept: the same forms are sealed."""
    codec = Codec(EncryptedSerializer(Xor(), JsonPlusSerializer()), MessageCache(), None)
    stored = codec.encode(value, "a")
    held = stored if type(value) is list else [stored]
    assert all(item.keys() == {"$", "type", "base64", "holds"} for item in held)
    again = Codec(EncryptedSerializer(Xor(), JsonPlusSerializer()), MessageCache(), None).decode(stored)
    compare(value, again)


def test_what_is_sealed_never_stands_in_the_clear() -> None:
    """A message that was read in one place, or stands in another value, is sealed all the same."""
    serde = EncryptedSerializer(Xor(), JsonPlusSerializer())
    codec = Codec(serde, MessageCache(), None)
    message = AIMessage("secret", tool_calls=[t.CALL])
    trip = t.Trip(place=t.Place(name="secret"), messages=[message])
    plain = codec.plain({"said": message}, "The metadata")
    for value in ([message], [trip, message], message, {"a": message}, codec.decode(plain)["said"], [codec.decode(plain)["said"]]):
        for _ in range(2):
            stored = codec.encode(value, "a")
            assert "secret" not in json.dumps(stored)
            compare(value, codec.decode(stored))
    poor = Codec(serde, MessageCache(), None).decode(codec.encode([trip], "a"))
    assert "secret" not in json.dumps(codec.encode(poor, "a"))


def test_refusals_of_sealed_values_name_their_place() -> None:
    """As without a key."""
    codec = Codec(EncryptedSerializer(Xor(), JsonPlusSerializer()), MessageCache(), None)
    with pytest.raises(Invalid, match=r"Channel 'a' holds a value of type builtins.complex at \[1\]\['x'\]"):
        codec.encode([1, {"x": 1j}], "Channel 'a'")


class Locked:
    """A cipher with another key, which says so in its own way."""

    def encrypt(self, plain: bytes) -> tuple[str, bytes]:
        """Refuse."""
        raise OSError("no key")

    def decrypt(self, name: str, sealed: bytes) -> bytes:
        """Refuse."""
        raise AssertionError("MAC check failed")


def test_a_thread_without_its_key_is_an_error_of_ours() -> None:
    """Read without the serialiser or with another key, written by a cipher that fails: `Invalid`, which says what to pass."""
    with perdure.sync.open("memory:") as store:
        saver = PerdureSaver(store, serde=EncryptedSerializer(Xor(), JsonPlusSerializer()))
        here = config(checkpoint_ns="")
        checkpoint: Any = {"v": 1, "id": "1", "ts": "t", "channel_values": {"a": [1]}, "channel_versions": {}, "versions_seen": {}}
        saver.put(here, checkpoint, {"source": "loop", "step": 1, "parents": {}}, {})
        with pytest.raises(Invalid, match="pass the same serialiser with the same key"):
            PerdureSaver(store).get_tuple(here)
        locked = PerdureSaver(store, serde=EncryptedSerializer(Locked(), JsonPlusSerializer()))
        with pytest.raises(Invalid, match="another key"):
            locked.get_tuple(here)
        with pytest.raises(Invalid, match=r"Channel 'a' .*cannot be written and read back by EncryptedSerializer \(OSError"):
            locked.put(here, {**checkpoint, "id": "2"}, {"source": "loop", "step": 2, "parents": {}}, {})


class Extended(JsonPlusSerializer):
    """A serialiser of the user's that knows complex numbers."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Complex numbers as text."""
        return ("complex", repr(obj).encode()) if isinstance(obj, complex) else super().dumps_typed(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Complex numbers from text."""
        return complex(data[1].decode()) if data[0] == "complex" else super().loads_typed(data)


class Losing(JsonPlusSerializer):
    """A serialiser of the user's that loses what it is given."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Keep whole numbers only."""
        return "number", str(int(obj.real)).encode()

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Read them."""
        return complex(int(data[1]))


def test_a_serialiser_of_the_users_adds_what_it_knows() -> None:
    """What is known here stays readable, the rest are its bytes; what does not come back from it is refused."""
    codec = Codec(Extended(), MessageCache(), None)
    stored = codec.encode({"a": [1j, HumanMessage("x")], "b": t.Spot(1)}, "a")
    assert stored["a"][1] == {"$": "human", "content": "x"} and stored["a"][0]["type"] == "complex"
    compare({"a": [1j, HumanMessage("x")], "b": t.Spot(1)}, codec.decode(stored))
    with pytest.raises(Invalid, match=r"at \['a'\], which would not come back as it is"):
        Codec(Losing(), MessageCache(), None).encode({"a": 1.5 + 1j}, "a")
