"""JSON values: what is refused and where, what is the same, and what nobody changes."""

from __future__ import annotations

import copy
import enum
import json
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import Invalid, TooLarge
from perdure.model.values import DEPTH_MAX, INT_END, VALUES_MAX, FrozenDict, FrozenList, are_sound, check, freeze, same, spoken, thaw

JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
)


class Color(enum.StrEnum):
    """A string that is more than a string."""

    red = "red"


class Number(int):
    """An integer that is more than an integer."""


class Point(NamedTuple):
    """A tuple with names."""

    x: int


@given(JSONS)
def test_what_json_can_say_is_sound(value: Any) -> None:
    """Every JSON value passes, plain or frozen, and passes as part of another."""
    check(value)
    check([freeze(value), {"é": value}])
    assert are_sound([value, freeze(value)])


def nested(depth: int) -> Any:
    value: Any = 0
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


LOOP: list[Any] = [1]
LOOP.append({"again": LOOP})


@pytest.mark.parametrize(
    ("value", "path", "words"),
    [
        (float("nan"), "", "nan"),
        ([1, float("inf")], "/1", "inf"),
        ({"a": {"b": [0, -float("inf")]}}, "/a/b/1", "-inf"),
        ({"a/b": {"~": b"x"}}, "/a~1b/~0", "bytes"),
        ({"": {1}}, "/", "set"),
        ([(1, 2)], "/0", "would come back as a list"),
        ([Point(1)], "/0", "would come back as a list"),
        ({"k": object()}, "/k", "object"),
        ({"k": Color.red}, "/k", "would come back as a plain str"),
        ({"k": Number(1)}, "/k", "would come back as a plain int"),
        ({"k": {1: 2}}, "/k", "key of type int"),
        ({Color.red: 2}, "", "key of type Color"),
        ({None: 2}, "", "key of type NoneType"),
        (["ok", "\ud800"], "/1", "lone surrogate"),
        ({"a": {"é\udfff": 1}}, "/a", "lone surrogate"),
        ([INT_END], "/0", "4,300 digits"),
        ([-INT_END], "/0", "4,300 digits"),
        (LOOP, "/1/again", "holds itself"),
        ({"x": [LOOP]}, "/x/0/1/again", "holds itself"),
        (OrderedDict(a={1, 2}), "/a", "set"),
    ],
)
def test_what_json_cannot_say_is_refused_by_place_and_name(value: Any, path: str, words: str) -> None:
    """The message and the fact `path` name the place of the culprit, and the message what stands there."""
    with pytest.raises(Invalid) as caught:
        check(value, what="the answer")
    assert caught.value.path == path
    assert words in str(caught.value)
    assert str(caught.value).startswith("The answer holds ")
    assert not are_sound(["fine", value])


def test_a_place_is_told_from_where_the_value_stands() -> None:
    """`at` goes before the path; a very long path is shortened in the message, not in the fact."""
    with pytest.raises(Invalid, match="'/at/x'") as caught:
        check({"x": {}.keys()}, at="/at")
    assert caught.value.path == "/at/x"
    with pytest.raises(Invalid, match="u2026") as caught:
        check({"k" * 500: b""})
    assert len(caught.value.path) == 501


@pytest.mark.parametrize("depth", [DEPTH_MAX + 1, 5_000, 200_000])
def test_depth_is_bounded(depth: int) -> None:
    """One hundred containers inside one another are sound, one more is not, and any number of them is no crash."""
    check(nested(DEPTH_MAX))
    assert are_sound([nested(DEPTH_MAX)])
    value = nested(depth)
    assert not are_sound([value])
    with pytest.raises(Invalid, match="more than 100 containers"):
        check(value)
    while isinstance(value, (dict, list)):  # Taken apart by hand: to free it at once would overflow the C stack of older Pythons.
        value = value[0] if isinstance(value, list) else value["k"]


