"""The difference of two states: it leads from one to the other, and says no more than it must."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.model.diff import compare, diff
from perdure.model.identity import Names
from perdure.model.ops import Op, check_op
from perdure.model.state import apply
from perdure.model.values import freeze, same, thaw

ATOMS = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, -0.0, 1.0, 1e300, 2**70, "", "a", "~/é"])
JSONS = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["", "a", "b", "~", "a/b", "é"]), inner, max_size=4)
)


def wire(ops: list[Op]) -> list[list[Any]]:
    return [[op.kind, op.path, op.value] for op in ops]


@given(JSONS, JSONS)
def test_a_difference_leads_from_old_to_new(old: Any, new: Any) -> None:
    """Applied to the old value the operations give the new one; they are well formed, and there are none if nothing differs."""
    ops = diff(old, new)
    assert same(apply(old, ops), new)
    assert (ops == []) == same(old, new)
    for op in ops:
        check_op(op)


@given(JSONS, st.randoms())
def test_a_difference_of_what_was_touched_leads_there_too(old: Any, chance: random.Random) -> None:
    """The same for a copy in which a few places were changed, moved or repeated, with structure shared."""
    base = freeze({"root": old})
    new = dict(base)
    for _ in range(3):
        node: Any = new
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = chance.choice(keys)
            child = node[key]
            if isinstance(child, (dict, list)) and chance.random() < 0.7:
                child = node[key] = dict(child) if isinstance(child, dict) else list(child)
                node = child
                continue
            node[key] = chance.choice([1, None, "new", [], {"x": [1]}])
            break
        if isinstance(node, list):
            chance.shuffle(node)
            node.append(chance.choice([0, {"y": 1}]))
            node += node[:1]
    ops = diff(base, new)
    assert same(apply(base, ops), new)


@pytest.mark.parametrize(
    ("old", "new", "ops"),
    [
        ({"a": 1, "b": 2}, {"b": 3, "c": []}, [["remove", "/a", None], ["set", "/b", 3], ["set", "/c", []]]),
        ({"a": 0.0}, {"a": -0.0}, [["set", "/a", -0.0]]),
        ({"a": 1}, {"a": True}, [["set", "/a", True]]),
        ({"a/b": {"~": 1}}, {"a/b": {"~": 2}}, [["set", "/a~1b/~0", 2]]),
        ({"": 1}, {"": 2}, [["set", "/", 2]]),
        ([1, 2], [1, 2, 3, 4], [["append", "", [3, 4]]]),
        ([1, 2, 3, 4], [1, 4], [["splice", "", [1, 2, []]]]),
        ([1, 2, 3], [1, 5, 3], [["set", "/1", 5]]),
        ([1, 2], [0, 1, 2], [["splice", "", [0, 0, [0]]]]),
        ([{"a": 1}, {"a": 2}], [{"a": 1}, {"a": 3}], [["set", "/1/a", 3]]),
        ([{"a": 1}, 7], [{"a": 2}, 7, 8], [["append", "", [8]], ["set", "/0/a", 2]]),
        (["a", "b", "c", "d"], ["x", "b", "c"], [["splice", "", [3, 1, []]], ["set", "/0", "x"]]),
        ([3, 1, 2, 5, 4], [1, 2, 3, 4, 5], None),
        ({"a": 1}, [1], [["set", "", [1]]]),
    ],
)
def test_a_difference_is_told_in_few_words(old: Any, new: Any, ops: list[Any] | None) -> None:
    """Members by key, elements by index, a longer list by what was appended, one gap by one splice."""
    made = diff(old, new)
    assert same(apply(old, made), new)
    if ops is not None:
        assert same(wire(made), ops)


def test_a_window_that_slides_is_one_removal_and_one_append() -> None:
    """Elements are followed by identity, so that a list that lost its first and won a last is not told anew."""
    base = freeze([{"n": n} for n in range(50)])
    assert wire(diff(base, [*base[1:], {"n": 50}])) == [["append", "", [{"n": 50}]], ["splice", "", [0, 1, []]]]


def test_a_sorted_list_is_one_splice() -> None:
    """What keeps no order is told at once, not by one operation for each element."""
    items = [{"n": n} for n in range(50)]
    random.Random(4).shuffle(items)
    base = freeze(items)
    (op,) = diff(base, sorted(base, key=lambda item: item["n"]))
    assert op.kind == "splice"


def test_a_changed_copy_is_known_by_its_origin() -> None:
    """An element that was changed and moved is told by its change, when it is known what it was."""
    base = freeze([{"n": n, "text": "long"} for n in range(5)])
    changed = {**base[3], "n": -1}
    names = Names(lambda item: base[3] if item is changed else item)
    made = compare(base, [*base[1:3], changed, base[4]], "/l", names)
    assert wire([note.op for note in made]) == [["set", "/l/3/n", -1], ["splice", "/l", [0, 1, []]]]


def test_what_is_one_object_is_not_looked_into() -> None:
    """Identity ends the walk: a value that cannot even be compared is passed over when both sides share it."""

    class Untouchable(dict[str, Any]):
        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

        __hash__ = None

    shared = Untouchable(a=1)
    assert wire(diff({"s": shared, "l": [shared], "n": 1}, {"s": shared, "l": [shared, 1], "n": 1})) == [["append", "/l", [1]]]


def test_operations_share_nothing_with_the_new_value() -> None:
    """A value in an operation is a plain copy: what is changed later does not change the operation."""
    new: dict[str, Any] = {"a": {"b": [freeze({"c": 1})]}}
    (op,) = diff({}, new)
    new["a"]["b"].append(2)
    assert op == Op("set", "/a", {"b": [{"c": 1}]})
    assert type(op.value["b"][0]) is dict


def nested(depth: int, leaf: Any) -> Any:
    for _ in range(depth):
        leaf = [leaf]
    return leaf


@pytest.mark.parametrize("make", [lambda leaf: nested(101, leaf), lambda leaf: {"k" * 5000: leaf}, lambda leaf: [{"é" * 2047: [leaf]}]])
def test_places_that_no_path_can_name_are_set_from_above(make: Any) -> None:
    """Below 100 tokens or 4,096 bytes of path the deepest container that has a path is replaced."""
    old, new = make(1), make(2)
    ops = diff(old, new)
    assert same(apply(old, ops), new)
    for op in ops:
        check_op(op)
    assert diff(old, thaw(old)) == []
