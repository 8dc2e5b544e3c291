"""Rebase: what my operations become after theirs, by operational transformation with the table in `combine.py`.

Every step of mine is taken past every step of theirs that shares its place; past each, both change so that mine after theirs and
theirs after mine lead to the same state (the property TP1 of Ressel, Nitsche-Ruhland and Gunzenhäuser, 1996), theirs having
precedence where both insert. A three-way merge is the same: the base is the fork point, theirs is the target's difference from it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec.structs import replace

from perdure.errors import Invalid
from perdure.model.combine import TABLE, Combine
from perdure.model.ops import Op
from perdure.model.pointer import parse
from perdure.model.relations import relation
from perdure.model.resolve import LISTS, Items, ResolvedOp, emit, resolve_all, walk
from perdure.model.state import Fold, TestFailed, apply
from perdure.model.values import key

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


def transform_theirs(base: Any, mine: Sequence[Op], theirs: Sequence[Op]) -> tuple[Op, ...] | None:
    """What `theirs` become after `mine`, both made on `base`: with `mine` before them they lead to the state that `rebase` gives.

    `None` where the two do not combine. Raises `Invalid` or `TestFailed` if one of them does not fit `base`.
    """
    clashes: dict[str, None] = {}
    steps = resolve_all(base, mine)
    others = resolve_all(base, [op for op in theirs if op.kind != "test"])
    moved = _meet(steps, list(range(len(steps))), others, 0, clashes, loose=False)
    if clashes or any(step.index_unreliable_from is not None for step in moved):
        return None
    fold = Fold(base)
    fold.apply(mine)
    ops: list[Op] = []
    for step in moved:
        if not step.absorbed:
            ops.append(_emit_in_place(fold, step))
            fold.apply(ops[-1:])
    return tuple(ops)


def _emit_in_place(fold: Fold, step: ResolvedOp) -> Op:
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


def _resolve_theirs(base: Any, theirs: Sequence[Op], mine: Sequence[ResolvedOp]) -> list[ResolvedOp]:
    """Their steps, but for those under top-level keys that I did not touch: these are not even applied."""
    touched = {step.at[0] for step in mine if step.at}
    everything = not isinstance(base, dict) or any(not step.at for step in mine) or any(op.path == "" for op in theirs)
    # What they tested was decided when they committed.
    met = [op for op in theirs if op.kind != "test" and (everything or parse(op.path)[0] in touched)]
    return resolve_all(base, met)


def _runs(steps: Sequence[ResolvedOp], *, loose: bool) -> list[ResolvedOp]:
    """The same steps in fewer: appends, unions and sums in a row, at one place, act as one. So what many commits added to one
    list or number costs its length, not their number times mine."""
    runs: list[list[ResolvedOp]] = []
    for step in steps:
        last = runs[-1][-1] if runs else None
        alike = last is not None and step.kind == last.kind and step.at == last.at and step.kind in _RUNS
        if last is not None and alike and (loose or step.kind != "add" or (last.exact and step.exact)):
            runs[-1].append(step)
        else:
            runs.append([step])
    return [run[0] if len(run) == 1 else _joined(run) for run in runs]


def _joined(run: Sequence[ResolvedOp]) -> ResolvedOp:
    first = run[0]
    if first.kind == "add":
        return replace(first, value=sum(step.value for step in run), exact=all(step.exact for step in run))
    items = Items([item for step in run for item in step.items])
    found = sorted({index for step in run for index in step.matched if index < first.index})
    asked = [item for step in run for item in step.value] if first.kind == "union" else None
    return replace(first, value=asked, items=items, matched=tuple(found))


def _meet(
    work: list[ResolvedOp], places: list[int], theirs: list[ResolvedOp], depth: int, clashes: dict[str, None], *, loose: bool
) -> list[ResolvedOp]:
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
    theirs_by_key: dict[str | int, list[ResolvedOp]] = {}
    for step in theirs:
        theirs_by_key.setdefault(step.at[depth], []).append(step)
    for token, some in mine_by_key.items():
        if token in theirs_by_key:
            theirs_by_key[token] = _meet(work, some, theirs_by_key[token], depth + 1, clashes, loose=loose)
    return [step for steps in theirs_by_key.values() for step in steps]


def _pass(work: list[ResolvedOp], places: list[int], theirs: list[ResolvedOp], clashes: dict[str, None]) -> list[ResolvedOp]:
    theirs = list(theirs)
    for place in places:
        mine = work[place]
        for position, other in enumerate(theirs):
            how = relation(mine, other)
            if how == "disjoint":
                continue
            # After a first clash the two sides' places may no longer fit one another: what the table does not know is a clash too.
            if TABLE.get((mine.kind, other.kind, how), Combine.conflict) is Combine.conflict:
                if _both_pop_first(mine, other):
                    _hint_at_trimming()
                clashes[max(mine.path, other.path, key=_depth)] = None
                break
            mine, theirs[position] = _combine(mine, other, how)
        else:
            work[place] = mine
    return theirs


def _both_pop_first(mine: ResolvedOp, theirs: ResolvedOp) -> bool:
    return all(step.kind == "splice" and step.taken and not step.index and not step.items for step in (mine, theirs))


@cache
def _hint_at_trimming() -> None:
    """Once in a process: code that trims a list by pop(0) causes conflicts, and the log may be the only place that shows why."""
    logging.getLogger("perdure").warning(
        "Two writers took the first elements of one list by pop(0), and one of them met a conflict. "
        "If you only trim the list, write `del items[:-50]`: deletions combine."
    )


def _combine(mine: ResolvedOp, theirs: ResolvedOp, how: str) -> tuple[ResolvedOp, ResolvedOp]:
    """Mine as it is after theirs, and theirs as it is after mine. They do not conflict."""
    if mine.at == theirs.at and how in ("equal", "same"):
        kinds = mine.kind, theirs.kind
        if kinds == ("remove", "remove"):
            return replace(mine, absorbed=True), replace(theirs, absorbed=True)
        if kinds == ("splice", "splice"):
            return replace(mine, removed=0, absorbed=True), replace(theirs, removed=0, absorbed=True)
        if kinds == ("add", "add"):
            exact = mine.exact and theirs.exact
            return (mine, theirs) if exact else (replace(mine, exact=False), replace(theirs, exact=False))
        if "init" in kinds:
            return (
                replace(mine, noop=True) if mine.kind == "init" else mine,
                replace(theirs, noop=True) if theirs.kind == "init" else theirs,
            )
    if mine.kind == "union" and theirs.kind in LISTS and mine.at == theirs.at:
        return _dedupe(mine, theirs, how)
    return _shift(mine, theirs, after=True), _shift(theirs, mine, after=False)


def _dedupe(mine: ResolvedOp, theirs: ResolvedOp, how: str) -> tuple[ResolvedOp, ResolvedOp]:
    """A union of mine leaves out what theirs put in."""
    moved = _shift(mine, theirs, after=True)
    if how == "equal":
        shared = min(len(mine.items), len(theirs.items))
        left = replace(moved, items=Items(mine.items[shared:], mine.items))
        # What I put in before is nothing that a later union of mine puts in, so the keys of all of theirs will do.
        return left, replace(theirs, index=theirs.index + len(mine.items), items=Items(theirs.items[shared:], theirs.items))
    known = theirs.items.keys()
    items = Items([item for item in mine.items if key(item) not in known])
    other = _shift(theirs, mine, after=False)
    if len(items) == len(mine.items):
        return moved, other
    # The elements that both added stand where theirs put them, so that my later indices from here on are not to be trusted.
    return replace(moved, items=items), replace(other, index_unreliable_from=mine.index)


def _shift(step: ResolvedOp, by: ResolvedOp, *, after: bool) -> ResolvedOp:
    """The step with its indices as they are after `by`; `after` says whether it comes after elements that are put in at its own place."""
    if by.kind not in LISTS or step.at[: len(by.at)] != by.at:
        return step
    more = len(by.items) - by.removed
    if not more:
        # Nothing after it moves, and nothing meets inside it.
        return step
    end, depth = by.index + by.removed, len(by.at)
    if len(step.at) > depth:
        index = step.at[depth]
        if not isinstance(index, int) or index < end:
            return step
        return replace(step, at=(*step.at[:depth], index + more, *step.at[depth + 1 :]))
    if step.kind not in LISTS:
        return step
    matched = tuple([index + more if index >= end else index for index in step.matched]) if step.matched else ()
    unreliable_from = step.index_unreliable_from
    if unreliable_from is not None and unreliable_from >= end:
        unreliable_from += more
    tie = by.index == step.index and not by.removed and not step.removed
    index = step.index + more if end <= step.index and (after or not tie) else step.index
    return replace(step, index=index, matched=matched, index_unreliable_from=unreliable_from)


def _emit(mine: Sequence[Op], before: Sequence[ResolvedOp], after: Sequence[ResolvedOp]) -> tuple[tuple[Op, ...], ...]:
    """The operations again: mine themselves where nothing moved, else what their steps have become."""
    groups: list[list[tuple[ResolvedOp, ResolvedOp]]] = [[] for _ in mine]
    for old, new in zip(before, after, strict=True):
        groups[new.source].append((old, new))
    return tuple(
        [
            (op,) if all(new is old for old, new in group) else tuple([emit(new) for _, new in group if not new.absorbed])
            for op, group in zip(mine, groups, strict=True)
        ]
    )


def _settle(state: Any, parts: Sequence[Sequence[Op]], steps: Sequence[ResolvedOp], clashes: dict[str, None]) -> Any:
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