def test_the_deepest_and_the_longest_are_sound() -> None:
    """The limits themselves are within the limits; the same container in two places is no cycle."""
    shared = [1]
    check([INT_END - 1, 1 - INT_END, shared, shared, {"a": shared}, "\U0001f600", "\x00"])
    check(defaultdict(list, a=[1]))
    with pytest.raises(Invalid):
        check([[]], depth=1)
    check([[{1, 2}]], trust=(list,))


def doubled(levels: int, bottom: Any) -> Any:
    """A value that holds one container twice, and so on, level by level."""
    value = bottom
    for _ in range(levels):
        value = [value, value] if levels % 2 else {"a": value, "b": value}
    return value


@pytest.mark.parametrize("levels", [24, 97])
def test_one_container_at_many_places_costs_no_more_than_it_is(levels: int) -> None:
    """A value that doubles at every level is refused at once, with both numbers, whatever is at its bottom."""
    with pytest.raises(TooLarge, match=f"the limit is {VALUES_MAX:,}") as refused:
        check(doubled(levels, [1]))
    assert refused.value.facts["size"] == 2 ** (levels + 1) - 1 + 2**levels
    for bottom in (float("nan"), {1: 2}, [object()]):
        with pytest.raises(Invalid) as wrong:
            check([doubled(levels, [1]), bottom])
        assert wrong.value.facts["path"].startswith("/1")


def test_a_container_too_deep_is_found_behind_one_that_doubles() -> None:
    """Depth is counted on every way: a container that is fine at one place may be too deep at another."""
    shared = doubled(90, [1])
    check_fine = doubled(10, [1])
    check([check_fine, [check_fine]])
    deep: Any = shared
    for _ in range(10):
        deep = [deep]
    with pytest.raises(Invalid, match="more than 100 containers"):
        check([shared, deep])


