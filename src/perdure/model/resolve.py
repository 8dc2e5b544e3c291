"""Operations as they act: resolved against the state they were made on, where a path's token is known to be a key or an index.

`resolve` turns an operation into resolved ones, called steps here, and `emit` turns a step into an operation. Between the two, `merge.py`
shifts their indices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from perdure.model.ops import Op, TakingOp
from perdure.model.pointer import is_index, join, parse
from perdure.model.state import MISSING, Fold
from perdure.model.values import CONTAINERS, key, thaw

Tokens = tuple[str | int, ...]
LISTS = frozenset({"append", "splice", "union"})
"""Kinds of steps that take elements out of a list or put elements in, at an index."""


class Items(list[Any]):
    """What goes into a list, which nobody changes: so what it holds is worked out once."""

    __slots__ = ("_keys", "_nested")

    def __init__(self, items: Iterable[Any] = (), known: Items | None = None) -> None:
        """`known` holds all of these and more: its keys serve where what is more is never asked for."""
        super().__init__(items)
        self._keys: AbstractSet[object] | None = None if known is None else known.keys()
        self._nested: bool | None = None

    def keys(self) -> AbstractSet[object]:
        """The values, by `values.key`."""
        if self._keys is None:
            self._keys = frozenset(map(key, self))
        return self._keys

    def nested(self) -> bool:
        """Whether one of them is a container."""
        if self._nested is None:
            self._nested = any(isinstance(item, CONTAINERS) for item in self)
        return self._nested


NO_ITEMS = Items()


class ResolvedOp(msgspec.Struct, frozen=True):
    """One change at one place, or a test. For the kinds in `LISTS`, `at` is the list; else it is the target itself."""

    kind: str
    at: Tokens
    path: str
    """The path as the operation wrote it. A clash is reported under this name."""
    source: int
    """Which operation of its side it came from."""
    value: Any = None
    """What is put, added or tested; for `union` everything that was asked for."""
    index: int = 0
    removed: int = 0
    items: Items = NO_ITEMS
    """What goes into the list at `index`; for `union` only what was not there."""
    matched: tuple[int, ...] = ()
    """Indices, rising, of the elements that made a union leave something out."""
    noop: bool = False
    """An init whose target was there."""
    exact: bool = False
    """An add of integers."""
    absorbed: bool = False
    """Theirs did the same already: it still counts in comparisons, and is not emitted."""
    single: bool = False
    """A splice that was written as the removal of one element."""
    taken: bool = False
    """What it takes out is kept by its side."""
    index_unreliable_from: int | None = None
    """From this index of the list on, the other side's own indices no longer name what it meant."""

    def is_unreliable(self, index: int) -> bool:
        """Whether the other side's index no longer names what it meant."""
        return self.index_unreliable_from is not None and index >= self.index_unreliable_from


def walk(state: Any, tokens: Sequence[str]) -> tuple[Tokens, Any, Any]:
    """The tokens as keys and indices, the parent (or `MISSING`) and the target (or `MISSING`)."""
    typed: list[str | int] = []
    parent: Any = MISSING
    node = state
    for token in tokens:
        parent = node
        if isinstance(node, dict):
            typed.append(token)
            node = dict.get(node, token, MISSING)
        elif isinstance(node, list) and is_index(token):
            index = int(token)
            typed.append(index)
            node = node[index] if index < len(node) else MISSING
        else:
            typed.append(token)
            node = MISSING
    return tuple(typed), parent, node


def resolve_all(base: Any, ops: Sequence[Op]) -> list[ResolvedOp]:
    """What operations that follow one another on `base` did. Raises `Invalid` or `TestFailed` if one of them does not fit."""
    steps: list[ResolvedOp] = []
    fold = Fold(base)
    for source, op in enumerate(ops):
        seen = _at_sight(op, source, ops[source - 1] if source else None, steps[-1] if steps else None)
        if seen is not None:
            steps.append(seen)
            fold.apply((op,))
        else:
            steps += resolve(op, fold, source)
    return steps


