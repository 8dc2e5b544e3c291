"""How the containers of a draft note what is done to them: where they are in the document, and which operation says it.

What is noted are hints. Changes that no method of ours made, as `heapq` does, are found when the tracker compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress, count, repeat
from operator import is_
from typing import Any, Protocol

from perdure.errors import Invalid, TooLarge
from perdure.model.diff import below, elements
from perdure.model.identity import Names, Note
from perdure.model.ops import Op, TakingOp
from perdure.model.pointer import escape
from perdure.model.values import CONTAINERS, FrozenDict, FrozenList, check, same

_FROZEN = (FrozenDict, FrozenList)
_ABSENT = object()
_WIDE = 32
"""From this many shared members on, a container that replaces another is compared with it instead of being set whole."""


class Tracked:
    """A container that notes what is done to it: a copy of `_base`, which is in `_up` at `_hint`, or was."""

    __slots__ = ()
    _base: Any
    _hint: Any
    _journal: Journal
    _up: Tracked | None


class Journal(Protocol):
    """What the containers of one draft note their operations in."""

    @property
    def root(self) -> Any:
        """The document that the container must hang in, for its calls to count."""

    @property
    def names(self) -> Names:
        """Which container is which."""

    @property
    def handed(self) -> dict[int, Any]:
        """The tracked copies that were handed out, by the id of what they are copies of."""

    def note(self, note: Note) -> None:
        """Record an operation."""


def note(container: Tracked, kind: str, token: str | int | None, value: Any, gone: Sequence[Any] = (), *, taken: bool = False) -> None:
    """Note an operation on the container, or on its child `token`, with a copy of the value as it is now.

    Nothing is noted of a container that no longer hangs in the document, nor of what no operation can say (yet).
    """
    found = _place(container)
    if found is None:
        return
    path, depth = found
    if token is not None:
        longer = below(path, depth, escape(token) if type(token) is str else str(token))
        if longer is None:
            return
        path = longer
    try:
        check(value)
    except (Invalid, TooLarge, UnicodeError):
        return
    journal = container._journal
    freeze = journal.names.freeze
    if kind == "append":
        value = [freeze(item) for item in value]
    elif kind == "splice":
        value = [value[0], value[1], [freeze(item) for item in value[2]]]
    else:
        value = freeze(value)
    op = TakingOp(kind, path, value) if taken else Op(kind, path, value)
    journal.note(Note(op, gone, journal.names.original(container), depth))


def note_changed(container: Any, before: list[Any]) -> None:
    """Note what a call did to a list whose elements were `before`: which were taken out, and which were put in."""
    found = _place(container)
    if found is None:
        return
    try:
        check(container, trust=_FROZEN)
    except (Invalid, TooLarge, UnicodeError):
        return
    journal = container._journal
    holder = journal.names.original(container)
    for note in elements(before, list.copy(container), *found, journal.names):
        journal.note(Note(note.op, note.gone, holder, found[1]))


def _place(container: Tracked) -> tuple[str, int] | None:
    """The path to a container and its number of tokens; None if it does not hang in the document, or too deep for a path."""
    path, depth = "", 0
    root = container._journal.root
    if container is not root:
        tokens = _tokens(container, root)
        if tokens is None:
            return None
        for step in tokens:
            longer = below(path, depth, step)
            if longer is None:
                return None
            path, depth = longer, depth + 1
    return path, depth


def _tokens(container: Tracked, root: Any) -> list[str] | None:
    """The way from the root to a container, or None if it does not hang there: a child is looked for where it was, then everywhere."""
    tokens: list[str] = []
    node = container
    while node is not root:
        up, hint = node._up, node._hint
        if up is None:
            return None
        if isinstance(up, dict):
            if dict.get(up, hint) is not node:
                hint = next((key for key, value in dict.items(up) if value is node), None)
            if type(hint) is not str:
                return None
            tokens.append(escape(hint))
        elif isinstance(up, list):
            if not hint < len(up) or list.__getitem__(up, hint) is not node:
                hint = next(compress(count(), map(is_, list.__iter__(up), repeat(node))), None)
                if hint is None:
                    return None
            tokens.append(str(hint))
        node._hint = hint
        node = up
    tokens.reverse()
    return tokens


def is_derived(old: Any, new: Any) -> bool:
    """Whether a container was made out of the one that had the same key, as in `s["log"] = s["log"] + [x]`.

    Then the comparison at commit finds a change that is smaller than the new value. A container of the state that comes from another
    place is not made out of anything.
    """
    if old is new:
        return isinstance(new, CONTAINERS)
    if isinstance(new, (Tracked, *_FROZEN)):
        return False
    if isinstance(old, list) and isinstance(new, list):
        keys = {_identity(item) for item in list.__iter__(old)}
        shared = [item for item in list.__iter__(new) if _identity(item) in keys]
    elif isinstance(old, dict) and isinstance(new, dict):
        shared = [value for key, value in dict.items(new) if (held := dict.get(old, key, _ABSENT)) is value or same(held, value)]
    else:
        return False
    if 2 * len(shared) < len(old):
        return False
    return len(shared) >= _WIDE or any(isinstance(item, Tracked) for item in shared)


def _identity(item: Any) -> Any:
    return (type(item), item) if type(item) in (str, int, float, bool) else id(item)