def test_many_values_that_share_nothing_have_no_other_limit_than_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide value, and one whose sharing stays below the limit, are sound."""
    monkeypatch.setattr("perdure.model.values._FEW", 1 << 10)
    monkeypatch.setattr("perdure.model.values.VALUES_MAX", 1 << 12)
    check(doubled(10, [1]))
    check([0] * (1 << 12) + [[1]])
    shared = [1]
    with pytest.raises(TooLarge):
        check([0] * (1 << 12) + [shared, shared])


@given(JSONS, JSONS)
def test_same_is_what_the_bytes_say(a: Any, b: Any) -> None:
    """Two values are the same exactly if their canonical JSON is."""

    def canonical(value: Any) -> str:
        return json.dumps(value, sort_keys=True)

    assert same(a, thaw(a))
    assert same(freeze(a), a)
    assert same(a, b) == (canonical(a) == canonical(b))


@pytest.mark.parametrize(
    ("a", "b"),
    [(1, True), (0, False), (1, 1.0), (0.0, -0.0), (None, False), ("1", 1), ([1], [True]), ({"a": 0.0}, {"a": -0.0}), ([], {})],
    ids=repr,
)
def test_equal_for_python_is_not_the_same_for_json(a: Any, b: Any) -> None:
    """Types count, signs of zero count, and members have names; either way round and nested."""
    assert not same(a, b)
    assert not same(b, a)
    assert not same({"x": [a]}, {"x": [b]})


def test_same_knows_no_order_of_members_and_big_integers_exactly() -> None:
    """Objects have no order, lists have, and integers beyond floats are compared exactly."""
    assert same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert not same([1, 2], [2, 1])
    assert not same(2**80, 2**80 + 1)
    assert same(10**40, int("1" + "0" * 40))


DICT_CHANGES: list[Callable[[Any], Any]] = [
    lambda d: d.__setitem__("a", 1),
    lambda d: d.__delitem__("a"),
    lambda d: d.clear(),
    lambda d: d.pop("a"),
    lambda d: d.popitem(),
    lambda d: d.setdefault("b", 1),
    lambda d: d.update(b=1),
    lambda d: d.__ior__({"b": 1}),
]
LIST_CHANGES: list[Callable[[Any], Any]] = [
    lambda x: x.__setitem__(0, 1),
    lambda x: x.__delitem__(slice(None)),
    lambda x: x.append(1),
    lambda x: x.clear(),
    lambda x: x.extend([1]),
    lambda x: x.insert(0, 1),
    lambda x: x.pop(),
    lambda x: x.remove(3),
    lambda x: x.reverse(),
    lambda x: x.sort(),
    lambda x: x.__iadd__([1]),
    lambda x: x.__imul__(2),
]


CHANGES = [*((freeze({"a": 3}), change) for change in DICT_CHANGES), *((freeze([3, 2]), change) for change in LIST_CHANGES)]


@pytest.mark.parametrize(("frozen", "change"), CHANGES)
def test_a_frozen_container_refuses_every_change(frozen: Any, change: Callable[[Any], Any]) -> None:
    """Every method that would change it raises, says where to go, and leaves it as it was."""
    before = json.dumps(frozen)
    with pytest.raises(Invalid, match=r"draft\.state"):
        change(frozen)
    assert json.dumps(frozen) == before


def test_every_method_that_changes_is_refused() -> None:
    """A frozen class overrides what its builtin has and its immutable kin has not: all methods that change."""
    kept = {"copy", "__reversed__", "__or__", "__ror__", "fromkeys", "get", "items", "keys", "values", "__class_getitem__", "__getitem__"}
    for frozen, plain, kin in ((FrozenDict, dict, frozenset), (FrozenList, list, tuple)):
        changing = {name for name in vars(plain) if name not in vars(kin) and name not in kept and name not in vars(object)}
        assert changing
        for name in changing:
            assert getattr(frozen, name) is not getattr(plain, name), name


def test_freezing_is_deep_and_keeps_what_is_frozen() -> None:
    """All containers are frozen, none of the original is changed, and a frozen part stays the object it is."""
    part = freeze({"x": [1]})
    original = {"a": [part, {"b": []}]}
    frozen = freeze(original)
    assert frozen["a"][0] is part
    assert freeze(frozen) is frozen
    assert type(frozen["a"][1]["b"]) is FrozenList
    assert type(original["a"]) is list
    assert isinstance(frozen, dict)
    assert frozen == original


@pytest.mark.parametrize("duplicate", [thaw, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_of_frozen_containers_are_plain_all_the_way(duplicate: Callable[[Any], Any]) -> None:
    """A deep copy is plain dicts and lists that may be changed."""
    frozen = freeze({"a": [{"b": [1]}], "c": {}})
    made = duplicate(frozen)
    assert same(made, frozen)
    assert (type(made), type(made["a"]), type(made["a"][0]), type(made["a"][0]["b"]), type(made["c"])) == (dict, list, dict, list, dict)
    made["a"][0]["b"].append(2)
    assert frozen["a"][0]["b"] == [1]


def test_shallow_copies_of_frozen_containers_are_plain() -> None:
    """copy.copy, .copy(), slices, sums and unions are plain containers with the same children."""
    table, row = freeze({"a": [1]}), freeze([[1]])
    for made in (copy.copy(table), table.copy(), table | {}, {} | table):
        assert type(made) is dict
        assert made["a"] is table["a"]
    for items in (copy.copy(row), row.copy(), row[:], row + [], [] + row, row * 1):  # noqa: RUF005
        assert type(items) is list
        assert items[0] is row[0]


def test_kinds_are_spoken_as_json_speaks() -> None:
    """A bool is a boolean, not a number; what JSON lacks goes by its type's name."""
    assert [spoken(value) for value in ({}, [], "", True, 1, 1.0, None, {1})] == [
        "an object",
        "a list",
        "a string",
        "a boolean",
        "a number",
        "a number",
        "null",
        "a set",
    ]
