"""Operations on a draft whose state nobody has asked for: the same outcome, and no container is handed out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import Invalid
from perdure.model import ops as op
from perdure.model.ops import KINDS, Op
from perdure.model.state import TestFailed, apply
from perdure.model.tracked import Tracker
from perdure.model.values import freeze, same

WIDTH = 1_000
KEYS = ["a", "b", "~"]
ATOMS = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([1.0, -0.0, "x"])
VALUES = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3))
DOCUMENTS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3)
TOKENS = st.sampled_from(["a", "b", "~0", "0", "1", "-"])
PATHS = st.lists(TOKENS, max_size=3).map(lambda tokens: "".join(f"/{token}" for token in tokens))
SPLICES = st.tuples(st.integers(0, 2), st.integers(0, 2), st.lists(VALUES, max_size=2)).map(list)
OPS = (
    st.builds(Op, st.sampled_from([*KINDS]), PATHS, VALUES)
    | st.builds(Op, st.sampled_from(["append", "union"]), PATHS, st.lists(VALUES, max_size=6))
    | st.builds(Op, st.just("splice"), PATHS, SPLICES)
)


def outcome(tracker: Tracker, one: Op) -> tuple[type, str] | None:
    try:
        tracker.do(one)
    except (Invalid, TestFailed) as error:
        return type(error), str(error)
    return None


@given(DOCUMENTS, st.lists(OPS, max_size=8), st.integers(0, 8))
def test_operations_do_the_same_whenever_the_state_is_first_looked_at(document: Any, program: list[Op], look: int) -> None:
    """Before them, after `look` of them, or never: the same errors, the same operations, the same state."""
    base = freeze(document)
    before, between, never = trackers = [Tracker(base) for _ in range(3)]
    assert same(before.root, document)
    for number, one in enumerate(program):
        if number == look:
            assert between.root is between.root
        assert outcome(before, one) == outcome(between, one) == outcome(never, one)
    ops = before.ops()
    for tracker in trackers:
        assert tracker.ops() == ops
        assert same(tracker.after, apply(base, ops))
        assert same(tracker.root, tracker.after)
    assert same(base, document)


@pytest.mark.parametrize(
    "one",
    [
        op.set("/dict/7", 1),
        op.set("/dict/new", 1),
        op.remove("/dict/7"),
        op.add("/dict/7/id", 1),
        op.append("/list", [1]),
        op.splice("/list", 7, 1),
        op.union("/list", [1]),
    ],
    ids=str,
)
def test_no_container_is_copied_for_a_state_that_nobody_sees(one: Op) -> None:
    """What an operation does not touch is the very object that it was, and nothing is handed out, however wide its container is."""
    base = freeze({"list": [{"id": number} for number in range(WIDTH)], "dict": {str(number): {"id": number} for number in range(WIDTH)}})
    tracker = Tracker(base)
    tracker.do(one)
    assert tracker.ops() == (one,)
    assert not tracker.handed
    assert tracker.after["list"][5] is base["list"][5]
    assert tracker.after["dict"]["5"] is base["dict"]["5"]
    assert same(tracker.after, apply(base, [one]))


def test_a_state_that_is_seen_after_an_operation_holds_what_it_did() -> None:
    """And what is done to it then becomes operations of its own."""
    tracker = Tracker(freeze({"log": [{"id": 1}]}))
    tracker.do(op.append("/log", [{"id": 2}]))
    tracker.root["log"][1]["id"] = 3
    assert tracker.ops() == (op.append("/log", [{"id": 2}]), op.set("/log/1/id", 3))
    assert same(tracker.after, {"log": [{"id": 1}, {"id": 3}]})
