"""Whoever can write the store cannot have a reader run or import anything: crafted values are plain data, or refused."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, Self

import msgspec
import ormsgpack
import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from perdure import Corrupt, Invalid, Unsupported
from perdure.adapters.common import class_names
from perdure.adapters.langgraph.memory import MessageCache
from perdure.adapters.langgraph.values import Codec, serialiser
from tests.adapters.langgraph import data_types as t
from tests.adapters.langgraph.test_values import Xor

with contextlib.suppress(ImportError):
    import numpy as np  # noqa: F401  # reading an array imports it, which is not what is looked for here

RAN: list[str] = []
"""What code of the program's own classes ran."""


class Armed:
    """A class that is no data type, and acts however it is made."""

    def __new__(cls, *args: Any, **named: Any) -> Self:
        """Act."""
        RAN.append("new")
        return super().__new__(cls)

    def __reduce__(self) -> Any:
        RAN.append("reduce")
        return os.system, ("true",)

    def __setstate__(self, state: Any) -> None:
        RAN.append("setstate")


class Guarded(t.Place):
    """A data type whose code acts when an object is made, changed or copied as usual."""

    def __init__(self, **fields: Any) -> None:
        RAN.append("init")
        super().__init__(**fields)

    def model_post_init(self, context: Any) -> None:
        """Act."""
        RAN.append("post init")

    def __setattr__(self, name: str, value: Any) -> None:
        RAN.append("setattr")
        super().__setattr__(name, value)

    def __setstate__(self, state: Any) -> None:
        RAN.append("setstate")

    def __reduce__(self) -> Any:
        RAN.append("reduce")
        return os.system, ("true",)


HERE = __name__
NAMES = [
    ("os", "system"),
    ("posix", "system"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "open"),
    ("subprocess", "Popen"),
    ("antigravity", "fly"),
    ("this", "s"),
    ("tests.adapters.langgraph.data_types", "RAN.append"),
    (HERE, "Armed"),
    (HERE, "RAN.append"),
    ("tests.adapters.langgraph.data_types", "Settings"),
    ("tests.adapters.langgraph.data_types", "Importing"),
    ("tests.adapters.langgraph.data_types", "Client"),
    ("tests.adapters.langgraph.data_types", "Closing"),
    ("tests.adapters.langgraph.data_types", "Text"),
    ("tests.adapters.langgraph.data_types", "pydantic.dataclasses.dataclass"),
    ("tests.adapters.langgraph.data_types", "os"),
    ("langchain_core.load.load", "Reviver"),
    ("pydantic", "BaseModel"),
    ("", ""),
    ("..", ".."),
    ("tests.adapters.langgraph.data_types", "Hotel.__class__"),
    ("tests.adapters.langgraph.data_types", "Hotel.__init__.__globals__"),
    ("tests.adapters.langgraph.data_types", "Box[os.system]"),
]


def forms(module: str, name: str) -> list[dict[str, Any]]:
    """Every form in which a stored value names a class."""
    text = {"$": f"{module}.{name}"}
    return [
        *({**text, "ext": code, "value": value} for code in range(-1, 9) for value in ("true", ["true"], {"home": "x"}, 1)),
        *({**text, "ext": code, "value": ["true"], "method": "system"} for code in range(6)),
        *({"$": f"{module}:{name}", **parts} for parts in PARTS),
    ]


PARTS: list[dict[str, Any]] = [
    {"fields": {"home": "x", "call": "os.system", "x": 1}},
    {"fields": {}, "private": {"_x": 1}, "more": {"__class__": 1}, "extra": {"a": 1}, "unset": ["x"]},
    {"value": "true"},
    {"value": {"a": 1}, "more": {"b": 1}},
    {"root": [1]},
    {"member": "RED", "value": "r"},
    {"member": "append"},
    {"fields": 1},
    {},
]


@pytest.fixture
def nothing_happens(monkeypatch: Any) -> Any:
    """The claim: no code of the program ran, no process was started, no module was imported."""

    def refuse(*args: Any, **named: Any) -> None:
        raise AssertionError(f"something was executed: {args}")

    for module, name in (("os", "system"), ("posix", "system"), ("subprocess", "Popen"), ("builtins", "open")):
        monkeypatch.setattr(sys.modules[module], name, refuse)
    modules = set(sys.modules)
    RAN.clear()
    yield
    assert RAN == []
    assert set(sys.modules) == modules


