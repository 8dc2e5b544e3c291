"""The fold: what each operation makes of a state, what it refuses, and what it shares."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import Invalid
from perdure.model import ops as op
from perdure.model.ops import KINDS, Op
from perdure.model.state import MISSING, Fold, TestFailed, apply, lookup
from perdure.model.values import INT_END, FrozenDict, FrozenList, freeze, same, thaw

DOC: dict[str, Any] = {
    "n": 1,
    "f": 1.5,
    "s": "text",
    "null": None,
    "d": {"x": 1, "y": {"z": [1, 2]}},
    "l": ["a", "b", "c"],
    "r": [{"id": 1}, {"id": 2}],
    "": {"": 0, "a/b": 1, "~": 2, "é": -0.0, "0": "key", "-": "dash"},
}


def name(value: Any) -> str:
    """A short name of a case."""
    return repr(value)[:60] if not isinstance(value, Op) else f"{value.kind} {value.path[:20]}"


MEANINGS: list[tuple[Op, str, Any]] = [
    (op.set("/n", 2), "/n", 2),
    (op.set("/new", []), "/new", []),
    (op.set("/l/1", {"k": 1}), "/l", ["a", {"k": 1}, "c"]),
    (op.set("/l/-", "d"), "/l", ["a", "b", "c", "d"]),
    (op.set("/r/1/id", 5), "/r", [{"id": 1}, {"id": 5}]),
    (op.set("//a~1b", 5), "//a~1b", 5),
    (op.set("//~0", 5), "//~0", 5),
    (op.set("//", 5), "//", 5),
    (op.set("//é", 0.0), "//é", 0.0),
    (op.set("//0", 1), "//0", 1),
    (op.set("//-", 1), "//-", 1),
    (op.set("", [1]), "", [1]),
    (op.set("", 5), "", 5),
    (op.remove("/d/y/z"), "/d", {"x": 1, "y": {}}),
    (op.remove("/null"), "/null", MISSING),
    (op.remove("/l/0"), "/l", ["b", "c"]),
    (op.init("/n", 5), "/n", 1),
    (op.init("/null", 5), "/null", None),
    (op.init("/new", {}), "/new", {}),
    (op.init("/l/2", 5), "/l", ["a", "b", "c"]),
    (op.init("/l/-", 5), "/l", ["a", "b", "c", 5]),
    (op.init("", 5), "/n", 1),
    (op.append("/l", ["d", ["e"]]), "/l", ["a", "b", "c", "d", ["e"]]),
    (op.append("/l", []), "/l", ["a", "b", "c"]),
    (op.append("/new", ["d"]), "/new", ["d"]),
    (op.append("/new", []), "/new", []),
    (op.append("/l/-", ["d"]), "/l", ["a", "b", "c", ["d"]]),
    (op.splice("/l", 1, 1, ["x", "y"]), "/l", ["a", "x", "y", "c"]),
    (op.splice("/l", 3, 0, ["x"]), "/l", ["a", "b", "c", "x"]),
    (op.splice("/l", 0, 3), "/l", []),
    (op.add("/n", 2), "/n", 3),
    (op.add("/n", 0.5), "/n", 1.5),
    (op.add("/f", 1), "/f", 2.5),
    (op.add("/n", 10**40), "/n", 10**40 + 1),
    (op.add("/new", -0.0), "/new", -0.0),
    (op.add("//é", -0.0), "//é", -0.0),
    (op.add("/new", INT_END - 1), "/new", INT_END - 1),
    (op.union("/l", ["b", "d", "d", 1, True, 1.0]), "/l", ["a", "b", "c", "d", 1, True, 1.0]),
    (op.union("/r", [{"id": 2}, {"id": True}]), "/r", [{"id": 1}, {"id": 2}, {"id": True}]),
    (op.union("/new", [1, 1]), "/new", [1]),
    (op.merge("/d", {"x": None, "y": {"q": 1, "gone": None}, "w": {"k": None, "v": 1}}), "/d", {"y": {"z": [1, 2], "q": 1}, "w": {"v": 1}}),
    (op.merge("/n", {"k": 1}), "/n", {"k": 1}),
    (op.merge("/new", {"k": None}), "/new", {}),
    (op.merge("/l/0", {"k": [None]}), "/l", [{"k": [None]}, "b", "c"]),
    (op.merge("", {"n": None}), "/n", MISSING),
    (op.test("/n", 1), "/n", 1),
    (op.test("", DOC), "/n", 1),
]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("one", "path", "expected"), MEANINGS, ids=name)
def test_each_operation_does_what_it_says(one: Op, path: str, expected: Any, *, frozen: bool) -> None:
    """The value at the path afterwards, the rest as before, the input untouched, on plain and frozen states."""
    state = freeze(DOC) if frozen else thaw(DOC)
    after = apply(state, [one])
    if expected is MISSING:
        with pytest.raises(KeyError):
            lookup(after, path)
    else:
        assert same(lookup(after, path), expected)
    assert same(state, DOC)
    assert (type(after) in (FrozenDict, FrozenList, int)) if frozen else (type(after) in (dict, list, int))


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (op.set("/none/x", 1), "its parent is not there"),
        (op.set("/n/x", 1), "its parent is a number"),
        (op.set("/l/3", 1), "without element '3'"),
        (op.set("/l/01", 1), "without element '01'"),
        (op.set("/l/x", 1), "without element 'x'"),
        (op.set("/l/-/x", 1), "its parent is not there"),
        (op.set("/l/" + "9" * 4000, 1), "without element"),
        (op.remove("/none"), "there is nothing"),
        (op.remove("/l/-"), "there is nothing"),
        (op.remove("/l/3"), "without element '3'"),
        (op.remove(""), "cannot be removed|not removed"),
        (op.init("/l/3", 1), "without element '3'"),
        (op.append("/s", ["x"]), "there is a string, not a list"),
        (op.append("/null", ["x"]), "there is null, not a list"),
        (op.append("/d", ["x"]), "there is an object, not a list"),
        (op.splice("/none", 0), "there is nothing"),
        (op.splice("/l", 4), "elements 4 to 4 of a list of 3 are not there"),
        (op.splice("/l", 2, 2), "elements 2 to 4 of a list of 3 are not there"),
        (op.splice("/n", 0), "there is a number, not a list"),
        (op.add("/s", 1), "there is a string, not a number"),
        (op.add("/null", 1), "there is null, not a number"),
        (op.union("/d", []), "there is an object, not a list"),
        (Op("add", "/n", True), "it takes a number, not a boolean"),
        (Op("append", "/l", "x"), "it takes a list of items, not a string"),
        (Op("union", "/new", None), "it takes a list of items, not null"),
        (Op("merge", "/d", [1]), "it takes an object, not a list"),
        (Op("splice", "/l", [0, 1]), r"its value must be \[index, out, items\]"),
        (Op("splice", "/l", [-1, 0, []]), "are not there"),
        (Op("explode", "/l", 1), "no operation 'explode'"),
        (op.add("/f", 1.7e308), None),
        (op.add("/f", 10**400), "too large to be added"),
        (op.add("/n", INT_END - 1), "the sum is too large"),
    ],
    ids=name,
)
def test_an_operation_that_does_not_fit_is_invalid_and_says_why(one: Op, words: str | None) -> None:
    """The message names operation, path and what is there; the state stays; sums beyond floats or 4,300 digits are refused."""
    state = thaw(DOC)
    if words is None:
        state["f"] = 1.7e308
        words = "the sum is too large"
    before = thaw(state)
    with pytest.raises(Invalid, match=words) as caught:
        apply(state, [one])
    assert one.kind in str(caught.value)
    assert same(state, before)


def test_a_boolean_is_no_number() -> None:
    """Nothing is added to true."""
    with pytest.raises(Invalid, match="there is a boolean, not a number"):
        apply({"b": True}, [op.add("/b", 1)])


FAILING = [("/n", 1.0), ("/n", True), ("/none", None), ("/l/9", 1), ("/n/x", 1), ("/l/-", 1)]


@pytest.mark.parametrize("guard", [op.test(path, value) for path, value in FAILING])
def test_a_guard_fails_unless_the_very_value_is_there(guard: Op) -> None:
    """Another type, or nothing at all, even with a missing parent, is `TestFailed` with the path."""
    with pytest.raises(TestFailed) as caught:
        apply(DOC, [guard])
    assert caught.value.path == guard.path


def test_before_any_operation_a_session_is_an_empty_object() -> None:
    """Members are made at once in {}; deeper places need their parents."""
    assert apply({}, [op.init("/a", {}), op.set("/a/b", 1)]) == {"a": {"b": 1}}


@pytest.mark.parametrize("wrap", [thaw, freeze])
def test_what_is_not_touched_is_shared(wrap: Any) -> None:
    """Containers on the path are new, all others are the same objects, and operations that change nothing copy nothing."""
    state = wrap(DOC)
    after = apply(state, [op.set("/d/y/w", 1), op.append("/l", [1])])
    assert after is not state
    assert after["d"]["y"] is not state["d"]["y"]
    assert after["d"]["y"]["z"] is state["d"]["y"]["z"]
    assert after["r"] is state["r"]
    assert apply(state, [op.init("/d/x", 5), op.test("/n", 1)]) is state
    assert apply(state, []) is state


@pytest.mark.parametrize("wrap", [thaw, freeze])
@pytest.mark.parametrize("kind", ["set", "init", "append", "splice", "union", "merge"])
def test_values_of_operations_are_never_shared_as_they_are(kind: str, wrap: Any) -> None:
    """What an operation puts in is copied: changing the operation's value, or the state, does not change the other."""
    inner = {"k": [1]}
    values = {"append": [inner], "union": [inner], "merge": {"p": inner}, "splice": [0, 0, [inner]]}
    one = Op(kind, "/l" if kind == "splice" else "/new", values.get(kind, inner))
    after = apply(wrap({"l": []}), [one])
    expected = json.dumps(after)
    inner["k"].append(2)
    assert json.dumps(after) == expected
    if wrap is thaw:
        apply(after, [op.set("/l", 1)])
        found = after["l"][0] if kind == "splice" else after["new"]
        (found[0] if isinstance(found, list) else found)["late"] = 1
        assert inner == {"k": [1, 2]}
    else:
        with pytest.raises(Invalid, match=r"draft\.state"):
            (after["l"] if kind == "splice" else after["new"]).clear()