def _at_sight(op: Op, source: int, previous: Op | None, last: ResolvedOp | None) -> ResolvedOp | None:
    """The step of an operation that is understood without the state: keys only, or an append right after one to the same list."""
    if op.kind == "append":
        if previous is None or last is None or previous.kind != "append" or previous.path != op.path or op.path.endswith("/-"):
            return None
        return ResolvedOp("append", last.at, op.path, source, index=last.index + len(last.items), items=Items(op.value))
    if op.kind not in ("set", "remove"):
        return None
    tokens = parse(op.path)
    if any(token == "-" or is_index(token) for token in tokens):
        return None
    return ResolvedOp(op.kind, tokens, op.path, source, op.value, taken=op.taken)


def resolve(op: Op, fold: Fold, source: int) -> list[ResolvedOp]:
    """Apply `op`, and say what it did: one step, or for `merge` one for each leaf. Raises as `Fold.apply`."""
    tokens = parse(op.path)
    at, parent, target = walk(fold.peek(), tokens)
    kind, value, path = op.kind, op.value, op.path
    size = list.__len__(target) if isinstance(target, list) else 0
    place = list.__len__(parent) if isinstance(parent, list) else 0
    leaves = list(_leaves(at, target, value, source)) if kind == "merge" and isinstance(value, dict) else []
    fold.apply((op,))
    if kind == "merge":
        return leaves
    if kind == "test":
        return [ResolvedOp("test", at, path, source, value)]
    if isinstance(parent, list) and target is MISSING:
        items = thaw(list.__getitem__(walk(fold.peek(), tokens[:-1])[2], slice(place, None)))
        return [ResolvedOp("append", at[:-1], path, source, index=place, items=Items(items))] if items else []
    if kind == "remove" and isinstance(parent, list):
        return [ResolvedOp("splice", at[:-1], path, source, index=int(at[-1]), removed=1, single=True, taken=op.taken)]
    if kind == "splice":
        index, out, items = value
        return [ResolvedOp("splice", at, path, source, index=index, removed=out, items=Items(items), taken=op.taken)]
    if kind == "append":
        return [ResolvedOp("append", at, path, source, index=size, items=Items(value))]
    if kind == "union":
        held = walk(fold.peek(), tokens)[2]
        items = list.__getitem__(held, slice(size, None))
        found: tuple[int, ...] = ()
        if len(items) != len(value):
            places = fold.keys(held)
            found = tuple(sorted({place for item in value if (place := places[key(item)]) < size}))
        return [ResolvedOp("union", at, path, source, value, index=size, items=Items(items), matched=found)]
    if kind == "add":
        return [ResolvedOp("add", at, path, source, value, exact=type(value) is int and (target is MISSING or type(target) is int))]
    if kind == "init":
        return [ResolvedOp("init", at, path, source, value, noop=target is not MISSING)]
    return [ResolvedOp(kind, at, path, source, value, taken=op.taken)]


def _leaves(at: Tokens, target: Any, patch: dict[str, Any], source: int) -> Iterator[ResolvedOp]:
    """RFC 7396 as steps. A missing object is an init, so that two merges that both start it combine by their leaves."""
    path = spell(at)
    if target is MISSING:
        yield ResolvedOp("init", at, path, source, {})
    elif not isinstance(target, dict):
        yield ResolvedOp("set", at, path, source, _stripped(patch))
        return
    elif not patch:
        yield ResolvedOp("init", at, path, source, {}, noop=True)
    for name, value in patch.items():
        held = MISSING if target is MISSING else dict.get(target, name, MISSING)
        leaf = (*at, name)
        if value is None:
            # What was absent is to stay absent: compared with what theirs put there, though there is nothing to take away.
            yield ResolvedOp("remove", leaf, spell(leaf), source, absorbed=held is MISSING)
        elif isinstance(value, dict):
            yield from _leaves(leaf, held, value, source)
        else:
            yield ResolvedOp("set", leaf, spell(leaf), source, value)


def _stripped(patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    return {name: _stripped(value) for name, value in patch.items() if value is not None}


def emit(step: ResolvedOp) -> Op:
    """The operation that a step stands for, at its present place."""
    path = spell(step.at)
    made = TakingOp if step.taken else Op
    if step.kind == "splice":
        if step.single:
            return made("remove", f"{path}/{step.index}")
        return made("splice", path, [step.index, step.removed, list(step.items)])
    if step.kind == "append":
        return Op("append", path, list(step.items))
    return made(step.kind, path, step.value)


def spell(at: Tokens) -> str:
    """The tokens as a JSON Pointer."""
    return join([str(token) for token in at])
