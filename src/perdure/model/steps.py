"""Operations as they act: resolved against the state they were made on, where a path's token is known to be a key or an index.

`resolve` turns an operation into steps, `emit` turns a step back. In between `merge.py` shifts their indices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from perdure.model.ops import Op
from perdure.model.pointer import is_index, join, parse
from perdure.model.state import MISSING, apply
from perdure.model.values import same, thaw

Tokens = tuple[str | int, ...]
LISTS = frozenset({"append", "splice", "union"})
"""Kinds of steps that take elements out of a list or put elements in, at an index."""


class Step(msgspec.Struct, frozen=True):
    """One change at one place, or a test. For the kinds in `LISTS`, `at` is the list; else it is the target itself."""

    kind: str
    at: Tokens
    path: str
    """The place as the operation spelled it: the name under which a clash is reported."""
    source: int
    """Which operation of its side it came from."""
    value: Any = None
    """What is put, added or tested; for `union` everything that was asked for."""
    index: int = 0
    out: int = 0
    items: Sequence[Any] = ()
    """What goes into the list at `index`; for `union` only what was not there."""
    found: tuple[int, ...] = ()
    """Indices of the elements that made a union leave something out."""
    kept: bool = False
    """An init whose target was there."""
    exact: bool = False
    """An add of integers."""
    spent: bool = False
    """Theirs did the same already: it still counts in comparisons, and is not emitted."""
    single: bool = False
    """A splice that was written as the removal of one element."""
    blur: int | None = None
    """From this index of the list on, the other side's own indices no longer name what it meant."""


def walk(state: Any, tokens: Sequence[str]) -> tuple[Tokens, Any, Any]:
    """The tokens as keys and indices, the parent (or `MISSING`) and the target (or `MISSING`)."""
    typed: list[str | int] = []
    parent: Any = MISSING
    node = state
    for token in tokens:
        parent = node
        if isinstance(node, dict):
            typed.append(token)
            node = node.get(token, MISSING)
        elif isinstance(node, list) and is_index(token):
            index = int(token)
            typed.append(index)
            node = node[index] if index < len(node) else MISSING
        else:
            typed.append(token)
            node = MISSING
    return tuple(typed), parent, node


def resolve_all(base: Any, ops: Sequence[Op]) -> list[Step]:
    """What operations that follow one another on `base` did. Raises `Invalid` or `TestFailed` if one of them does not fit."""
    steps: list[Step] = []
    waiting: list[Op] = []
    for source, op in enumerate(ops):
        seen = _at_sight(op, source, ops[source - 1] if source else None, steps[-1] if steps else None)
        if seen is not None:
            # Applied later, many at once: each application copies the containers on its path.
            steps.append(seen)
            waiting.append(op)
            continue
        if waiting:
            base = apply(base, waiting)
            waiting.clear()
        after = apply(base, (op,))
        steps += resolve(op, base, after, source)
        base = after
    if waiting:
        apply(base, waiting)
    return steps


def _at_sight(op: Op, source: int, previous: Op | None, last: Step | None) -> Step | None:
    """The step of an operation that is understood without the state: keys only, or an append right behind one to the same list."""
    if op.kind == "append":
        if previous is None or last is None or previous.kind != "append" or previous.path != op.path or op.path.endswith("/-"):
            return None
        return Step("append", last.at, op.path, source, index=last.index + len(last.items), items=op.value)
    if op.kind not in ("set", "remove"):
        return None
    tokens = parse(op.path)
    if any(token == "-" or is_index(token) for token in tokens):
        return None
    return Step(op.kind, tokens, op.path, source, op.value)


def resolve(op: Op, before: Any, after: Any, source: int) -> list[Step]:
    """What `op`, which led from `before` to `after`, did: one step, or for `merge` one for each leaf."""
    tokens = parse(op.path)
    at, parent, target = walk(before, tokens)
    kind, value, path = op.kind, op.value, op.path
    if kind == "test":
        return [Step("test", at, path, source, value)]
    if isinstance(parent, list) and target is MISSING:
        _, grown, _ = walk(after, tokens)
        items = thaw(grown[len(parent) :])
        return [Step("append", at[:-1], path, source, index=len(parent), items=items)] if items else []
    if kind == "remove" and isinstance(parent, list):
        return [Step("splice", at[:-1], path, source, index=int(at[-1]), out=1, single=True)]
    if kind == "splice":
        index, out, items = value
        return [Step("splice", at, path, source, index=index, out=min(out, len(target) - index), items=items)]
    if kind == "append":
        return [Step("append", at, path, source, index=0 if target is MISSING else len(target), items=value)]
    if kind == "union":
        held = [] if target is MISSING else target
        items = walk(after, tokens)[2][len(held) :]
        found = () if len(items) == len(value) else tuple([i for i, old in enumerate(held) if holds(value, old)])
        return [Step("union", at, path, source, value, index=len(held), items=items, found=found)]
    if kind == "add":
        return [Step("add", at, path, source, value, exact=type(value) is int and (target is MISSING or type(target) is int))]
    if kind == "init":
        return [Step("init", at, path, source, value, kept=target is not MISSING)]
    if kind == "merge":
        return list(_leaves(at, target, value, source))
    return [Step(kind, at, path, source, value)]


def _leaves(at: Tokens, target: Any, patch: dict[str, Any], source: int) -> Iterator[Step]:
    """RFC 7396 as steps. A missing object is an init, so that two merges that both start it combine by their leaves."""
    path = spell(at)
    if target is MISSING:
        yield Step("init", at, path, source, {})
    elif not isinstance(target, dict):
        yield Step("set", at, path, source, _stripped(patch))
        return
    elif not patch:
        yield Step("init", at, path, source, {}, kept=True)
    for key, value in patch.items():
        held = MISSING if target is MISSING else target.get(key, MISSING)
        leaf = (*at, key)
        if value is None:
            # What was absent is to stay absent: compared with what theirs put there, though there is nothing to take away.
            yield Step("remove", leaf, spell(leaf), source, spent=held is MISSING)
        elif isinstance(value, dict):
            yield from _leaves(leaf, held, value, source)
        else:
            yield Step("set", leaf, spell(leaf), source, value)


def _stripped(patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    return {key: _stripped(value) for key, value in patch.items() if value is not None}


def emit(step: Step) -> Op:
    """The operation that a step stands for, at its present place."""
    path = spell(step.at)
    if step.kind == "splice":
        if step.single:
            return Op("remove", f"{path}/{step.index}")
        return Op("splice", path, [step.index, step.out, list(step.items)])
    if step.kind == "append":
        return Op("append", path, list(step.items))
    return Op(step.kind, path, step.value)


def spell(at: Tokens) -> str:
    """The tokens as a JSON Pointer."""
    return join([str(token) for token in at])


def holds(items: Sequence[Any], value: Any) -> bool:
    """Whether an equal value is among the items."""
    return any(same(item, value) for item in items)
