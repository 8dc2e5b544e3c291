"""Bad values: names, data, events, operations and policies that cannot be are refused at the door."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

import perdure
from perdure import Event, Op, Store, op
from perdure.model.ids import NAME_BYTES_MAX
from tests.support.engine.refusal import CALLS, Call, consume, each, event, refused

MIB_40 = "x" * (40 << 20)
BAD_NAMES: list[tuple[str, tuple[Any, str]]] = [
    ("empty", ("", "must not be empty")),
    ("long", ("a" * (NAME_BYTES_MAX + 1), "at most 255 bytes")),
    ("long in bytes", ("é" * 128, "at most 255 bytes; this one has 256")),
    ("newline", ("a\nb", "control characters")),
    ("nul", ("a\0b", "control characters")),
    ("delete", ("a\x7f", "control characters")),
    ("c1", ("a\x85", "control characters")),
    ("surrogate", ("a\ud800", "lone surrogate")),
    ("bytes", (b"s", "must be a string, not bytes")),
    ("int", (7, "must be a string, not int")),
    ("none", (None, "must be a string, not NoneType")),
]


@each(BAD_NAMES)
@pytest.mark.parametrize("name", CALLS)
async def test_session_ids(name: str, case: tuple[Any, str]) -> None:
    """Every call refuses an id that is no string of 1 to 255 bytes without control characters and lone surrogates."""
    await refused("memory:", lambda store: CALLS[name](store, case[0]), perdure.Invalid, case[1])


@each(BAD_NAMES)
async def test_names_beside_the_session(url: str, case: tuple[Any, str]) -> None:
    """Fork ids, merge targets, actors, keys, tags and tenants follow the same rules."""
    name, words = case
    calls: list[Call] = [
        lambda store: store.merge("s", into=name),
        lambda store: store.configure("s", tags={"a": name}),
        lambda store: store.configure("s", tags={name: "a"}),
        lambda store: store.list(tags={name: "a"}),
    ]
    if name is not None:
        calls += [
            lambda store: store.fork("s", id=name),
            lambda store: store.append("s", event(), actor=name),
            lambda store: store.append("s", event(), key=name),
            lambda store: store.edit("s", key=name),
            lambda store: store.update("s", lambda draft: draft.add("/n", 1), actor=name),
            lambda store: store.configure("s", tags={}, actor=name),
            lambda store: store.delete("s", actor=name),
            lambda store: store.fork("s", actor=name),
        ]
    await refused(url, calls, perdure.Invalid, words)
    with pytest.raises(perdure.Invalid, match="A tenant"):
        await consume(perdure.open("memory:", tenant=name))


def cycle() -> list[Any]:
    made: list[Any] = []
    made.append({"again": made})
    return made


def nested(depth: int) -> Any:
    made: Any = 1
    for _ in range(depth):
        made = [made]
    return made


class Thing:
    """Something that no format knows."""


BAD_DATA: list[tuple[str, tuple[Any, str]]] = [
    ("nan", (float("nan"), "nan")),
    ("infinity", (float("inf"), "inf")),
    ("minus infinity", ({"deep": [float("-inf")]}, "'/deep/0'")),
    ("bytes", ({"a": b"b"}, "a bytes at '/a'")),
    ("bytearray", (bytearray(b"b"), "bytearray")),
    ("set", ([{1, 2}], "a set at '/0'")),
    ("object", ({"thing": Thing()}, "a Thing at '/thing'")),
    ("class", (Thing, "a type")),
    ("datetime", (datetime(2026, 1, 1, tzinfo=UTC), "datetime")),
    ("tuple", ((1, 2), "come back as a list")),
    ("cycle", (cycle(), "a container that holds itself")),
    ("int key", ({1: 2}, "a key of type int")),
    ("none key", ({"a": {None: 2}}, "a key of type NoneType")),
    ("tuple key", ({("a",): 2}, "a key of type tuple")),
    ("surrogate", ("\ud800", "lone surrogate")),
    ("surrogate key", ({"\udfff": 1}, "lone surrogate")),
    ("depth 101", (nested(101), "containers inside one another")),
    ("depth 5000", (nested(5_000), "containers inside one another")),
    ("huge integer", (10**5_000, "digits")),
]


@each(BAD_DATA)
async def test_data(url: str, case: tuple[Any, str]) -> None:
    """What JSON cannot say is refused with its kind or place, wherever it would go in: event, operation, state."""
    value, words = case

    def edited(store: Store) -> Any:
        async def scenario() -> None:
            async with store.edit("s") as draft:
                draft.state["value"] = value

        return scenario()

    def noted(store: Store) -> Any:
        async def scenario() -> None:
            async with store.edit("s") as draft:
                draft.state["sound"] = True
                draft.event("x", value)

        return scenario()

    plain = words.split(" at ")[0].split("'")[0]
    new = event(None, (Op("set", "", value),))
    await refused(
        url, [lambda store: store.append("s", event(value)), lambda store: store.append("new", new), edited, noted], perdure.Invalid, plain
    )
    with pytest.raises(perdure.Invalid):
        op.set("/a", value)


async def test_data_of_40_mib(url: str) -> None:
    """A commit over 16 MiB is `TooLarge` with size and limit, as an event, as an operation and as an edit."""

    def edited(store: Store) -> Any:
        async def scenario() -> None:
            async with store.edit("s") as draft:
                draft.state["value"] = MIB_40

        return scenario()

    calls: list[Call] = [
        lambda store: store.append("s", event(MIB_40)),
        lambda store: store.append("s", event(None, (op.set("/a", MIB_40),))),
        lambda store: store.append("s", *[event("x" * (3 << 20)) for _ in range(10)]),
        edited,
    ]
    await refused(url, calls, perdure.TooLarge, "the limit is 16,777,216")


BAD_TYPES: list[tuple[str, tuple[Any, str]]] = [
    ("empty", ("", "non-empty string")),
    ("long", ("a" * 256, "at most 255 bytes")),
    ("huge", ("a" * (1 << 20), "at most 255 bytes")),
    ("long in bytes", ("é" * 128, "at most 255 bytes")),
    ("control", ("a\tb", "control characters")),
    ("surrogate", ("\ud800", "control characters")),
    ("int", (7, "non-empty string")),
    ("none", (None, "non-empty string")),
]


@each(BAD_TYPES)
async def test_event_types(url: str, case: tuple[Any, str]) -> None:
    """An event's type is a string of 1 to 255 bytes, in `append` and in a draft."""

    def noted(store: Store) -> Any:
        async def scenario() -> None:
            async with store.edit("s") as draft:
                draft.event(case[0])

        return scenario()

    await refused(url, [lambda store: store.append("s", Event(case[0])), noted], perdure.Invalid, case[1])


