"""How sequences of operations combine: nothing put in is lost, nothing taken out returns, order is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perdure.model import ops as op
from perdure.model.merge import rebase
from perdure.model.ops import Op
from perdure.model.pointer import join
from perdure.model.state import apply
from perdure.model.values import freeze, same

Recipes = list[tuple[int, int, int, int]]
RECIPES = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50)), max_size=7)
LISTY = freeze({"a": ["b0", "b1", "b2"], "o": {"p": "b3", "q": ["b4", {"k": "b5", "m": ["b6"]}, "b7"]}, "s": {}, "c": 0})


def places(node: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every place in a state, containers before what they hold."""
    yield at, node
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(pairs):
        yield from places(value, (*at, str(key)))


def leaves(node: Any) -> list[str]:
    """The text leaves in document order, keys sorted."""
    if isinstance(node, dict):
        return [leaf for key in sorted(node) for leaf in leaves(node[key])]
    if isinstance(node, list):
        return [leaf for value in node for leaf in leaves(value)]
    return [node] if isinstance(node, str) else []


def play(base: Any, recipes: Sequence[tuple[int, int, int, int]], side: str) -> list[Op]:
    """Operations that fit one after another, every value that they put in being theirs alone."""
    made: list[Op] = []
    state = base
    for number, (what, i, j, k) in enumerate(recipes):
        new = f"{side}{number}"
        spots = list(places(state))
        lists = [(at, node) for at, node in spots if isinstance(node, list)]
        dicts = [(at, node) for at, node in spots if isinstance(node, dict)]
        inner = [at for at, _ in spots if at and at != ("c",)]
        at, held = lists[i % len(lists)] if lists else ((), None)
        home, members = dicts[i % len(dicts)]
        key = "kpqnz"[j % 5]
        if what == 0 and inner:
            one = op.set(join(inner[i % len(inner)]), new)
        elif what == 1 and inner:
            one = op.remove(join(inner[i % len(inner)]))
        elif what == 2:
            one = op.set(join((*home, key)), {"k": new, "m": [new + "x"]})
        elif what == 3:
            one = op.init(join((*home, key)), [new])
        elif what == 4:
            one = op.merge(join(home), {key: new, "kpqnz"[k % 5]: None} if k % 5 != j % 5 else {key: {"k": new}})
        elif what == 5:
            one = op.add("/c", j)
        elif held is None:
            one = op.append(join((*home, "fresh")), [new]) if "fresh" not in members else op.add("/c", 1)
        elif what in (6, 7):
            one = op.append(join(at), [new, {"k": new + "x"}])
        elif what == 8:
            one = op.union(join(at), [new, new + "y"])
        elif what == 9 and held:
            one = op.remove(join((*at, str(j % len(held)))))
        else:
            index = j % (len(held) + 1)
            one = op.splice(join(at), index, k % (len(held) - index + 1) % 3, [new] * (what % 2))
        state = apply(state, [one])
        made.append(one)
    return made


@given(RECIPES, RECIPES)
def test_no_put_value_is_lost_and_no_removed_one_returns(left: Recipes, right: Recipes) -> None:
    """Without a clash the state holds exactly what both sides kept and what each put in, each side's in its own order."""
    mine, theirs = play(LISTY, left, "m"), play(LISTY, right, "t")
    rebased = rebase(LISTY, mine, theirs)
    assert same(rebased.state, apply(apply(LISTY, theirs), rebased.ops))
    if rebased.clashes:
        assert rebased.ops == ()
        return
    base, ours, others = (leaves(state) for state in (LISTY, apply(LISTY, mine), apply(LISTY, theirs)))
    kept = [leaf for leaf in base if leaf in ours and leaf in others]
    put = [leaf for leaf in (*ours, *others) if leaf not in base]
    got = leaves(rebased.state)
    assert sorted(got) == sorted([*kept, *put])
    for side in (ours, others):
        assert [leaf for leaf in got if leaf in side] == [leaf for leaf in side if leaf in got]
    assert rebased.state.get("c") == LISTY["c"] + sum(one.value for one in (*mine, *theirs) if one.kind == "add" and one.path == "/c")


@given(RECIPES, RECIPES)
def test_the_order_of_the_sides_decides_order_only(left: Recipes, right: Recipes) -> None:
    """Whoever comes first, the same values survive, and where neither puts elements into a list the very same
    state; only a place between both sides' new elements may be lost to one order and not to the other.
    """
    mine, theirs = play(LISTY, left, "m"), play(LISTY, right, "t")
    one, other = rebase(LISTY, mine, theirs), rebase(LISTY, theirs, mine)
    if not one.clashes and not other.clashes:
        assert sorted(leaves(one.state)) == sorted(leaves(other.state))
    if not any(step.kind in ("append", "union") or (step.kind == "splice" and step.value[2]) for step in (*mine, *theirs)):
        assert bool(one.clashes) == bool(other.clashes)
        assert one.clashes or same(one.state, other.state)
