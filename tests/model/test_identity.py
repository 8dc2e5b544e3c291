"""Elements keep who they are: whatever two writers do to them, none gets another's change, none comes twice, none comes back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import pytest

from perdure.model.merge import rebase
from perdure.model.ops import Op
from perdure.model.state import apply
from perdure.model.tracked import Tracker
from perdure.model.values import freeze, thaw


def thing(number: int, *children: Any) -> dict[str, Any]:
    """An element that says in several places which one it is."""
    return {"id": number, "name": f"n{number}", "rank": number * 7 % 5, "tags": [], "sub": {"of": f"n{number}"}, "children": list(children)}


def document() -> dict[str, Any]:
    return {
        "a": [thing(1), thing(2, thing(3)), thing(4)],
        "b": [thing(5)],
        "d": {"x": thing(6), "y": thing(7)},
        "rows": [[thing(8)], [thing(9)]],
    }


def things(node: Any) -> Iterator[dict[str, Any]]:
    """Every element of a state."""
    if isinstance(node, dict):
        if "id" in node:
            yield node
        for value in node.values():
            yield from things(value)
    elif isinstance(node, list):
        for value in node:
            yield from things(value)


def marks(one: dict[str, Any]) -> set[str]:
    """What both writers wrote into an element itself."""
    return {
        *one["tags"],
        *(str(value) for key, value in one["sub"].items() if key != "of"),
        *(one[key] for key in ("m", "t") if key in one),
    }


def lists(state: Any) -> list[Any]:
    """The lists of elements, nested ones too."""
    return [state["a"], state["b"], *state["rows"], *(one["children"] for one in things(state))]


def slot(state: Any, chance: random.Random) -> tuple[Any, Any] | None:
    """A container and the key or index of an element in it."""
    slots = [(some, place) for some in lists(state) for place in range(len(some))] + [(state["d"], key) for key in state["d"]]
    return chance.choice(slots) if slots else None


def change(state: Any, chance: random.Random, side: str, new: Callable[[], int]) -> None:
    found = slot(state, chance)
    if found is None:
        return
    one = found[0][found[1]]
    mark = f"{side}:{one['name']}:{new()}"
    how = chance.randrange(4)
    if how == 0:
        one[side] = mark
    elif how == 1:
        one["tags"].append(mark)
    elif how == 2:
        one["sub"][mark] = mark
    else:
        one["rank"] = chance.randrange(9)


def put(state: Any, chance: random.Random, side: str, new: Callable[[], int]) -> None:
    some = chance.choice(lists(state))
    some.insert(chance.randint(0, len(some)), thing(new()))


def drop(state: Any, chance: random.Random, side: str, new: Callable[[], int]) -> None:
    found = slot(state, chance)
    if found is None:
        return
    some, place = found
    how = chance.randrange(4)
    if how == 0:
        some.pop(place)
    elif how == 1 and isinstance(some, list):
        some[:] = [one for number, one in enumerate(some) if number != place]
    elif how == 2 and isinstance(some, list):
        del some[place : place + chance.randint(1, 2)]
    else:
        del some[place]


def move(state: Any, chance: random.Random, side: str, new: Callable[[], int]) -> None:
    """Take an element out, perhaps change it, and put it in somewhere that is not inside it."""
    found = slot(state, chance)
    if found is None:
        return
    some, place = found
    if chance.random() < 0.5:
        one = some.pop(place)
    else:
        one = some[place]
        del some[place]
    if chance.random() < 0.3:
        one[side] = f"{side}:{one['name']}:{new()}"
    to = chance.choice([*lists(state), state["d"]])
    if isinstance(to, dict):
        to[f"{side}{new()}"] = one
    elif chance.random() < 0.5:
        to.append(one)
    else:
        to.insert(chance.randint(0, len(to)), one)


def reorder(state: Any, chance: random.Random, side: str, new: Callable[[], int]) -> None:
    some = chance.choice(lists(state) + [state["a"]] * 3)
    size, how = len(some), chance.randrange(9)
    if how == 0:
        some.sort(key=itemgetter("rank"))
    elif how == 1:
        some.reverse()
    elif how == 2:
        some[:] = sorted(some, key=itemgetter("rank"), reverse=True)
    elif how == 3:
        chance.shuffle(some)
    elif how == 4 and size > 1:
        one, other = chance.sample(range(size), 2)
        some[one], some[other] = some[other], some[one]
    elif how == 5 and size:
        turn = chance.randrange(size)
        some[:] = some[turn:] + some[:turn]
    elif how == 6:
        held = sorted(some, key=itemgetter("name"))
        some.clear()
        some.extend(held)
    elif how == 7:
        list.sort(some, key=itemgetter("rank"))  # Behind the calls.
    elif state["d"]:
        keys = list(state["d"])
        one, other = chance.choice(keys), chance.choice(keys)
        state["d"][one], state["d"][other] = state["d"][other], state["d"][one]


def rebuild(state: Any, chance: random.Random, side: str, new: Callable[[], int]) -> None:
    """Put a new list, made of the old one's elements, in its place; some of these are new objects with the old content."""
    key = chance.choice("ab")
    state[key] = sorted([{**one} if chance.random() < 0.3 else one for one in state[key]], key=itemgetter("rank"))


