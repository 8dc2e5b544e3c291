"""Rebase: what my operations become behind theirs, by operational transformation over the table in `combine.py`.

Every step of mine is taken past every step of theirs that shares its place; past each, both change so that mine behind theirs and
theirs behind mine lead to the same state (the property TP1 of Ressel, Nitsche-Ruhland and Gunzenhäuser, 1996), theirs having
precedence where both insert. A three-way merge is the same: the base is the fork point, theirs is the target's difference from it.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec.structs import replace

from perdure.errors import Invalid
from perdure.model.combine import TABLE, Combine
from perdure.model.ops import Op
from perdure.model.pointer import parse
from perdure.model.state import Fold, TestFailed, apply
from perdure.model.steps import LISTS, Items, Step, emit, resolve_all, walk
from perdure.model.values import key, same

_RUNS = ("append", "union", "add")
_SMALL = 64
"""Pairs of steps up to which sorting them by place costs more than it saves."""


class Rebased(msgspec.Struct, frozen=True):
    """What became of my operations. With clashes nothing survives: `ops` and `parts` are empty and `state` is theirs."""

    ops: tuple[Op, ...]
    """To be applied to the state after theirs."""
    clashes: tuple[str, ...]
    """JSON Pointers on which both sides wrote, as the side that wrote the deeper of the two places spelled it, each once."""
    state: Any
    """The state after theirs and `ops`. It shares structure with the states it came from."""
    parts: tuple[tuple[Op, ...], ...]
    """`ops`, grouped by the operation of mine that each came from: as many groups as I had operations, some perhaps empty."""


def rebase(base: Any, mine: Sequence[Op], theirs: Sequence[Op], current: Any = None) -> Rebased:
    """Carry `mine`, made on `base`, over `theirs`, made on `base` too and committed first.

    `current` is the state after theirs, for a caller who has it. Nothing given is changed. What does not combine is a clash, never an
    error, and so is a guard of mine that no longer holds. Raises `Invalid` only if `theirs` does not fit `base`.
    Cost: the pairs of operations that share a place, and one application of each side.
    """
    if current is None:
        current = apply(base, theirs)
    clashes: dict[str, None] = {}
    try:
        steps = resolve_all(base, mine)
    except (Invalid, TestFailed):
        return Rebased((), _misfits(base, mine), current, ())
    moved = list(steps)
    if theirs:
        _meet(moved, list(range(len(steps))), _resolve_theirs(base, theirs, steps), 0, clashes, loose=True)
    if clashes:
        return Rebased((), _topmost(clashes), current, ())
    parts = _emit(mine, steps, moved)
    state = _settle(current, parts, moved, clashes)
    if clashes:
        return Rebased((), _topmost(clashes), current, ())
    return Rebased(tuple([op for part in parts for op in part]), (), state, parts)


def behind(base: Any, mine: Sequence[Op], theirs: Sequence[Op]) -> tuple[Op, ...] | None:
    """What `theirs` become after `mine`, both made on `base`: with `mine` before them they lead to the state that `rebase` gives.

    `None` where the two do not combine. Raises `Invalid` or `TestFailed` if one of them does not fit `base`.
    """
    clashes: dict[str, None] = {}
    steps = resolve_all(base, mine)
    others = resolve_all(base, [op for op in theirs if op.kind != "test"])
    moved = _meet(steps, list(range(len(steps))), others, 0, clashes, loose=False)
    if clashes or any(step.blur is not None for step in moved):
        return None
    fold = Fold(base)
    fold.apply(mine)
    ops: list[Op] = []
    for step in moved:
        if not step.spent:
            ops.append(_emit_in_place(fold, step))
            fold.apply(ops[-1:])
    return tuple(ops)


def _emit_in_place(fold: Fold, step: Step) -> Op:
    """The operation of a step, as a splice where it stood at the end of a list and no longer does."""
    if step.kind in ("append", "union"):
        target = walk(fold.peek(), [str(token) for token in step.at])[2]
        if isinstance(target, list) and step.index < len(target):
            return emit(replace(step, kind="splice"))
    return emit(step)


def _misfits(base: Any, mine: Sequence[Op]) -> tuple[str, ...]:
    """The paths of those of my operations that do not fit where I made them: nothing can be said of what they become."""
    paths: dict[str, None] = {}
    for op in mine:
        try:
            base = apply(base, (op,))
        except (Invalid, TestFailed):
            paths[op.path] = None
    return _topmost(paths)


def _resolve_theirs(base: Any, theirs: Sequence[Op], mine: Sequence[Step]) -> list[Step]:
    """Their steps, but for those under top-level keys that I did not touch: these are not even applied."""
    touched = {step.at[0] for step in mine if step.at}
    everything = not isinstance(base, dict) or any(not step.at for step in mine) or any(op.path == "" for op in theirs)
    # What they tested was decided when they committed.
    met = [op for op in theirs if op.kind != "test" and (everything or parse(op.path)[0] in touched)]
    return resolve_all(base, met)


def _runs(steps: Sequence[Step], *, loose: bool) -> list[Step]:
    """The same steps in fewer: appends, unions and sums in a row, at one place, act as one. So what many commits added to one
    list or number costs its length, not their number times mine."""
    runs: list[list[Step]] = []
    for step in steps:
        last = runs[-1][-1] if runs else None
        alike = last is not None and step.kind == last.kind and step.at == last.at and step.kind in _RUNS
        if last is not None and alike and (loose or step.kind != "add" or (last.exact and step.exact)):
            runs[-1].append(step)
        else:
            runs.append([step])
    return [run[0] if len(run) == 1 else _joined(run) for run in runs]


def _joined(run: Sequence[Step]) -> Step:
    first = run[0]
    if first.kind == "add":
        return replace(first, value=sum(step.value for step in run), exact=all(step.exact for step in run))
    items = Items([item for step in run for item in step.items])
    found = sorted({index for step in run for index in step.found if index < first.index})
    asked = [item for step in run for item in step.value] if first.kind == "union" else None
    return replace(first, value=asked, items=items, found=tuple(found))


def _meet(work: list[Step], places: list[int], theirs: list[Step], depth: int, clashes: dict[str, None], *, loose: bool) -> list[Step]:
    """Take the steps of mine at `places` past theirs, in `work`; all of them agree in their first `depth` tokens.

    What theirs become after mine; with `loose` that is of no concern, and sums of floats may act as one.
    """
    if not places or not theirs:
        return theirs
    steps = [*(work[place] for place in places), *theirs]
    if len(places) * len(theirs) <= _SMALL or not all(len(step.at) > depth for step in steps):
        return _pass(work, places, theirs if len(theirs) == 1 else _runs(theirs, loose=loose), clashes)
    # Below one container that nobody replaces, and in which no index moves, steps under different keys never meet.
    mine_by_key: dict[str | int, list[int]] = {}
    for place in places:
        mine_by_key.setdefault(work[place].at[depth], []).append(place)
    theirs_by_key: dict[str | int, list[Step]] = {}
    for step in theirs:
        theirs_by_key.setdefault(step.at[depth], []).append(step)
    for token, some in mine_by_key.items():
        if token in theirs_by_key:
            theirs_by_key[token] = _meet(work, some, theirs_by_key[token], depth + 1, clashes, loose=loose)
    return [step for steps in theirs_by_key.values() for step in steps]


def _pass(work: list[Step], places: list[int], theirs: list[Step], clashes: dict[str, None]) -> list[Step]:
    theirs = list(theirs)
    for place in places:
        mine = work[place]
        for position, other in enumerate(theirs):
            how = relation(mine, other)
            if how == "disjoint":
                continue
            # Behind a first clash the two sides' places may no longer fit one another: what the table does not know is a clash too.
            if TABLE.get((mine.kind, other.kind, how), Combine.conflict) is Combine.conflict:
                if _both_pop_first(mine, other):
                    _hint_at_trimming()
                clashes[max(mine.path, other.path, key=_depth)] = None
                break
            mine, theirs[position] = _combine(mine, other, how)
        else:
            work[place] = mine
    return theirs


def _both_pop_first(mine: Step, theirs: Step) -> bool:
    return all(step.kind == "splice" and step.taken and not step.index and not step.items for step in (mine, theirs))


@cache
def _hint_at_trimming() -> None:
    """Once in a process: who trims a list by pop(0) meets conflicts, and a log may be the only place where that is seen."""
    logging.getLogger("perdure").warning(
        "Two writers took the first elements of one list by pop(0), and one of them met a conflict. "
        "If you only trim the list, write `del items[:-50]`: deletions combine."
    )


def relation(mine: Step, theirs: Step) -> str:
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
    if mine.kept or theirs.kept:
        return _kept(mine, theirs)
    if len(a) != len(b):
        return "above" if len(a) < len(b) else "below"
    if mine.kind in LISTS and theirs.kind in LISTS:
        how = _in_list(mine, theirs)
    else:
        how = "equal" if _equal(mine, theirs) else "same"
    return "taken" if how == "equal" and (mine.taken or theirs.taken) else how


def _through(change: Step, other: Step, depth: int) -> str:
    """Relation of a change of a list to a step whose path leads through one of its elements."""
    index = other.at[depth]
    if not isinstance(index, int):
        return "overlap"
    if change.index <= index < change.index + change.out or (change.blur is not None and index >= change.blur):
        return "overlap"
    if other.kind == "test" or change.kind != "union":
        return "apart"
    if _between(change.found, index, index + 1) or (
        len(other.at) == depth + 1 and other.kind in ("set", "init") and key(other.value) in change.items.keys()  # noqa: SIM118 - no dict
    ):
        return "overlap"
    return "together" if change.items.nested() else "apart"


def _kept(mine: Step, theirs: Step) -> str:
    """An init that found its target has only a removal of that target, or a change above it, to fear."""
    if len(mine.at) == len(theirs.at):
        return "same" if "remove" in (mine.kind, theirs.kind) else "kept"
    upper = mine if len(mine.at) < len(theirs.at) else theirs
    if upper.kept:
        return "kept"
    return "above" if upper is mine else "below"


def _equal(mine: Step, theirs: Step) -> bool:
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


def _in_list(mine: Step, theirs: Step) -> str:
    """Relation of two changes of one list."""
    if theirs.blur is not None and (mine.index + mine.out > theirs.blur or mine.index >= theirs.blur) and mine.kind == "splice":
        return "overlap"
    for taking, relying in ((mine, theirs), (theirs, mine)):
        if taking.out and _between(relying.found, taking.index, taking.index + taking.out):
            return "overlap"
    if mine.out and theirs.out and mine.index < theirs.index + theirs.out and theirs.index < mine.index + mine.out:
        alike = (mine.index, mine.out) == (theirs.index, theirs.out) and not mine.items and not theirs.items
        return "equal" if alike else "overlap"
    for wide, thin in ((mine, theirs), (theirs, mine)):
        if not thin.out and wide.index < thin.index < wide.index + wide.out:
            return "overlap"
    if mine.kind == theirs.kind == "union" and mine.index == theirs.index:
        shorter = min(len(mine.items), len(theirs.items))
        return "equal" if all(map(same, mine.items[:shorter], theirs.items[:shorter])) else "together"
    if not (mine.items or mine.out) or not (theirs.items or theirs.out):
        return "apart"
    if mine.index == theirs.index and not mine.out and not theirs.out:
        return "together"
    if "union" not in (mine.kind, theirs.kind):
        return "apart"
    fewer, more = (mine, theirs) if len(mine.items) < len(theirs.items) else (theirs, mine)
    return "apart" if more.items.keys().isdisjoint(map(key, fewer.items)) else "together"


def _between(found: Sequence[int], start: int, end: int) -> bool:
    """Whether one of the rising indices lies in a range."""
    place = bisect_left(found, start)
    return place < len(found) and found[place] < end


def _combine(mine: Step, theirs: Step, how: str) -> tuple[Step, Step]:
    """Mine as it is behind theirs, and theirs as it is behind mine. They do not conflict."""
    if mine.at == theirs.at and how in ("equal", "same"):
        kinds = mine.kind, theirs.kind
        if kinds == ("remove", "remove"):
            return replace(mine, spent=True), replace(theirs, spent=True)
        if kinds == ("splice", "splice"):
            return replace(mine, out=0, spent=True), replace(theirs, out=0, spent=True)
        if kinds == ("add", "add"):
            exact = mine.exact and theirs.exact
            return (mine, theirs) if exact else (replace(mine, exact=False), replace(theirs, exact=False))
        if "init" in kinds:
            return (
                replace(mine, kept=True) if mine.kind == "init" else mine,
                replace(theirs, kept=True) if theirs.kind == "init" else theirs,
            )
    if mine.kind == "union" and theirs.kind in LISTS and mine.at == theirs.at:
        return _dedupe(mine, theirs, how)
    return _shift(mine, theirs, behind=True), _shift(theirs, mine, behind=False)


def _dedupe(mine: Step, theirs: Step, how: str) -> tuple[Step, Step]:
    """A union of mine leaves out what theirs put in."""
    moved = _shift(mine, theirs, behind=True)
    if how == "equal":
        shared = min(len(mine.items), len(theirs.items))
        left = replace(moved, items=Items(mine.items[shared:], mine.items))
        # What I put in before is nothing that a later union of mine puts in, so the keys of all of theirs will do.
        return left, replace(theirs, index=theirs.index + len(mine.items), items=Items(theirs.items[shared:], theirs.items))
    known = theirs.items.keys()
    items = Items([item for item in mine.items if key(item) not in known])
    other = _shift(theirs, mine, behind=False)
    if len(items) == len(mine.items):
        return moved, other
    # The elements that both added stand where theirs put them, so that my later indices from here on are not to be trusted.
    return replace(moved, items=items), replace(other, blur=mine.index)


def _shift(step: Step, by: Step, *, behind: bool) -> Step:
    """The step with its indices as they are after `by`; `behind` says on which side of elements put in at its own place it stays."""
    if by.kind not in LISTS or step.at[: len(by.at)] != by.at:
        return step
    more = len(by.items) - by.out
    if not more:
        # Nothing behind it moves, and nothing meets inside it.
        return step
    end, depth = by.index + by.out, len(by.at)
    if len(step.at) > depth:
        index = step.at[depth]
        if not isinstance(index, int) or index < end:
            return step
        return replace(step, at=(*step.at[:depth], index + more, *step.at[depth + 1 :]))
    if step.kind not in LISTS:
        return step
    found = tuple([index + more if index >= end else index for index in step.found]) if step.found else ()
    blur = step.blur + more if step.blur is not None and step.blur >= end else step.blur
    tie = by.index == step.index and not by.out and not step.out
    index = step.index + more if end <= step.index and (behind or not tie) else step.index
    return replace(step, index=index, found=found, blur=blur)


def _emit(mine: Sequence[Op], before: Sequence[Step], after: Sequence[Step]) -> tuple[tuple[Op, ...], ...]:
    """The operations again: mine themselves where nothing moved, else what their steps have become."""
    groups: list[list[tuple[Step, Step]]] = [[] for _ in mine]
    for old, new in zip(before, after, strict=True):
        groups[new.source].append((old, new))
    return tuple(
        [
            (op,) if all(new is old for old, new in group) else tuple([emit(new) for _, new in group if not new.spent])
            for op, group in zip(mine, groups, strict=True)
        ]
    )


def _settle(state: Any, parts: Sequence[Sequence[Op]], steps: Sequence[Step], clashes: dict[str, None]) -> Any:
    """Apply what mine became. What does not fit, a guard that fails and a union that finds other elements than expected are clashes."""
    grows = {step.source: len(step.items) for step in steps if step.kind == "union"}
    fold = Fold(state)
    for source, part in enumerate(parts):
        for op in part:
            size = _length(fold.peek(), op) if op.kind == "union" else 0
            try:
                fold.apply((op,))
            except TestFailed:
                clashes[op.path] = None
                continue
            except Invalid:
                clashes[op.path] = None
                return fold.state
            if op.kind == "union" and _length(fold.peek(), op) - size != grows[source]:
                clashes[op.path] = None
    return fold.state


def _topmost(clashes: dict[str, None]) -> tuple[str, ...]:
    """The clashes without those under another one: what was built on a lost container is lost with it."""
    if "" in clashes:
        return ("",)
    return tuple([path for path in clashes if not any(path[:end] in clashes for end, char in enumerate(path) if char == "/")])


def _depth(path: str) -> int:
    return path.count("/")


def _length(state: Any, op: Op) -> int:
    target = walk(state, parse(op.path))[2]
    return len(target) if isinstance(target, list) else 0
