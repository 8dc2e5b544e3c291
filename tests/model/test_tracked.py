"""`draft.state`: a dict and a list to everyone, and every change to it an operation."""

from __future__ import annotations

import copy
import heapq
import json
import pickle
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import Invalid
from perdure.model import ops as op
from perdure.model.identity import Note
from perdure.model.ops import Op, check_op
from perdure.model.state import TestFailed, apply
from perdure.model.tracked import TrackedDict, TrackedList, Tracker, tidy
from perdure.model.values import FrozenDict, FrozenList, freeze, same, thaw

KEYS = ["", "a", "b", "~", "a/b", "é"]
ATOMS = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, -0.0, 1.0, 1e300, 2**70, "", "a", "~/é"])
JSONS = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4))
DOCUMENTS = st.dictionaries(st.sampled_from(KEYS), JSONS, max_size=5)

Act = Callable[[Any, random.Random, Any], Any]


def position(node: list[Any], chance: random.Random) -> int:
    return chance.randint(-len(node) - 1, len(node) + 1)


def cut(node: list[Any], chance: random.Random) -> slice:
    start, stop = (chance.choice([None, position(node, chance)]) for _ in range(2))
    return slice(start, stop, chance.choice([None, None, 1, 2, -1, -2]))


def assign(node: Any, key: Any, value: Any) -> None:
    node[key] = value


def delete(node: Any, key: Any) -> None:
    del node[key]


def add_in_place(node: Any, key: Any, value: Any) -> None:
    node[key] += value


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
    assert tracker.ops() == ops
    assert same(copy.deepcopy(tracker.root), plain.root)
    assert same(json.loads(json.dumps(tracker.root)), plain.root)


def edited(document: Any, change: Callable[[Any], Any]) -> list[list[Any]]:
    """The operations, as on the wire, of a change to a document; they are checked to lead where a plain document goes."""
    base, plain = freeze(document), thaw(document)
    tracker = Tracker(base)
    change(tracker.root)
    change(plain)
    ops = tracker.ops()
    assert same(apply(base, ops), plain)
    assert same(base, document)
    return [[one.kind, one.path, one.value] for one in ops]


DOC: dict[str, Any] = {
    "n": 1,
    "deep": {"count": {"x": 1}},
    "log": [{"i": 0}, {"i": 1}, {"i": 2}],
    "l": [3, 1, 2],
    "a/b": {"~": {"": [1]}},
    "é": -0.0,
    "big": 10**40,
}


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


def test_changes_behind_the_calls_are_operations_too() -> None:
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


def together(*children: Any) -> list[Any]:
    return list(children)


READS: list[Callable[[Any], list[Any]]] = [
    lambda s: [s["d"], s["l"]],
    lambda s: [s.get("d"), s.get("l", 5)],
    lambda s: list(s.values()),
    lambda s: [value for _, value in s.items()],
    lambda s: [s.setdefault("d", {}), s.setdefault("l", [])],
    lambda s: list(dict(s).values()),
    lambda s: list({**s}.values()),
    lambda s: list((s | {}).values()),
    lambda s: list(({} | s).values()),
    lambda s: list(s.copy().values()),
    lambda s: list(copy.copy(s).values()),
    lambda s: [s.pop("d"), s.pop("l")],
    lambda s: [s.popitem()[1], s.popitem()[1]],
    lambda s: [*s["l"]],
    lambda s: list(s["l"]),
    lambda s: list(reversed(s["l"])),
    lambda s: s["l"][:],
    lambda s: s["l"][::-1],
    lambda s: s["l"].copy(),
    lambda s: copy.copy(s["l"]),
    lambda s: [] + s["l"],
    lambda s: s["l"] + [],
    lambda s: s["l"] * 2,
    lambda s: 2 * s["l"],
    lambda s: together(*s["l"]),
    lambda s: [s["l"].pop(), s["l"].pop(0)],
    lambda s: sorted(s["l"], key=len),
    lambda s: sum([s["l"], s["l"]], []),  # noqa: RUF017
    lambda s: [].__iadd__(s["l"]),
    lambda s: heapq.nlargest(2, s["l"], key=len),
]


@pytest.mark.parametrize("read", READS)
def test_every_way_to_reach_a_child_gives_one_that_can_be_changed(read: Callable[[Any], list[Any]]) -> None:
    """However a container is reached in Python, changing it changes the state, as it does in a plain one."""

    def change(state: Any) -> None:
        for child in read(state):
            if isinstance(child, dict):
                child["new"] = 1
            else:
                child.append("new")

    document = {"d": {"x": 1}, "l": [{"y": 1}, [2]]}
    edited(document, change)
    tracker = Tracker(freeze(document))
    for child in read(tracker.root):
        assert type(child) in (TrackedDict, TrackedList)


