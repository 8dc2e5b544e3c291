"""How the targets of two operations on one state lie to each other: the relation under which the table of `combine.py` has its answer."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from perdure.model.resolve import LISTS, ResolvedOp
from perdure.model.values import key, same


def relation(mine: ResolvedOp, theirs: ResolvedOp) -> str:
    """How the targets of two steps on one state lie to each other: a word of `combine.RELATIONS`.

    A test of mine counts as holding as long as its path does; whether it holds is seen on the state that it meets in the end.
    """
    a, b = mine.at, theirs.at
    shared = min(len(a), len(b))
    if a[:shared] != b[:shared]:
        return "disjoint"
    if theirs.kind in LISTS and len(a) > shared:
        return _through(theirs, mine, shared)
    if mine.kind == "test" or theirs.kind == "test":
        return "equal"
    if mine.kind in LISTS and len(b) > shared:
        return _through(mine, theirs, shared)
    if mine.noop or theirs.noop:
        return _kept(mine, theirs)
    if len(a) != len(b):
        return "above" if len(a) < len(b) else "below"
    if mine.kind in LISTS and theirs.kind in LISTS:
        how = _in_list(mine, theirs)
    else:
        how = "equal" if _equal(mine, theirs) else "same"
    return "taken" if how == "equal" and (mine.taken or theirs.taken) else how


def _through(change: ResolvedOp, other: ResolvedOp, depth: int) -> str:
    """Relation of a change of a list to a step whose path leads through one of its elements."""
    index = other.at[depth]
    if not isinstance(index, int):
        return "overlap"
    if change.index <= index < change.index + change.removed or change.is_unreliable(index):
        return "overlap"
    if other.kind == "test" or change.kind != "union":
        return "apart"
    if _between(change.matched, index, index + 1) or (
        len(other.at) == depth + 1 and other.kind in ("set", "init") and key(other.value) in change.items.keys()  # noqa: SIM118 - no dict
    ):
        return "overlap"
    return "adjacent" if change.items.nested() else "apart"


def _kept(mine: ResolvedOp, theirs: ResolvedOp) -> str:
    """An init that found its target has only a removal of that target, or a change above it, to fear."""
    if len(mine.at) == len(theirs.at):
        return "same" if "remove" in (mine.kind, theirs.kind) else "kept"
    upper = mine if len(mine.at) < len(theirs.at) else theirs
    if upper.noop:
        return "kept"
    return "above" if upper is mine else "below"


def _equal(mine: ResolvedOp, theirs: ResolvedOp) -> bool:
    """Whether two steps at one path leave the same there in either order."""
    kinds = {mine.kind, theirs.kind}
    if kinds <= {"set", "init"}:
        return same(mine.value, theirs.value)
    if kinds == {"remove"}:
        return True
    if kinds == {"add"}:
        return mine.exact and theirs.exact
    if "init" in kinds and len(kinds) == 2:
        init, other = (mine, theirs) if mine.kind == "init" else (theirs, mine)
        return (other.kind in ("append", "union") and same(init.value, [])) or (other.exact and same(init.value, 0))
    return False


def _in_list(mine: ResolvedOp, theirs: ResolvedOp) -> str:
    """Relation of two changes of one list."""
    if mine.kind == "splice" and theirs.is_unreliable(mine.index + max(mine.removed - 1, 0)):
        return "overlap"
    for taking, relying in ((mine, theirs), (theirs, mine)):
        if taking.removed and _between(relying.matched, taking.index, taking.index + taking.removed):
            return "overlap"
    if mine.removed and theirs.removed and mine.index < theirs.index + theirs.removed and theirs.index < mine.index + mine.removed:
        alike = (mine.index, mine.removed) == (theirs.index, theirs.removed) and not mine.items and not theirs.items
        return "equal" if alike else "overlap"
    for wide, thin in ((mine, theirs), (theirs, mine)):
        if not thin.removed and wide.index < thin.index < wide.index + wide.removed:
            return "overlap"
    if mine.kind == theirs.kind == "union" and mine.index == theirs.index:
        shorter = min(len(mine.items), len(theirs.items))
        return "equal" if all(map(same, mine.items[:shorter], theirs.items[:shorter])) else "adjacent"
    if not (mine.items or mine.removed) or not (theirs.items or theirs.removed):
        return "apart"
    if mine.index == theirs.index and not mine.removed and not theirs.removed:
        return "adjacent"
    if "union" not in (mine.kind, theirs.kind):
        return "apart"
    fewer, more = (mine, theirs) if len(mine.items) < len(theirs.items) else (theirs, mine)
    return "apart" if more.items.keys().isdisjoint(map(key, fewer.items)) else "adjacent"


def _between(found: Sequence[int], start: int, end: int) -> bool:
    """Whether one of the rising indices lies in a range."""
    place = bisect_left(found, start)
    return place < len(found) and found[place] < end