def test_a_frozen_value_is_taken_as_it_is() -> None:
    """In a frozen state a frozen value of an operation is not copied."""
    value = freeze({"x": [1]})
    assert apply(freeze({}), [Op("set", "/a", value)])["a"] is value


def test_a_fold_never_changes_what_it_gave_or_was_given() -> None:
    """Reading the state in between keeps it as it was; containers put in and changed later are changed in copies."""
    given_state = freeze({"l": [[0]]})
    fold = Fold(given_state)
    seen = []
    for number in range(1, 4):
        fold.apply([op.append("/l", [[number]]), op.append(f"/l/{number}", ["x"]), op.append("/l/0", [number])])
        seen.append((fold.state, json.dumps(fold.state)))
    assert given_state == {"l": [[0]]}
    assert [json.dumps(state) for state, _ in seen] == [text for _, text in seen]
    assert fold.state == {"l": [[0, 1, 2, 3], [1, "x"], [2, "x"], [3, "x"]]}


def test_a_fold_copies_a_container_once() -> None:
    """Between two readings of the state, operations on one list all go into one copy of it: a fold of many appends is linear."""
    fold = Fold(freeze({"l": [], "d": {"l": []}}))
    fold.apply([op.append("/l", [0]), op.append("/d/l", [0])])
    first, second = fold._state["l"], fold._state["d"]["l"]
    fold.apply([op.append("/l", [1]), op.splice("/d/l", 0, 1, ["x"]), op.set("/d/k", 1)] * 100)
    assert fold._state["l"] is first
    assert fold._state["d"]["l"] is second
    assert fold.state["l"][:3] == [0, 1, 1]
    assert len(first) == 101


