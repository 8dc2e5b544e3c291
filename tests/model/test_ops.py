"""Constructors of operations: what they make, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from perdure.errors import Invalid
from perdure.model import ops as op
from perdure.model.ops import KINDS, Op, check_op

MADE = {
    "set": (op.set("/a", 1), ["set", "/a", 1]),
    "remove": (op.remove("/a"), ["remove", "/a", None]),
    "init": (op.init("/a", []), ["init", "/a", []]),
    "append": (op.append("/a", (1, "x")), ["append", "/a", [1, "x"]]),
    "splice": (op.splice("/a", 2, 1, iter(["x"])), ["splice", "/a", [2, 1, ["x"]]]),
    "add": (op.add("/a", -0.5), ["add", "/a", -0.5]),
    "union": (op.union("/a", ["x"]), ["union", "/a", ["x"]]),
    "merge": (op.merge("/a", {"x": None}), ["merge", "/a", {"x": None}]),
    "test": (op.test("/a", None), ["test", "/a", None]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_operation_is_kind_path_and_value(kind: str) -> None:
    """Each constructor makes its kind; on the wire it is an array of three, and comes back equal and well formed."""
    made, wire = MADE[kind]
    assert msgspec.json.decode(msgspec.json.encode(made)) == wire
    back = msgspec.json.decode(msgspec.json.encode(made), type=Op)
    assert back == made
    check_op(back)


def test_a_splice_inserts_when_nothing_else_is_said() -> None:
    """Without a count nothing is taken out, without items nothing is put in."""
    assert op.splice("/a", 0).value == [0, 0, []]


def test_an_operation_does_not_change_with_the_list_it_was_made_of() -> None:
    """The list of items and the patch are copied when the operation is made."""
    items, patch = [1], {"a": 1}
    appended, merged = op.append("/a", items), op.merge("", patch)
    items.append(2)
    patch["b"] = 2
    assert (appended.value, merged.value) == ([1], {"a": 1})


@pytest.mark.parametrize(
    "make",
    [
        lambda: op.set("a", 1),
        lambda: op.remove("/~"),
        lambda: op.set("/a", float("nan")),
        lambda: op.init("/a", {1: 2}),
        lambda: op.test("/a", b"bytes"),
        lambda: op.append("/a", "text"),
        lambda: op.append("/a", {"x": 1}),
        lambda: op.append("/a", 5),
        lambda: op.append("/a", [{1, 2}]),
        lambda: op.union("/a", None),
        lambda: op.splice("/a", -1),
        lambda: op.splice("/a", 0, -1),
        lambda: op.splice("/a", True),
        lambda: op.splice("/a", 1.0),
        lambda: op.splice("/a", "0"),
        lambda: op.splice("/a", 0, 0, "xy"),
        lambda: op.add("/a", True),
        lambda: op.add("/a", "1"),
        lambda: op.add("/a", float("inf")),
        lambda: op.merge("/a", [1]),
        lambda: op.merge("/a", None),
        lambda: op.merge("/a", {"x": {1, 2}}),
    ],
)
def test_a_wrong_argument_is_invalid(make: Callable[[], Any]) -> None:
    """A bad path, a value that is no JSON, a string for a list, a bool for a number: refused before anything is written."""
    with pytest.raises(Invalid):
        make()


@pytest.mark.parametrize(
    "decoded",
    [
        Op("move", "/a", 1),
        Op("", "", None),
        Op(["set"], "/a", 1),  # type: ignore[arg-type]
        Op("set", 5, 1),  # type: ignore[arg-type]
        Op("remove", "/a", 1),
        Op("splice", "/a", [0, 1]),
        Op("splice", "/a", [0, 1, [], 2]),
        Op("splice", "/a", [0, 1, None]),
        Op("splice", "/a", [0, False, []]),
        Op("splice", "/a", None),
        Op("append", "/a", None),
        Op("union", "/a", {}),
        Op("add", "/a", None),
        Op("merge", "/a", None),
    ],
)
def test_a_malformed_operation_from_outside_is_invalid(decoded: Op) -> None:
    """What the constructors would not make is refused when it comes decoded: an unknown kind, a splice without its three parts."""
    with pytest.raises(Invalid):
        check_op(decoded)


def test_big_integers_and_negative_zero_are_values() -> None:
    """Numbers are kept as they are: an integer of any size, and the sign of zero."""
    assert op.add("/a", 10**40).value == 10**40
    assert str(op.set("/a", -0.0).value) == "-0.0"
