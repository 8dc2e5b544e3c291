"""`draft.state`: a dict and a list to everyone, and every change to it an operation."""

from __future__ import annotations

import copy
import heapq
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import Invalid
from perdure.model import ops as op
from perdure.model.ops import Op, check_op
from perdure.model.state import apply
from perdure.model.tracked import TrackedDict, TrackedList, Tracker
from perdure.model.values import FrozenDict, freeze, same, thaw
from tests.support.tracked import DOC, DOCUMENTS, JSONS, KEYS, add_in_place, assign, delete, edited

Act = Callable[[Any, random.Random, Any], Any]


def position(node: list[Any], chance: random.Random) -> int:
    return chance.randint(-len(node) - 1, len(node) + 1)


def cut(node: list[Any], chance: random.Random) -> slice:
    start, stop = (chance.choice([None, position(node, chance)]) for _ in range(2))
    return slice(start, stop, chance.choice([None, None, 1, 2, -1, -2]))


def shuffled(node: list[Any], chance: random.Random) -> None:
    order = list(range(len(node)))
    chance.shuffle(order)
    for place, other in enumerate(order):
        node[place], node[other] = node[other], node[place]


DICT_ACTS: list[Act] = [
    lambda node, chance, value: assign(node, chance.choice(KEYS), value),
    lambda node, chance, value: assign(node, chance.choice(KEYS), value),
    lambda node, chance, value: delete(node, chance.choice(KEYS)),
    lambda node, chance, value: node.pop(chance.choice(KEYS)),
    lambda node, chance, value: node.pop(chance.choice(KEYS), value),
    lambda node, chance, value: node.popitem(),
    lambda node, chance, value: node.get(chance.choice(KEYS), value),
    lambda node, chance, value: node.setdefault(chance.choice(KEYS), value),
    lambda node, chance, value: node.setdefault(chance.choice(KEYS), []).append(value),
    lambda node, chance, value: node.update({chance.choice(KEYS): value}, a=value),
    lambda node, chance, value: node.update([(chance.choice(KEYS), value)]),
    lambda node, chance, value: node.__ior__({chance.choice(KEYS): value}) is node,
    lambda node, chance, value: node | {"b": value},
    lambda node, chance, value: {"b": value} | node,
    lambda node, chance, value: {**node, "b": value},
    lambda node, chance, value: [list(node), list(map(list, node.items())), [*node.values()], list(reversed(node)), "a" in node, len(node)],
    lambda node, chance, value: add_in_place(node, chance.choice(KEYS), 1),
    lambda node, chance, value: add_in_place(node, chance.choice(KEYS), [value]),
    lambda node, chance, value: assign(node, "a", {**node.get("a", {}), "new": value}),
    lambda node, chance, value: [node.clear() if chance.random() < 0.2 else None, node == {}, repr(node), node.copy(), bool(node)],
]
LIST_ACTS: list[Act] = [
    lambda node, chance, value: node.append(value),
    lambda node, chance, value: node.extend([value, 7]),
    lambda node, chance, value: node.__iadd__((value,)) is node,
    lambda node, chance, value: node.insert(position(node, chance), value),
    lambda node, chance, value: node.pop(),
    lambda node, chance, value: node.pop(position(node, chance)),
    lambda node, chance, value: node.remove(value),
    lambda node, chance, value: node.remove(chance.choice(list(node)) if node else 1),
    lambda node, chance, value: assign(node, position(node, chance), value),
    lambda node, chance, value: assign(node, cut(node, chance), [value] * chance.randint(0, 3)),
    lambda node, chance, value: assign(node, slice(None), [item for item in node if item != value]),
    lambda node, chance, value: delete(node, position(node, chance)),
    lambda node, chance, value: delete(node, cut(node, chance)),
    lambda node, chance, value: node[cut(node, chance)],
    lambda node, chance, value: node[position(node, chance)],
    lambda node, chance, value: node.reverse(),
    lambda node, chance, value: node.sort(key=repr, reverse=chance.random() < 0.5),
    lambda node, chance, value: node.sort(),
    lambda node, chance, value: node.__imul__(chance.randint(-1, 2)) is node,
    lambda node, chance, value: [[0] + node, node + [value], node * 2, 2 * node, node + node, [*node], list(reversed(node))],  # noqa: RUF005
    lambda node, chance, value: [node.index(value), node.count(value)],
    lambda node, chance, value: [value in node, len(node), node == [value], node < [value], repr(node), node.copy(), bool(node)],
    lambda node, chance, value: shuffled(node, chance),
    lambda node, chance, value: heapq.heappush(node, value),
    lambda node, chance, value: add_in_place(node, position(node, chance), 1),
    lambda node, chance, value: node.clear() if chance.random() < 0.3 else None,
    lambda node, chance, value: node.extend(node),
]