def test_after_a_misfit_the_operations_before_it_stay() -> None:
    """A fold that raised holds what came before, whole."""
    fold = Fold({"l": [1]})
    with pytest.raises(Invalid):
        fold.apply([op.append("/l", [2]), op.append("/l/0", [3]), op.append("/l", [4])])
    assert fold.state == {"l": [1, 2]}


def test_lookup_finds_values_and_tells_null_from_nothing() -> None:
    """Null is a value; a missing key, an index beyond the list, `-`, and a path through a scalar are KeyErrors."""
    assert lookup(DOC, "/null") is None
    assert lookup(DOC, "") is DOC
    assert lookup(DOC, "/r/1/id") == 2
    for path in ("/none", "/l/3", "/l/-", "/l/-1", "/l/01", "/n/x", "/null/x", "/s/0"):
        with pytest.raises(KeyError):
            lookup(DOC, path)
    with pytest.raises(Invalid):
        lookup(DOC, "no/pointer")


def test_paths_and_values_together_may_nest_beyond_either_limit() -> None:
    """A value of full depth at a path of full length is folded, compared and copied without trouble."""
    bottom: Any = 1
    for _ in range(100):
        bottom = [bottom]
    fold = Fold(freeze({}))
    for depth in range(1, 100):
        fold.apply([op.set("/k" * depth, {})])
    fold.apply([op.set("/k" * 100, bottom)])
    state = fold.state
    assert same(state, thaw(state))
    assert same(freeze(thaw(state)), state)


PATHS = st.sampled_from(["", "/a", "/a/b", "/a/b/c", "/l", "/l/0", "/l/1", "/l/-", "/l/0/x", "/n", "/b"])
VALUES = st.sampled_from([0, 1, True, -0.0, None, "x", [], [1], {}, {"b": {"c": 1}}, {"a": None, "b": {"c": None}}, [0, 1, ["y"]]])
OPS = st.builds(Op, st.sampled_from(KINDS), PATHS, VALUES)


@given(st.lists(OPS, max_size=25), st.integers(0, 25))
def test_folding_in_parts_is_folding_at_once(ops: list[Op], split: int) -> None:
    """For any operations, well formed or not: frozen or plain, one by one, in two parts or at once gives one state or one refusal."""
    base = {"a": {"b": {}}, "l": [{"x": 1}, [2]], "n": 0}
    fitting, state = [], freeze(base)
    for one in ops:
        try:
            after = apply(state, [one])
        except (Invalid, TestFailed) as error:
            with pytest.raises(type(error)):
                apply(thaw(state), [one])
            continue
        assert same(apply(thaw(state), [one]), after)
        fitting.append(one)
        state = after
    assert same(apply(base, fitting), state)
    assert same(apply(apply(freeze(base), fitting[:split]), fitting[split:]), state)
    fold = Fold(base)
    for one in fitting:
        fold.apply([one])
    assert same(fold.state, state)
    assert base == {"a": {"b": {}}, "l": [{"x": 1}, [2]], "n": 0}