def test_adding_to_a_plain_list_in_place_keeps_it_that_list() -> None:
    """`plain += tracked` extends the plain list, for everyone who holds it."""
    tracker = Tracker(freeze({"l": [{"x": 1}]}))
    held = plain = [0]
    plain += tracker.root["l"]
    assert held is plain
    assert held == [0, {"x": 1}]


def test_copies_are_plain_and_independent() -> None:
    """deepcopy, pickle and a call of the type give plain dicts and lists, with shared parts still shared, that change nothing."""
    tracker = Tracker(freeze(DOC))
    root = tracker.root
    root["twice"] = [root["log"], root["log"]]
    for made in (copy.deepcopy(root), pickle.loads(pickle.dumps(root))):
        assert same(made, root)
        assert type(made) is dict
        assert type(made["log"]) is list
        assert type(made["log"][0]) is dict
        assert made["twice"][0] is made["log"]
        made["log"].append(1)
        made["deep"]["count"].clear()
    assert type(type(root)(root)) is dict
    assert type(type(root["log"])(root["log"])) is list
    assert type(root.fromkeys("ab")) is dict
    del root["twice"]
    assert tracker.ops() == ()


def test_encoders_see_what_is_there() -> None:
    """The json module (in C and in Python), msgspec and pydantic read a state that was touched here and there as its plain equal."""

    class Count(pydantic.BaseModel):
        x: int

    class Document(pydantic.BaseModel):
        n: int
        deep: dict[str, Count]
        log: list[dict[str, int]]
        rest: Any

    tracker = Tracker(freeze({**DOC, "rest": {"k": [1, {"z": 2}]}}))
    root, plain = tracker.root, thaw({**DOC, "rest": {"k": [1, {"z": 2}]}})
    for state in (root, plain):
        state["log"][1]["i"] = 5
        state["deep"]["more"] = {"x": 3}
    assert json.dumps(root) == json.dumps(plain)
    assert json.dumps(root, indent=1, sort_keys=True) == json.dumps(plain, indent=1, sort_keys=True)
    assert msgspec.json.encode(root) == msgspec.json.encode(plain)
    assert msgspec.msgpack.encode(root["log"]) == msgspec.msgpack.encode(plain["log"])
    assert Document.model_validate(root) == Document.model_validate(plain)
    assert pydantic.TypeAdapter(dict[str, Any]).dump_json(root) == pydantic.TypeAdapter(dict[str, Any]).dump_json(plain)
    assert repr(root) == repr(plain)
    assert root == plain
    assert plain == root


def test_what_c_code_leaks_cannot_change_the_base() -> None:
    """A child that left the list by C code is frozen: changing it says so, and nothing happens silently."""
    tracker = Tracker(freeze({"q": [[1, {"t": 1}], [2, {"t": 2}]]}))
    job = heapq.heappop(tracker.root["q"])
    assert job == [1, {"t": 1}]
    with pytest.raises(Invalid, match=r"draft\.state"):
        job.append(1)
    tracker.root["done"] = job
    tracker.root["done"].append("now it can")
    assert same(apply({"q": [[1, {"t": 1}], [2, {"t": 2}]]}, tracker.ops()), {"q": [[2, {"t": 2}]], "done": [1, {"t": 1}, "now it can"]})


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


def test_a_mistaken_note_is_mended_by_comparing() -> None:
    """A call noted at an index that C code had moved leads to the right state all the same."""

    def change(state: Any) -> None:
        held = state["q"][0]
        heapq.heappush(state["q"], [0])
        held.append("mine")
        state["q"][-1].append("last")
        heapq.heappop(state["q"])
        state["q"].append([])

    edited({"q": [[1], [2], [3]]}, change)


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


def test_a_base_is_frozen_lists_too() -> None:
    """A tracker on a list hands out a list; the base given plain is copied."""
    document: list[Any] = [[1], {"x": 2}]
    tracker = Tracker(document)
    assert type(tracker.root) is TrackedList
    tracker.root[1]["x"] = 3
    document[0].append("unseen")
    assert tracker.ops() == (op.set("/1/x", 3),)
    assert type(tracker._base) is FrozenList


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
