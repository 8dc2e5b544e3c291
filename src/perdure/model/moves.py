"""Moves: an element that a draft takes out of its place and keeps, so that no other writer may have it too.

What `pop` hands out is marked where it is called. Here the rest is found: what was taken out by any means and stands elsewhere in the
same edit, which is a move. A container is known wherever it went, and by its value where a copy of it was put in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from perdure.model.identity import Names, Note
from perdure.model.ops import TAKING, taking
from perdure.model.values import CONTAINERS, FrozenDict, FrozenList, key, same


def mark(notes: Sequence[Note], root: Any, names: Names, handed: Mapping[int, Any]) -> list[Note]:
    """The notes, those marked that took out what stands elsewhere now. `root` is what they led to."""
    if not any(_may_take(note) for note in notes):
        return list(notes)
    moves = _Moves(notes, root, names, handed)
    return [Note(taking(note.op), note.gone, note.holder, note.depth) if _may_take(note) and moves.kept(note) else note for note in notes]


def _may_take(note: Note) -> bool:
    if not note.gone or note.op.kind not in TAKING or note.op.taken or note.explicit:
        return False
    return note.op.kind != "set" or not same(note.op.value, note.gone[0])  # What is set to what it was has not left its place.


class _Moves:
    """What was put in anywhere, as far as it was asked for."""

    def __init__(self, notes: Sequence[Note], root: Any, names: Names, handed: Mapping[int, Any]) -> None:
        self._notes, self._root, self._names, self._handed = notes, root, names, handed
        self._present: set[int] | None = None
        self._put: dict[Any, list[Any]] | None = None
        self._moved: set[int] = set()
        self._direct: set[object] = set()
        self._keys: dict[Any, set[object]] = {}

    def kept(self, note: Note) -> bool:
        """Whether anything of what went is there still, in another place."""
        return any(self._is_present(value) or self._was_put(value, note.op.kind) for value in (*note.gone, *_emptied(note)))

    def _is_present(self, value: Any) -> bool:
        """Whether a container, or one that was reached through it, was put in and stands in the document still."""
        waiting = [self._names.original(value)] if isinstance(value, CONTAINERS) else []
        while waiting:
            node = waiting.pop()
            if id(node) in self._put_in() and self._stands(node):
                return True
            if id(node) in self._handed:
                inner = dict.values(node) if isinstance(node, dict) else list.__iter__(node)
                waiting += [self._names.original(child) for child in inner if isinstance(child, CONTAINERS) and id(child) in self._handed]
        return False

    def _put_in(self) -> set[int]:
        """The originals of all containers that operations put in."""
        if self._put is None:
            self._direct, self._put = self._values()
            inside = [value for alike in self._put.values() for value in alike if isinstance(value, CONTAINERS)]
            self._moved = {id(self._names.original(value)) for value in inside}
        return self._moved

    def _stands(self, node: Any) -> bool:
        if self._present is None:
            self._present = self._standing()
        return id(node) in self._present

    def _standing(self) -> set[int]:
        """The originals of all containers in the document, down to those that nobody touched."""
        present: set[int] = set()
        waiting = [self._root] if isinstance(self._root, CONTAINERS) else []
        while waiting:
            node = waiting.pop()
            present.add(id(self._names.original(node)))
            if type(node) is not FrozenDict and type(node) is not FrozenList:
                waiting += [child for child in _children(node) if isinstance(child, CONTAINERS)]
        return present

    def _was_put(self, value: Any, kind: str) -> bool:
        """Whether an equal value was put in. Null, booleans and what is empty say too little; a number that was overwritten counts
        only where it was put in by itself, for inside of others any number may stand."""
        if value is None or type(value) is bool or value in ("", {}, []):
            return False
        self._put_in()
        if kind == "set" and type(value) in (int, float):
            return key(value) in self._direct
        shape = _shape(value)
        alike = self._put.get(shape) if self._put else None
        if alike is None:
            return False
        if shape not in self._keys:
            self._keys[shape] = {key(item) for item in alike}
        return key(value) in self._keys[shape]

    def _values(self) -> tuple[set[object], dict[Any, list[Any]]]:
        """The keys of the plain values that operations put in, and every value with what these hold, by shape."""
        found: dict[Any, list[Any]] = {}
        waiting: list[Any] = []
        for note in self._notes:
            op = note.op
            if op.kind == "splice":
                waiting += op.value[2]
            elif op.kind in ("append", "union"):
                waiting += op.value
            elif op.kind in ("set", "init"):
                waiting.append(op.value)
        direct = {key(value) for value in waiting if not isinstance(value, CONTAINERS)}
        while waiting:
            value = waiting.pop()
            found.setdefault(_shape(value), []).append(value)
            if isinstance(value, CONTAINERS):
                waiting += _children(value)
        return direct, found


def _emptied(note: Note) -> list[Any]:
    """What stood in a container that was replaced or removed whole, and does not stand in the one that replaced it.

    Of an object that was removed, or of an element of a list, nothing: records have much in common with one another.
    """
    op = note.op
    if op.kind == "splice" or not note.gone:
        return []
    held = note.gone[0]
    if not isinstance(held, CONTAINERS) or (op.kind == "remove" and isinstance(held, dict)):
        return []
    values = [value for value in _children(held) if not isinstance(value, CONTAINERS)]
    if not values or not isinstance(op.value, CONTAINERS):
        return values
    missing = Counter(map(key, values)) - Counter([key(value) for value in _children(op.value) if not isinstance(value, CONTAINERS)])
    return [value for value in values if key(value) in missing]


def _children(node: Any) -> list[Any]:
    return list(dict.values(node)) if isinstance(node, dict) else list(list.__iter__(node))


def _shape(value: Any) -> Any:
    """What equal values have in common, cheaply."""
    if isinstance(value, dict):
        return dict, dict.__len__(value), next(iter(sorted(dict.keys(value))), None)
    if isinstance(value, list):
        return list, list.__len__(value)
    return type(value)