@pytest.mark.parametrize("allow", [None, [], [t.Hotel]])
@pytest.mark.parametrize(("module", "name"), NAMES)
def test_crafted_names_make_nothing(module: str, name: str, allow: Any, nothing_happens: Any) -> None:
    """Functions, classes that are no data, settings, importers, clients, modules that are not imported: bare content, or our error."""
    codec = Codec(serialiser(allow), MessageCache(), allow)
    for form in forms(module, name):
        for wrapped in (form, [form], {"a": form}, {"$": "tuple", "items": [form]}, {"$": "human", "content": form}):
            try:
                made = codec.decode(wrapped)
            except (Corrupt, Unsupported):
                continue
            assert "Armed" not in repr(type(made))
            rest = [made]
            while rest:
                value = rest.pop()
                rest += value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else []
                assert isinstance(value, (dict, list, tuple, str, int, float, HumanMessage, type(None))), type(value)


def test_objects_of_data_types_are_made_without_their_code(nothing_happens: Any) -> None:
    """Neither constructor nor validators nor hooks for attributes and copies run when one is read."""
    codec = Codec(serialiser(None), MessageCache(), None)
    made = codec.decode({"$": f"{HERE}:Guarded", "fields": {"name": "x"}})
    assert type(made) is Guarded and made.name == "x"


def test_looking_up_a_name_runs_nothing() -> None:
    """A module that imports when it is asked for an attribute is not asked; a class is itself, no alias of it."""
    lazy = type(sys)("lazy_module")
    lazy.__getattr__ = RAN.append  # type: ignore[method-assign]
    lazy.Alias = t.Hotel  # type: ignore[attr-defined]
    sys.modules["lazy_module"] = lazy
    try:
        RAN.clear()
        assert class_names.find_class("lazy_module:Anything") is None
        assert class_names.find_class("lazy_module:Alias") is None
        assert RAN == []
    finally:
        del sys.modules["lazy_module"]
    assert class_names.find_class(f"{t.__name__}:Trip.Leg") is t.Trip.Leg
    assert class_names.find_class(f"{t.__name__}:Box[int]") is t.IntBox


@pytest.mark.parametrize(
    "crafted",
    [
        {"$": "numpy.array", "dtype": "O", "shape": [1], "base64": "AAAAAAAAAAA="},
        {"$": "numpy.array", "dtype": "<i8", "shape": [10**12], "base64": ""},
        {"$": "numpy.array", "dtype": "<i8", "shape": [-1, -1], "base64": "AAAAAAAAAAA="},
        {"$": "numpy.number", "dtype": "O", "value": 1},
        {"$": "ext", "ext": 6, "value": ["|O", [1], "C", {"$": "bytes", "base64": "AAAAAAAAAAA="}]},
        {"$": "defaultdict", "factory": "eval", "items": []},
        {"$": "deque", "items": [], "maxlen": "x"},
        {"$": "datetime", "value": "2026-01-01", "zone": "../../etc/passwd"},
        {"$": "Counter", "items": [[{"$": "bytearray", "base64": ""}, 1]]},
        {"$": {"$": "human"}},
        {"$": None},
        {"$": 5},
    ],
)
def test_crafted_values_are_corrupt(crafted: Any, nothing_happens: Any) -> None:
    """What no encoder writes is an error of ours."""
    pytest.importorskip("numpy", reason="numpy is optional for the framework too")
    with pytest.raises((Corrupt, Unsupported)):
        Codec(serialiser(None), MessageCache(), None).decode(crafted)


def test_deep_values_are_read_or_refused() -> None:
    """Nesting as deep as a document may be is no crash, whatever form nests."""
    codec = Codec(serialiser(None), MessageCache(), None)
    for wrap in (
        lambda inner: [inner],
        lambda inner: {"$": "tuple", "items": [inner]},
        lambda inner: {"$": f"{t.__name__}:Spot", "fields": {"x": inner, "y": None}},
        lambda inner: {"$": "os.system", "ext": 0, "value": inner},
    ):
        value: Any = "x"
        for _ in range(44):
            value = wrap(value)
        read = codec.decode(msgspec.json.decode(msgspec.json.encode(value)))
        assert msgspec.json.encode(codec.encode(read, "a")) == msgspec.json.encode(value)


PLAIN = ormsgpack.packb(ormsgpack.Ext(0, ormsgpack.packb(("os", "system", "true"))))


def test_sealed_bytes_are_opened_by_the_serialiser_that_was_passed_alone(nothing_happens: Any) -> None:
    """Without one they are refused; with an encrypting one, what is not encrypted is not read: its own rules would let bytes name code."""
    import base64

    crafted = {"$": "sealed", "type": "msgpack", "base64": base64.b64encode(PLAIN).decode()}
    with pytest.raises(Invalid, match="pass the same serialiser"):
        Codec(serialiser(None), MessageCache(), None).decode([crafted])
    with pytest.raises(Corrupt, match="not encrypted"):
        Codec(EncryptedSerializer(Xor(), JsonPlusSerializer()), MessageCache(), None).decode([crafted])
