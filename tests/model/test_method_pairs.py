"""Every method of list and dict beside every other, by two writers: nothing is lost, doubled or brought back."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import pytest

from perdure.model.merge import rebase
from perdure.model.ops import Op
from perdure.model.tracked import Tracker
from perdure.model.values import freeze

Act = tuple[str, Callable[[Any, str], object]]


def assign(node: Any, key: Any, value: Any) -> None:
    node[key] = value


def delete(node: Any, key: Any) -> None:
    del node[key]


def swap(node: Any, one: Any, other: Any) -> None:
    node[one], node[other] = node[other], node[one]


def move(state: Any, place: Any, side: str, how: int) -> None:
    """Take one out, by several means, and keep it in a list of one's own."""
    if how == 0:
        state[side].append(state["l"].pop(place))
    elif how == 1:
        held = state["l"][place]
        del state["l"][place]
        state[side].append(held)
    elif how == 2:
        state[side].append(state["l"][place])
        state["l"] = [one for number, one in enumerate(state["l"]) if number != place]
    else:
        state[side].insert(0, {"kept": state["l"][place]})
        state["l"][place : place + 1] = []


def list_acts(size: int) -> Iterator[Act]:
    def listed(name: str, act: Callable[[list[Any], str], object]) -> Act:
        return name, lambda state, side: act(state["l"], side)

    for place in range(size):
        yield listed(f"pop({place})", lambda some, _, place=place: some.pop(place))
        yield listed(f"del [{place}]", lambda some, _, place=place: delete(some, place))
        yield listed(f"remove [{place}]", lambda some, _, place=place: some.remove(some[place]))
        yield listed(f"set [{place}]", lambda some, side, place=place: assign(some, place, f"new {side}"))
        for how in range(4):
            yield f"move {place} in way {how}", lambda state, side, place=place, how=how: move(state, place, side, how)
        for other in range(place):
            yield listed(f"swap {place} {other}", lambda some, _, place=place, other=other: swap(some, place, other))
    for place in range(size + 1):
        yield listed(f"insert {place}", lambda some, side, place=place: some.insert(place, f"new {side}"))
        yield listed(f"turn by {place}", lambda some, _, place=place: assign(some, slice(None), some[place:] + some[:place]))
        yield listed(f"del [{place}:]", lambda some, _, place=place: delete(some, slice(place, None)))
        yield listed(f"del [:{place}]", lambda some, _, place=place: delete(some, slice(None, place)))
    yield listed("append", lambda some, side: some.append(f"new {side}"))
    yield listed("extend", lambda some, side: some.extend([f"new {side}", f"more {side}"]))
    yield listed("clear", lambda some, _: some.clear())
    yield listed("sort", lambda some, _: some.sort(key=repr, reverse=True))
    yield listed("list.sort", lambda some, _: list.sort(some, key=repr, reverse=True))
    yield listed("reverse", lambda some, _: some.reverse())
    yield listed("heap", lambda some, side: [heapq.heapify(some), heapq.heappush(some, f"new {side}")])
    yield listed("every second", lambda some, _: delete(some, slice(None, None, 2)))
    yield listed("last to front", lambda some, _: some.insert(0, some.pop()))
    yield "sorted", lambda state, _: assign(state, "l", sorted(state["l"], key=repr))
    yield "keep first", lambda state, _: assign(state, "l", state["l"][:1])
    yield "rename the list", lambda state, side: assign(state, f"l{side}", state.pop("l"))


