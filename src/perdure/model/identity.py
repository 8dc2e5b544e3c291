"""Which container is which: a draft's containers are copied and moved, and each copy is known by what it was copied from.

An operation that a draft notes holds copies of what was put in. So that a later comparison knows an element again wherever it
went, every copy is named after the original: a container of the base, or the object that the user put in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from perdure.model.ops import Op
from perdure.model.state import Fold
from perdure.model.values import CONTAINERS, FrozenDict, FrozenList, freeze, same

_FROZEN = (FrozenDict, FrozenList)


class Note(msgspec.Struct, frozen=True):
    """An operation that was done, and what it was done to."""

    op: Op
    gone: Sequence[Any] = ()
    """What it took out or replaced: containers as they were found, and other values."""
    holder: Any = None
    """The original of the container whose method was called; None if that is of no concern."""
    depth: int = 0
    """How many tokens of the path lead to that container."""
    explicit: bool = False
    """The user wrote this operation: it stays as it is."""


class Names:
    """The originals of containers. What is named here is kept alive, so that an id means one container."""

    __slots__ = ("_known", "_origin", "_originals")

    def __init__(self, origin: Callable[[Any], Any]) -> None:
        """`origin` gives, for a tracked container, what it was copied from, and anything else as it is."""
        self._origin = origin
        self._originals: dict[int, tuple[Any, Any]] = {}
        self._known: dict[int, Any] = {}

    def original(self, node: Any) -> Any:
        """What this container is a copy of; itself if it is none."""
        node = self._origin(node)
        found = self._originals.get(id(node))
        return node if found is None else found[1]

    def follow(self, copy: Any, node: Any) -> None:
        """Know `copy` as what `node` is known as."""
        original = self.original(node)
        self._originals[id(copy)] = copy, original
        self._known[id(original)] = original

    def freeze(self, value: Any) -> Any:
        """A frozen copy whose containers are known as those of `value`. What is frozen already is shared."""
        if type(value) in _FROZEN or not isinstance(value, CONTAINERS):
            return value
        made: Any
        if isinstance(value, dict):
            made = FrozenDict({key: self.freeze(item) if isinstance(item, CONTAINERS) else item for key, item in dict.items(value)})
        else:
            made = FrozenList([self.freeze(item) if isinstance(item, CONTAINERS) else item for item in list.__iter__(value)])
        self.follow(made, value)
        return made

    def stranger(self, node: Any) -> bool:
        """Whether nothing is known of a container: it was put in without a note, and may be a copy of anything."""
        return type(node) not in _FROZEN and self._origin(node) is node and id(node) not in self._known

    def match(self, old: Any, new: Any) -> bool:
        """Whether `new` is the element `old`, perhaps changed inside. A stranger is what it equals."""
        if isinstance(new, CONTAINERS) and isinstance(old, CONTAINERS):
            return self.original(old) is self.original(new) or (self.stranger(new) and same(old, new))
        return same(old, new)


class NamedFold(Fold):
    """Folds notes into a frozen state, and keeps the names of what it copies."""

    __slots__ = ("_names",)

    def __init__(self, state: Any, names: Names) -> None:
        super().__init__(state)
        self._take = freeze
        self._names = names

    def note(self, note: Note) -> bool:
        """Apply what was noted; false, and nothing changes, if it was done to something else than what its path names here.

        Raises as `Fold.apply` does.
        """
        if note.holder is not None and not self._fits(note):
            return False
        self.apply((note.op,))
        return True

    def _fits(self, note: Note) -> bool:
        way, place = self.way(note.op.path)
        holder = way[note.depth] if note.depth < len(way) else None
        if not isinstance(holder, CONTAINERS) or self._names.original(holder) is not note.holder:
            return False
        if isinstance(holder, dict) or not note.gone:
            return True
        if note.op.kind == "splice":
            start, out, _ = note.op.value
            held, gone = list.__getitem__(holder, slice(start, start + out)), note.gone
        else:
            held, gone = list.__getitem__(holder, slice(place, place + 1)), note.gone[:1]
        return len(held) == len(gone) and all(map(self._is, held, gone))

    def _is(self, held: Any, gone: Any) -> bool:
        if isinstance(held, CONTAINERS) and isinstance(gone, CONTAINERS):
            return self._names.original(held) is self._names.original(gone)
        return same(held, gone)

    def _own(self, node: Any) -> Any:
        copy = super()._own(node)
        if copy is not node:
            self._names.follow(copy, node)
        return copy
