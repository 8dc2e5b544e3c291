"""What an operation costs, in steps and not in seconds: near its size, however many there are and whatever was there before."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from perdure.model import ops as op
from perdure.model.merge import rebase
from perdure.model.state import apply
from perdure.model.tracked import Tracker
from perdure.model.values import freeze, same

SMALL, LARGE = 200, 1600


def steps(act: Callable[[], object]) -> int:
    """How many functions are entered while `act` runs, of Python and of C."""
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        act()
    finally:
        sys.setprofile(before)
    return count


def lines(act: Callable[[], object]) -> int:
    """How many lines of Python are run while `act` runs. What C does for them in one call does not count."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


def objects(start: int, end: int) -> list[Any]:
    return [{"id": number, "tags": ["x"]} for number in range(start, end)]


def fold_union(size: int) -> Callable[[], object]:
    base = freeze({"l": objects(0, size)})
    return lambda: apply(base, [op.union("/l", objects(size // 2, 2 * size))])


def fold_unions(size: int) -> Callable[[], object]:
    base = freeze({"l": objects(0, size)})
    return lambda: apply(base, [op.union("/l", [one]) for one in objects(size // 2, 2 * size)])


def drafted(act: Callable[[Tracker, int], object], size: int) -> Callable[[], object]:
    base = freeze({"n": 0, "l": objects(0, size), "m": [], "wide": {str(number): number for number in range(size)}})

    def run() -> None:
        tracker = Tracker(base)
        for number in range(size):
            act(tracker, number)
        tracker.ops()

    return run


def rebased(make: Callable[[int, str], list[op.Op]], size: int) -> Callable[[], object]:
    base = freeze({"n": 0, "f": 0.5, "l": objects(0, size), "m": [], "d": {}})
    mine, theirs = make(size, "m"), make(size, "t")

    def run() -> None:
        assert not rebase(base, mine, theirs).clashes

    return run


def unions(size: int, side: str) -> list[op.Op]:
    start = size if side == "m" else size + size // 2
    return [op.union("/l", [one]) for one in objects(start, start + size)]


def sums(path: str, number: float) -> Callable[[int, str], list[op.Op]]:
    return lambda size, side: [op.add(path, number)] * size


CASES: dict[str, Callable[[int], Callable[[], object]]] = {
    "fold one union": fold_union,
    "fold many unions": fold_unions,
    "draft one union": lambda size: drafted(lambda t, n: None if n else t.do(op.union("/l", objects(0, 2 * size))), size),
    "draft many unions": lambda size: drafted(lambda t, n: t.do(op.union("/m", objects(n, n + 1))), size),
    "draft many adds": lambda size: drafted(lambda t, n: t.do(op.add("/n", 1)), size),
    "draft many adds in a wide object": lambda size: drafted(lambda t, n: t.do(op.add("/wide/0", 1)), size),
    "draft many appends": lambda size: drafted(lambda t, n: t.do(op.append("/m", [n])), size),
    "append": lambda size: drafted(lambda t, n: t.root["m"].append({"n": n}), size),
    "insert": lambda size: drafted(lambda t, n: t.root["l"].insert(0, n), size),
    "pop": lambda size: drafted(lambda t, n: t.root["l"].pop(0), size),
    "move": lambda size: drafted(lambda t, n: t.root["m"].append(t.root["l"].pop()), size),
    "delete": lambda size: drafted(lambda t, n: t.root["l"].__delitem__(0), size),
    "count": lambda size: drafted(lambda t, n: t.root.__setitem__("n", t.root["n"] + 1), size),
    "change every element": lambda size: drafted(lambda t, n: t.root["l"][n].__setitem__("seen", True), size),
    "sort": lambda size: drafted(lambda t, n: None if n else t.root["l"].sort(key=lambda one: one["id"] * 7919 % 1009), size),
    "rebase one union": lambda size: rebased(lambda size, side: [op.union("/l", objects(size // 2, 2 * size + (side == "m")))], size),
    "rebase many unions": lambda size: rebased(unions, size),
    "rebase the same unions": lambda size: rebased(lambda size, side: unions(size, "m"), size),
    "rebase unions that find all": lambda size: rebased(lambda size, side: [op.union("/l", [one]) for one in objects(0, size)], size),
    "rebase sums": lambda size: rebased(sums("/n", 1), size),
    "rebase sums of floats": lambda size: rebased(sums("/f", 0.5), size),
    "rebase appends": lambda size: rebased(lambda size, side: [op.append("/m", [side])] * size, size),
    "rebase appends and sums": lambda size: rebased(lambda size, side: [op.append("/m", [side]), op.add("/n", 1)] * (size // 2), size),
    "rebase changes of members": lambda size: rebased(lambda size, side: [op.set(f"/d/{side}{n}", n) for n in range(size)], size),
    "rebase changes of elements": lambda size: rebased(lambda size, side: [op.set(f"/l/{n}/{side}", n) for n in range(size)], size),
}


@pytest.mark.parametrize("name", CASES)
def test_eight_times_as_much_costs_about_eight_times_as_many_steps(name: str) -> None:
    """The steps grow with the size, not with its square: at eight times the size they are at most twelve times as many."""
    make = CASES[name]
    small, large = steps(make(SMALL)), steps(make(LARGE))
    assert large < small * 12 * LARGE / SMALL / 8, (small, large)


WIDE: dict[str, Callable[[Any], object]] = {
    "append": lambda state: state["l"].append({"n": 1}),
    "set": lambda state: state["l"].__setitem__(7, {"n": 1}),
    "set a number": lambda state: state["l"].__setitem__(7, 1),
    "insert": lambda state: state["l"].insert(7, {"n": 1}),
    "delete": lambda state: state["l"].__delitem__(7),
    "pop": lambda state: state["l"].pop(),
    "remove": lambda state: state["l"].remove({"id": 19, "tags": ["x"]}),
    "change inside": lambda state: state["l"][7].__setitem__("n", 1),
    "dict: insert": lambda state: state["d"].__setitem__("new", {"n": 1}),
    "dict: set": lambda state: state["d"].__setitem__("7", {"n": 1}),
    "dict: set twice": lambda state: [state["d"].__setitem__(name, 1) for name in ("new", "7", "newer", "new")],
    "dict: delete": lambda state: state["d"].__delitem__("7"),
    "dict: pop": lambda state: state["d"].pop("7"),
    "dict: change inside": lambda state: state["d"]["7"].__setitem__("n", 1),
    "nothing": lambda state: state["l"].append(state["l"].pop()),
}


@pytest.mark.parametrize("name", WIDE)
def test_an_edit_costs_the_change_and_not_the_width(name: str) -> None:
    """In 10,000 members an edit runs at most half as many lines more than in 20: what is frozen already is neither checked nor compared
    one by one, in Python."""

    def edit(width: int) -> int:
        base = freeze({"l": objects(0, width), "d": {str(number): one for number, one in enumerate(objects(0, width))}})
        trackers: list[Tracker] = []

        def run() -> None:
            trackers.append(Tracker(base))
            WIDE[name](trackers[0].root)
            trackers[0].ops()

        count = lines(run)
        assert same(trackers[0].after, apply(base, trackers[0].ops()))
        return count

    narrow, wide = edit(20), edit(10_000)
    assert wide <= 1.5 * narrow, (narrow, wide)


def test_keys_decide_as_equality_does() -> None:
    """A union by keys finds what typed equality finds: a boolean is no number, 1 is not 1.0, zero has two signs, objects have no order."""
    values: list[Any] = [1, 1.0, True, 0, 0.0, -0.0, False, None, "", "1", 10**30, 1e30, [], {}, [1], [1.0], {"a": 1, "b": [True]}]
    values += [{"b": [True], "a": 1}, {"a": 1, "b": [1]}, 10**30, -(10**30), 1 << 60, float(1 << 60), "1", [True], [[]], [{}]]
    for held in ([], values[::3], values * 3):
        expected = list(held)
        for one in values:
            if not any(same(one, other) for other in expected):
                expected.append(one)
        base = freeze({"u": held})
        tracker = Tracker(base)
        for one in values:
            tracker.do(op.union("/u", [one]))
        at_once = apply(base, [op.union("/u", values)])["u"]
        one_by_one = apply(base, [op.union("/u", [one]) for one in values])["u"]
        assert repr(at_once) == repr(one_by_one) == repr(tracker.root["u"]) == repr(expected)