def dict_acts() -> Iterator[Act]:
    for key in "xy":
        yield f"pop({key})", lambda state, _, key=key: state["d"].pop(key)
        yield f"pop({key}, None)", lambda state, _, key=key: state["d"].pop(key, None)
        yield f"del {key}", lambda state, _, key=key: delete(state["d"], key)
        yield f"set {key}", lambda state, side, key=key: assign(state["d"], key, f"new {side}")
        yield f"rename {key}", lambda state, side, key=key: assign(state["d"], f"new {side}", state["d"].pop(key))
        yield f"move {key}", lambda state, side, key=key: [state[side].append(state["d"][key]), delete(state["d"], key)]
        yield f"claim {key}", lambda state, side, key=key: [state[side].append(state["d"][key]), assign(state["d"], key, None)]
        yield f"setdefault {key}", lambda state, side, key=key: state["d"].setdefault(key, f"new {side}")
    yield "popitem", lambda state, _: state["d"].popitem()
    yield "setdefault z", lambda state, side: state["d"].setdefault("z", f"new {side}")
    yield "update", lambda state, side: state["d"].update({f"new {side}": f"new {side}"})
    yield "clear", lambda state, _: state["d"].clear()
    yield "swap", lambda state, _: swap(state["d"], "x", "y")
    yield "replace", lambda state, side: assign(state, "d", {"x": state["d"]["y"]})
    yield "put whole", lambda state, side: state[side].append(state.pop("d"))


def values(node: Any) -> Counter[str]:
    """How often each text stands in a state, those inside elements too."""
    if isinstance(node, (dict, list)):
        inner = node.values() if isinstance(node, dict) else node
        return sum(map(values, inner), Counter())
    return Counter([node]) if isinstance(node, str) else Counter()


def edit(base: Any, act: Act, side: str) -> tuple[Counter[str], tuple[Op, ...]]:
    tracker = Tracker(base)
    act[1](tracker.root, side)
    return values(tracker.root), tracker.ops()


def check_pairs(base: Any, acts: list[Act]) -> int:
    """Run every act beside every other; how many combined."""
    base = freeze({**base, "m": [], "t": []})
    before, combined = values(base), 0
    mine, theirs = ({act[0]: edit(base, act, side) for act in acts} for side in "mt")
    for (one, (ours, my_ops)), (other, (others, their_ops)) in ((a, b) for a in mine.items() for b in theirs.items()):
        rebased = rebase(base, my_ops, their_ops)
        if rebased.clashes:
            continue
        combined += 1
        after = values(rebased.state)
        for value in {*before, *ours, *others, *after}:
            left, right = ours[value] - before[value], others[value] - before[value]
            least, most = min(left, 0) + min(right, 0), max(left, 0) + max(right, 0)
            note = f"{one} behind {other}: {value} in {rebased.state} from {my_ops} and {their_ops}"
            assert least <= after[value] - before[value] <= most, note
            assert left >= 0 or right >= 0 or after[value] - before[value] <= min(left, right), note
            assert (left or right) == 0 or not (left and right == 0) or after[value] - before[value] == left, note
            assert not (right and left == 0) or after[value] - before[value] == right, note
    return combined


@pytest.mark.parametrize("elements", [*map(list, permutations("abc")), ["a", "a", "b"], ["b", "a", "b"], ["a", "a"], ["a"]], ids="".join)
def test_methods_of_lists_of_text(elements: list[str]) -> None:
    """Text goes by its value: of what one writer moves and the other leaves alone there is one, and what one removes is gone."""
    assert check_pairs({"l": elements}, list(list_acts(len(elements)))) > 100 * (len(elements) - 1)


@pytest.mark.parametrize("elements", [["a", "b", "c"], ["c", "a", "b"], ["a", "a", "b"]], ids="".join)
@pytest.mark.parametrize("wrap", [lambda value: {"is": value}, lambda value: [value], lambda value: {"in": [{"is": value}]}])
def test_methods_of_lists_of_containers(elements: list[str], wrap: Callable[[str], Any]) -> None:
    """The same for elements that are objects or lists, nested ones, and equal ones."""
    acts = [act for act in list_acts(len(elements)) if act[0] != "heap"]
    assert check_pairs({"l": list(map(wrap, elements))}, acts) > 200


@pytest.mark.parametrize(
    "members", [{"x": "a", "y": "b"}, {"x": "a", "y": "a"}, {"x": {"is": "a"}, "y": {"is": "b"}}, {"x": ["a"], "y": ["a"]}]
)
def test_methods_of_dicts(members: dict[str, Any]) -> None:
    """The same for members of objects: renamed, swapped, claimed, popped and replaced."""
    assert check_pairs({"d": members}, list(dict_acts())) > 100