@each(
    [
        ("none", ((), "at least one Event")),
        ("a string", (("message",), "perdure.Event objects, not str")),
        ("a dict", (({"type": "message"},), "perdure.Event objects, not dict")),
        ("a list", (([Event("x")],), "perdure.Event objects, not list")),
        ("null", ((None,), "perdure.Event objects, not NoneType")),
        ("one bad among good", ((Event("x"), Event("y", float("nan"))), "nan")),
        ("too many", ((Event("x"),) * 10_001, "at most 10,000 events")),
    ]
)
async def test_events(url: str, case: tuple[tuple[Any, ...], str]) -> None:
    """A commit takes 1 to 10,000 events, and nothing but events."""
    await refused(url, lambda store: store.append("s", *case[0]), perdure.Invalid, case[1])


BAD_EXPECT: list[tuple[str, tuple[Any, str]]] = [
    ("negative", (-1, "expect must be None, 0")),
    ("float", (2.0, "expect must be None, 0")),
    ("string", ("2", "This is no token")),
    ("bool", (True, "expect must be None, 0")),
    ("list", ([], "expect must be None, 0")),
    ("future", (3, "is at version 2: read it first")),
    ("far future", (2**70, "is at version 2: read it first")),
]


@each(BAD_EXPECT)
async def test_expect(url: str, case: tuple[Any, str]) -> None:
    """`expect` is None or a version that the session has had, in every call that takes it."""
    value, words = case
    calls: list[Call] = [
        lambda store: store.append("s", event(), expect=value),
        lambda store: store.append("s", event(None, (op.add("/n", 1),)), expect=value),
        lambda store: store.edit("s", expect=value),
        lambda store: store.update("s", lambda draft: draft.add("/n", 1), expect=value),
    ]
    await refused(url, calls, perdure.Invalid, words)


@each(
    [
        ("on_conflict", ({"on_conflict": "force"}, "on_conflict must be 'merge', 'raise' or a callable")),
        ("on_conflict none", ({"on_conflict": None}, "on_conflict must be")),
        ("on_conflict list", ({"on_conflict": []}, "on_conflict must be")),
        ("durability", ({"durability": "disk"}, "durability must be one of memory, buffered, local, quorum")),
        ("durability number", ({"durability": 9}, "durability must be one of")),
    ]
)
async def test_policies(url: str, case: tuple[dict[str, Any], str]) -> None:
    """A policy that does not exist is refused with those that do."""
    options, words = case
    calls: list[Call] = [
        lambda store: store.append("s", event(), **options),
        lambda store: store.edit("s", **options),
        lambda store: store.merge("s", into="s", **options),
    ]
    await refused(url, calls, perdure.Invalid, words)