ACTS = [change, change, change, change, put, drop, drop, move, move, reorder, reorder, reorder, rebuild]


def edit(base: Any, seed: int, side: str, first: int) -> tuple[Any, tuple[Op, ...]]:
    """A random edit: the state that it leads to, and its operations."""
    chance, tracker = random.Random(seed), Tracker(base)
    numbers = iter(range(first, first + 10_000))
    for _ in range(chance.randint(1, 6)):
        chance.choice(ACTS)(tracker.root, chance, side, lambda: next(numbers))
    return thaw(tracker.root), tracker.ops()


def check_whole(state: Any, note: object) -> dict[int, dict[str, Any]]:
    """Every element is itself: its parts and the changes in it are its own. Returned by id; none is there twice."""
    found: dict[int, dict[str, Any]] = {}
    for one in things(state):
        assert one["name"] == one["sub"]["of"] == f"n{one['id']}", note
        assert all(mark.split(":")[1] == one["name"] for mark in marks(one)), note
        assert one["id"] not in found, note
        found[one["id"]] = one
    return found


def check_history(base: Any, ops: Sequence[Op], note: object) -> None:
    """At no operation is one element turned into another: what it says it is, it was."""
    for op in ops:
        base = apply(base, [op])
        for one in things(base):
            assert one["name"] == one["sub"]["of"] == f"n{one['id']}", (op, note)
            assert all(mark.split(":")[1] == one["name"] for mark in marks(one)), (op, note)


def check_run(seed: int, base: Any) -> bool:
    """One run: two random edits on one state. Whether they combined."""
    ours, mine = edit(base, seed * 2, "m", 100)
    others, theirs = edit(base, seed * 2 + 1, "t", 20_000)
    note = seed, mine, theirs
    check_history(base, mine, note)
    assert thaw(apply(base, mine)) == ours, note
    rebased = rebase(base, mine, theirs)
    if rebased.clashes:
        return False
    check_history(apply(base, theirs), rebased.ops, note)
    merged = check_whole(rebased.state, note)
    started, left, right = (check_whole(state, note) for state in (base, ours, others))
    for number in {*started, *left, *right}:
        kept = [side[number] for side in (left, right) if number in side]
        assert (number in merged) == (len(kept) == 2 or (len(kept) == 1 and number not in started)), (number, note)
        if number in merged:
            assert marks(merged[number]) == set().union(*map(marks, kept)), (number, note)
    return True


@pytest.mark.long
def test_elements_keep_who_they_are() -> None:
    """Of some thousand random pairs of edits that change, sort, move, insert and remove, none that combines mixes elements up."""
    base = freeze(document())
    assert sum(check_run(seed, base) for seed in range(3_000)) > 600


@pytest.mark.slow("100,000 random pairs of edits")
@pytest.mark.timeout(3_000)
def test_elements_keep_who_they_are_in_many_runs() -> None:
    """The same in 10^5 runs."""
    base = freeze(document())
    assert sum(check_run(seed, base) for seed in range(10_000, 110_000)) > 20_000
