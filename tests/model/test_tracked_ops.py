"""Explicit operations beside calls of `draft.state`, and how operations are told in fewer words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import Invalid
from perdure.model import ops as op
from perdure.model.identity import Note
from perdure.model.ops import Op
from perdure.model.state import TestFailed, apply
from perdure.model.tracked import Tracker, tidy
from perdure.model.values import freeze, same, thaw
from tests.support.tracked import DOC


def test_an_explicit_operation_is_done_and_kept() -> None:
    """`do` changes what the user sees, in the objects that the user holds, and records the operation itself."""
    base = freeze({**DOC, "tags": ["a"]})
    tracker = Tracker(base)
    root = tracker.root
    log, count, tags = root["log"], root["deep"]["count"], root["tags"]
    done = [
        op.add("/n", 4),
        op.append("/log", [{"i": 3}]),
        op.splice("/log", 0, 1, []),
        op.union("/tags", ["a", "b"]),
        op.merge("/deep", {"count": {"x": None, "y": 1}, "flat": 2}),
        op.set("/log/-", {"i": 4}),
        op.set("/log/0/i", 7),
        op.remove("/log/1"),
        op.init("/n", 9),
        op.init("/m", []),
        op.test("/n", 5),
        op.remove("/é"),
    ]
    for one in done:
        tracker.do(one)
    assert same(root, apply(thaw(base), done))
    assert root["log"] is log
    assert root["deep"]["count"] is count
    assert root["tags"] is tags
    assert tracker.ops() == tuple(done)
    log.append(5)
    count["z"] = 1
    assert same(apply(base, tracker.ops()), root)
    assert tracker.ops()[: len(done)] == tuple(done)


def test_an_operation_that_does_not_fit_changes_nothing() -> None:
    """A misfit is `Invalid`, a test that does not hold is `TestFailed`, and nothing is recorded."""
    tracker = Tracker(freeze(DOC))
    for wrong in (op.add("/log", 1), op.remove("/none"), op.set("/none/x", 1), op.splice("/l", 9, 0, [1]), op.set("/l/x", 1)):
        with pytest.raises(Invalid, match="does not fit"):
            tracker.do(wrong)
    with pytest.raises(TestFailed):
        tracker.do(op.test("/n", 1.0))
    assert tracker.ops() == ()
    assert same(tracker.root, DOC)


def test_tests_alone_write_nothing_and_stay_with_what_is_written() -> None:
    """A guard is kept when something else is to be written, also where the notes were of no use."""
    tracker = Tracker(freeze(DOC))
    tracker.do(op.test("/n", 1))
    assert tracker.ops() == ()
    tracker.root["n"] = 2
    assert tracker.ops() == (op.test("/n", 1), op.set("/n", 2))
    tracker.note(Note(op.remove("/never/was")))
    assert tracker.ops() == (op.test("/n", 1), op.set("/n", 2))


def test_values_in_operations_are_copies() -> None:
    """An operation, done or given out, does not change with the value it was made of, nor with the state."""
    items: list[Any] = [[1]]
    tracker = Tracker(freeze({}))
    tracker.do(Op("append", "/l", items))
    first = tracker.ops()
    items[0].append(2)
    tracker.root["l"][0].append(3)
    tracker.root["l"].append(4)
    assert first == (Op("append", "/l", [[1]]),)
    assert same(apply({}, tracker.ops()), {"l": [[1, 3], 4]})


def tidied(ops: list[Op]) -> list[Op]:
    return [note.op for note in tidy(map(Note, ops))]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([op.append("/l", [1]), op.append("/l", [2]), op.append("/m", [3])], [op.append("/l", [1, 2]), op.append("/m", [3])]),
        ([op.set("/a", 1), op.set("/b", 1), op.set("/a", 2)], [op.set("/b", 1), op.set("/a", 2)]),
        ([op.set("/a", 1), op.append("/l", [1]), op.set("/a", 2)], [op.append("/l", [1]), op.set("/a", 2)]),
        ([op.set("/a", 1), op.add("/a", 1), op.set("/a", 2)], None),
        ([op.set("/a", {}), op.set("/a/x", 1), op.set("/a", {})], None),
        ([op.set("/l/0", 1), op.splice("/l", 0, 1, []), op.set("/l/0", 2)], None),
        ([op.set("/l/0", 1), op.remove("/l/0"), op.set("/l/0", 2)], None),
        ([op.set("/l/-", 1), op.set("/l/-", 2)], None),
        ([op.set("/a/x", 1), op.test("/a", {"x": 1}), op.set("/a/x", 2)], None),
        ([op.set("/a/x", 1), op.test("/a/x", 1), op.set("/a/x", 2)], None),
    ],
)
def test_operations_are_told_in_fewer_words_only_where_it_is_the_same(before: list[Op], after: list[Op] | None) -> None:
    """Appends in a row are joined and overwritten sets dropped, unless anything between rests on them."""
    assert tidied(before) == (before if after is None else after)


@given(st.data())
def test_tidied_operations_lead_to_the_same_state(data: st.DataObject) -> None:
    """For any sequence that fits: fewer operations, one result."""
    paths = st.sampled_from(["/a", "/a/x", "/l", "/l/0", "/l/1", "/l/-", "/n"])
    value = st.sampled_from([1, {"x": 1}, [1], [[2], 3]])
    one = st.one_of(
        st.builds(lambda path, put: Op("set", path, put), paths, value),
        st.builds(lambda path: Op("remove", path), paths),
        st.builds(lambda path: Op("append", path, [1]), paths),
        st.builds(lambda path: Op("splice", path, [0, 1, []]), paths),
        st.builds(lambda path: Op("add", path, 1), paths),
    )
    state: Any = {"a": {"x": 1}, "l": [[1], 2], "n": 0}
    base, fitting = state, []
    for op_ in data.draw(st.lists(one, max_size=12)):
        try:
            state = apply(state, [op_])
        except Invalid:
            continue
        fitting.append(op_)
    assert same(apply(base, tidied(fitting)), state)
    assert len(tidied(fitting)) <= len(fitting)


PLACES = st.sampled_from(["", "/a", "/a/b", "/a/b/c", "/l", "/l/0", "/l/1", "/l/-", "/l/0/x", "/n", "/b"])
PUTS = st.sampled_from([0, 1, True, -0.0, None, "x", [], [1], {}, {"b": {"c": 1}}, {"a": None, "b": {"c": None}}, [0, 1, ["y"]]])


@given(st.lists(st.tuples(st.builds(Op, st.sampled_from(op.KINDS), PLACES, PUTS), st.booleans()), max_size=12))
def test_explicit_operations_mix_with_calls(steps: list[tuple[Op, bool]]) -> None:
    """Any operations, done between calls that touch and change, leave what they make of a plain state, or the same refusal."""
    base = freeze({"a": {"b": {}}, "l": [{"x": 1}, [2]], "n": 0})
    tracker, plain = Tracker(base), thaw(base)
    for one, also in steps:
        try:
            plain = apply(plain, [one])
        except (Invalid, TestFailed) as error:
            with pytest.raises(type(error)):
                tracker.do(one)
        else:
            tracker.do(one)
        for state in (plain, tracker.root) if also else ():
            for child in state.values() if isinstance(state, dict) else state if isinstance(state, list) else ():
                if isinstance(child, list):
                    child.insert(0, "call")
                elif isinstance(child, dict):
                    child["call"] = child.get("call", 0) or 1
        assert same(tracker.root, plain)
    assert same(apply(base, tracker.ops()), plain)