async def test_a_durability_out_of_reach(url: str) -> None:
    """A level that the engine cannot reach is `Unsupported`, at `open` and at a call."""
    await refused(url, lambda store: store.append("s", event(), durability="quorum"), perdure.Unsupported, "ask for less")
    with pytest.raises(perdure.Unsupported, match="ask for less"):
        await consume(perdure.open(url, durability="quorum"))


@each(
    [
        ("no slash", ("a/b", "start with '/'")),
        ("bad escape", ("/a~2", "'~'")),
        ("lone tilde", ("/~", "'~'")),
        ("surrogate", ("/\ud800", "lone surrogate")),
        ("int", (7, "JSON Pointer string")),
        ("none", (None, "JSON Pointer string")),
        ("list", (["a"], "JSON Pointer string")),
        ("long", ("/" + "a" * 5_000, "at most 4096 bytes")),
        ("deep", ("/a" * 101, "at most 100 tokens")),
    ]
)
async def test_pointers(url: str, case: tuple[Any, str]) -> None:
    """A malformed JSON Pointer is refused where it is written: in an operation, in `add`, in `require`."""
    path, words = case

    def required(store: Store) -> Any:
        async def scenario() -> None:
            async with store.edit("s") as draft:
                draft.state["n"] = 5
                draft.require(path)

        return scenario()

    with pytest.raises(perdure.Invalid, match="path"):
        op.set(path, 1)
    calls: list[Call] = [
        lambda store: store.append("s", event(None, (Op("set", path, 1),))),
        lambda store: store.update("s", lambda draft: draft.add(path, 1)),
        required,
    ]
    await refused(url, calls, perdure.Invalid, words)


MISFITS: list[tuple[str, tuple[tuple[Op, ...], str]]] = [
    ("add to a string", ((op.add("/text", 1),), "'/text'")),
    ("append to a string", ((op.append("/text", [1]),), "'/text'")),
    ("union to a number", ((op.union("/n", [1]),), "'/n'")),
    ("remove what is not there", ((op.remove("/nothing"),), "there is nothing")),
    ("set below what is not there", ((op.set("/nothing/a", 1),), "'/nothing/a'")),
    ("set below a number", ((op.set("/n/a", 1),), "'/n/a'")),
    ("index behind the end", ((op.set("/list/5", 1),), "'/list/5'")),
    ("key of a list", ((op.set("/list/a", 1),), "'/list/a'")),
    ("leading zero", ((op.set("/list/00", 1),), "'/list/00'")),
    ("splice behind the end", ((op.splice("/list", 3, 1, []),), "'/list'")),
    ("splice of an object", ((op.splice("", 0, 0, [1]),), "''")),
    ("overflow", ((op.add("/n", 1.7976931348623157e308), op.add("/n", 1.7976931348623157e308)), "'/n'")),
]


@each(MISFITS)
async def test_operations_that_do_not_fit(url: str, case: tuple[tuple[Op, ...], str]) -> None:
    """An operation that the state has no place for is refused with its path, alone and behind others that fit."""
    operations, words = case
    calls: list[Call] = [
        lambda store: store.append("s", event(None, operations)),
        lambda store: store.append("s", event(None, (op.set("/n", 7), *operations))),
        lambda store: store.append("s", Event("a", None, (op.add("/n", 7),)), event(None, operations)),
        lambda store: store.update("s", lambda draft: draft.do(op.set("/n", 7), *operations)),
    ]
    await refused(url, calls, perdure.Invalid, words)


@each(
    [
        ("unknown kind", Op("nope", "/a", 1)),
        ("kind of another type", Op(7, "/a", 1)),  # type: ignore[arg-type]
        ("value missing", Op("append", "/list")),
        ("value of another type", Op("add", "/n", "1")),
        ("bool is no number", Op("add", "/n", True)),
        ("splice without count", Op("splice", "/list", [0])),
        ("not an operation", {"kind": "set"}),
        ("tuple", ("set", "/a", 1)),
    ]
)
async def test_malformed_operations(url: str, case: Any) -> None:
    """Operations made past the constructors are checked all the same."""
    calls: list[Call] = [
        lambda store: store.append("s", event(None, (case,))),
        lambda store: store.append("s", event(None, case)),
        lambda store: store.update("s", lambda draft: draft.do(case)),
    ]
    await refused(url, calls, perdure.Invalid, "")


@pytest.mark.parametrize("name", ["~", "~acme", "a" * 255, "é" * 127 + "a"])
async def test_tenants_that_are_perdures_own_are_refused(name: str) -> None:
    """A user's tenant does not begin with a tilde, and leaves room for one."""
    with pytest.raises(perdure.Invalid, match="A tenant"):
        await perdure.open("memory:", tenant=name)
    async with perdure.open("memory:") as store:
        with pytest.raises(perdure.Invalid, match="A tenant"):
            store.for_tenant(name)
        assert store.for_tenant("a" * 254).tenant == "a" * 254