def containers(node: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to every container in a plain document."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    inner = [found for key, child in pairs if isinstance(child, (dict, list)) for found in containers(child, (*way, key))]
    return [way, *inner]


class Side:
    """One of two documents on which the same program runs."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self.pocket: list[Any] = []

    def step(self, seed: int, way: tuple[Any, ...] | int, value: Any) -> Any:
        chance = random.Random(seed)
        if isinstance(way, int):
            node = self.pocket[way % len(self.pocket)]
        else:
            node = self.root
            for key in way:
                node = node[key]
        if chance.random() < 0.3:
            self.pocket.append(node)
        if self.pocket and chance.random() < 0.15:
            value = chance.choice(self.pocket)
        try:
            result = chance.choice(DICT_ACTS if isinstance(node, dict) else LIST_ACTS)(node, chance, value)
        except (KeyError, IndexError, ValueError) as error:
            return type(error), str(error)
        except (TypeError, AttributeError) as error:  # Their messages name types.
            return type(error)
        if isinstance(result, (dict, list)) and chance.random() < 0.5:
            self.pocket.append(result)
        return result


def circular(value: Any) -> bool:
    try:
        json.dumps(value)
    except (ValueError, RecursionError):
        return True
    return False


@given(DOCUMENTS, st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 100), JSONS), max_size=14))
def test_a_state_behaves_as_dict_and_list_do_and_every_change_is_an_operation(document: Any, program: list[tuple[int, int, Any]]) -> None:
    """Any program of calls gives the same results and the same document as on plain ones; the operations lead there, and the base stays."""
    base = freeze(document)
    before = json.dumps(base)
    tracker = Tracker(base)
    plain, tracked = Side(thaw(document)), Side(tracker.root)
    for seed, where, value in program:
        ways: list[Any] = [*containers(plain.root), *range(len(plain.pocket))]
        way = ways[where % len(ways)]
        results = [side.step(seed, way, copy.deepcopy(value)) for side in (plain, tracked)]
        if circular(plain.root) or circular(plain.pocket):
            if circular(plain.root):
                with pytest.raises(Invalid, match="holds"):
                    tracker.ops()
            return
        assert repr(results[0]) == repr(results[1])
        assert same(plain.root, tracker.root)
        assert same(plain.pocket, tracked.pocket)
    ops = tracker.ops()
    assert same(apply(base, ops), plain.root)
    assert same(apply(thaw(base), ops), plain.root)
    assert json.dumps(base) == before
    assert (ops == ()) == same(document, plain.root)
    for one in ops:
        check_op(one)
    assert same(apply(base, tracker.ops()), plain.root), "asked again, they may be other ones that lead there too"
    assert same(copy.deepcopy(tracker.root), plain.root)
    assert same(json.loads(json.dumps(tracker.root)), plain.root)


@pytest.mark.parametrize(
    ("change", "ops"),
    [
        (lambda s: assign(s, "n", 2), [["set", "/n", 2]]),
        (lambda s: add_in_place(s["deep"]["count"], "x", 5), [["set", "/deep/count/x", 6]]),
        (lambda s: delete(s, "n"), [["remove", "/n", None]]),
        (lambda s: s.setdefault("offers", []).append({"id": 7}), [["init", "/offers", []], ["append", "/offers", [{"id": 7}]]]),
        (lambda s: s.setdefault("n", 5), []),
        (lambda s: s["log"].append({"i": 3}), [["append", "/log", [{"i": 3}]]]),
        (lambda s: [s["log"].append(i) for i in range(3)], [["append", "/log", [0, 1, 2]]]),
        (lambda s: add_in_place(s, "log", [4]), [["append", "/log", [4]]]),
        (lambda s: assign(s, "log", [*s["log"], 4]), [["append", "/log", [4]]]),
        (lambda s: assign(s, "log", s["log"] + [4]), [["append", "/log", [4]]]),
        (lambda s: assign(s, "log", s["log"]), []),
        (lambda s: s["l"].insert(1, 9), [["splice", "/l", [1, 0, [9]]]]),
        (lambda s: s["l"].pop(0), [["splice", "/l", [0, 1, []]]]),
        (lambda s: delete(s["l"], slice(1, 3)), [["splice", "/l", [1, 2, []]]]),
        (lambda s: assign(s["l"], slice(0, 2), [7]), [["splice", "/l", [0, 2, [7]]]]),
        (lambda s: assign(s["l"], -1, 7), [["set", "/l/2", 7]]),
        (lambda s: s["l"].sort(), [["append", "/l", [3]], ["splice", "/l", [0, 1, []]]]),
        (lambda s: assign(s["log"][1], "i", 9), [["set", "/log/1/i", 9]]),
        (lambda s: [assign(item, "seen", True) for item in s["log"][1:]], [["set", "/log/1/seen", True], ["set", "/log/2/seen", True]]),
        (lambda s: s["a/b"]["~"][""].append(2), [["append", "/a~1b/~0/", [2]]]),
        (lambda s: assign(s, "é", 0.0), [["set", "/é", 0.0]]),
        (lambda s: add_in_place(s, "big", 1), [["set", "/big", 10**40 + 1]]),
        (lambda s: s.update({"n": 3}, m=4), [["set", "/n", 3], ["set", "/m", 4]]),
        (lambda s: s["deep"].__ior__({"z": 0}), [["set", "/deep/z", 0]]),
        (lambda s: [add_in_place(s, "n", 1) for _ in range(50)], [["set", "/n", 51]]),
        (lambda s: [assign(s, "n", True), assign(s, "n", 1)], []),
        (lambda s: [s.pop("n"), assign(s, "n", 1)], []),
        (lambda s: s.clear(), None),
        (lambda s: assign(s["log"], slice(None), [item for item in s["log"] if item["i"] != 1]), [["splice", "/log", [1, 1, []]]]),
    ],
)
def test_a_call_is_the_operation_it_means(change: Callable[[Any], Any], ops: list[Any] | None) -> None:
    """Calls of dict and list are the operations that combine best, told once, at the place where they happen."""
    made = edited(DOC, change)
    if ops is not None:
        assert same(made, ops)


def test_changes_past_the_calls_are_operations_too() -> None:
    """What heapq, written in C, does to a list is found by comparing."""
    document = {"queue": [5, 7, 9], "other": [1]}
    made = edited(document, lambda s: [heapq.heappush(s["queue"], 1), heapq.heappop(s["queue"]), heapq.heappush(s["queue"], 6)])
    assert made
    assert all(path.startswith("/queue") for _, path, _ in made)


def test_only_containers_that_were_touched_are_copied() -> None:
    """What nobody asked for stays the frozen original, and an element that was asked for twice is one object."""
    tracker = Tracker(freeze(DOC))
    root = tracker.root
    assert root["log"] is root["log"]
    assert root["log"][0] is root.get("log")[-3]
    assert type(dict.get(root, "deep")) is FrozenDict
    assert type(list.__getitem__(root["log"], 1)) is FrozenDict
    assert type(root["log"][0]) is TrackedDict
    assert type(root.setdefault("l", [])) is TrackedList


def test_values_are_seen_as_they_are_at_commit() -> None:
    """A plain value that was put in, twice even, and changed afterwards counts as it stands in the end."""
    shared = {"n": 1}

    def change(state: Any) -> None:
        shared["n"] = 1
        state["x"] = shared
        state["log"].append(shared)
        shared["n"] = 2

    assert same(edited(DOC, change)[-2:], [["set", "/log/3/n", 2], ["set", "/x/n", 2]])


def test_a_container_that_moves_takes_its_changes_along() -> None:
    """Taken out it records nothing; put in elsewhere, changed before and after, it is there as it is."""

    def change(state: Any) -> None:
        deep = state.pop("deep")
        deep["count"]["x"] = 2
        state["moved"] = deep
        deep["count"]["y"] = 3
        first = state["log"].pop(0)
        first["i"] = "gone"
        state["log"].append(state["log"][0])
        state["log"][-1]["i"] = "both"

    made = edited(DOC, change)
    assert ["remove", "/deep", None] in made
    assert not [path for _, path, _ in made if path.startswith("/deep/")]


def test_the_whole_document_can_be_assigned() -> None:
    """Assigning a new document, one made from the old, or one of another kind leads there."""
    base = freeze(DOC)
    for make in (lambda s: {**s, "n": 2}, lambda s: {"only": [s["log"]]}, lambda s: [s], lambda s: 5, lambda s: s):
        tracker = Tracker(base)
        old = tracker.root
        value = make(old)
        tracker.replace(value)
        assert tracker.root is value
        if isinstance(value, dict):
            value["late"] = 1
        old["log"].append("late")
        assert same(apply(base, tracker.ops()), value)
    tracker = Tracker(base)
    tracker.replace({**tracker.root, "n": 2})
    assert tracker.ops() == (Op("set", "/n", 2),)


def test_a_scalar_document_can_be_replaced() -> None:
    """A document that is no container has no calls, and is assigned."""
    tracker = Tracker(5)
    assert tracker.root == 5
    tracker.replace(True)
    assert tracker.ops() == (Op("set", "", True),)


@pytest.mark.parametrize(
    ("put", "path"),
    [
        (float("nan"), "/log/0/bad"),
        ({"k": {1, 2}}, "/log/0/bad/k"),
        ({"k": [b"x"]}, "/log/0/bad/k/0"),
        ({1: 2}, "/log/0/bad"),
        ("\ud800", "/log/0/bad"),
        ((1, 2), "/log/0/bad"),
    ],
)
def test_what_json_cannot_say_is_refused_at_commit(put: Any, path: str) -> None:
    """The value is named by its place; taken away again, it hinders nothing."""
    tracker = Tracker(freeze(DOC))
    tracker.root["log"][0]["bad"] = put
    with pytest.raises(Invalid) as caught:
        tracker.ops()
    assert caught.value.path == path
    del tracker.root["log"][0]["bad"]
    assert tracker.ops() == ()


def test_a_state_that_holds_itself_is_refused() -> None:
    """Cycles, of the user's containers or of the state's own, are named; so is what lies too deep."""
    for knot in (lambda s: assign(s["deep"], "loop", s["deep"]), lambda s: s["log"].append(s), lambda s: assign(s, "deep", deep(150))):
        tracker = Tracker(freeze(DOC))
        knot(tracker.root)
        with pytest.raises(Invalid, match=r"holds (a container that holds itself|more than)"):
            tracker.ops()


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def test_a_change_below_the_reach_of_paths_is_told_from_above() -> None:
    """Deeper than 100 tokens, or under a key of 5,000 characters, the change is set as part of what a path can name."""
    document = {"k" * 5000: {"x": 1}, "deep": 0}
    base = freeze(apply(apply({}, [op.set("/d", deep(99))]), [op.set("/d" + "/0" * 99, deep(99))]))
    assert edited(document, lambda s: assign(s["k" * 5000], "x", 2))[0][:2] == ["set", ""]
    tracker = Tracker(base)
    node = tracker.root["d"]
    while isinstance(node[0], list):
        node = node[0]
    node.append("new")
    node[0] = 1
    assert same(json.dumps(apply(base, tracker.ops())), json.dumps(tracker.root))


def test_a_mistaken_note_is_corrected_by_comparing() -> None:
    """A call noted at an index that C code had moved leads to the right state all the same."""

    def change(state: Any) -> None:
        held = state["q"][0]
        heapq.heappush(state["q"], [0])
        held.append("mine")
        state["q"][-1].append("last")
        heapq.heappop(state["q"])
        state["q"].append([])

    edited({"q": [[1], [2], [3]]}, change)
