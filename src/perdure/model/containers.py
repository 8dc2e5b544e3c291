"""The dicts and lists behind `draft.state`: real ones, filled, whose calls are noted as operations.

A container is a shallow copy of a frozen one; its children stay frozen until they are handed out, and then a copy takes the frozen
child's place, so that asking twice gives one object. Code written in C sees true content; what it takes out of a container may be a
frozen child, which refuses to be changed, so the shared base never changes silently.

What is noted are hints. Changes that nobody called for by a method of ours, as by `heapq`, are found when the tracker compares.
What `pop` and `popitem` hand out is *taken*: the operation is marked, because somebody keeps what it takes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from operator import index as as_index
from typing import Any, Protocol, SupportsIndex, TypeAlias

from perdure.errors import Invalid, TooLarge
from perdure.model.diff import below, elements
from perdure.model.identity import Names, Note
from perdure.model.ops import Op, TakingOp
from perdure.model.pointer import escape
from perdure.model.values import CONTAINERS, FrozenDict, FrozenList, check, same

_FROZEN = (FrozenDict, FrozenList)
_ABSENT = object()
_WIDE = 32
"""From this many members on, a container put in the place of one that it mostly equals is compared with it, not told whole."""


class Journal(Protocol):
    """Who is told of the operations."""

    @property
    def root(self) -> Any:
        """The document that the container must hang in, for its calls to count."""

    @property
    def names(self) -> Names:
        """Which container is which."""

    @property
    def handed(self) -> dict[int, Tracked]:
        """The tracked copies that were handed out, by the id of what they are copies of."""

    def note(self, note: Note) -> None:
        """Take an operation down."""


class TrackedDict(dict[str, Any]):
    """A dict in a draft's state. Copies of it, also by pickle, and what its type makes when called, are plain."""

    __slots__ = ("_base", "_hint", "_journal", "_up")
    _base: FrozenDict
    _hint: Any
    _journal: Journal
    _up: Tracked | None

    # `type(state)(…)` gives what `dict(…)` gives.
    def __new__(cls, /, *args: Any, **members: Any) -> Any:
        return dict(*args, **members)

    # The built-in fast paths for copying a dict are taken only where __iter__ is dict's own; they would give away frozen children.
    def __iter__(self) -> Iterator[str]:
        return dict.__iter__(self)

    def __getitem__(self, key: str) -> Any:
        value = dict.__getitem__(self, key)
        return _hand(self, key, value) if type(value) in _FROZEN else value

    def get(self, key: str, default: Any = None) -> Any:
        value = dict.get(self, key, default)
        return _hand(self, key, value) if type(value) in _FROZEN and key in self else value

    def items(self) -> Any:
        hand_all(self)
        return dict.items(self)

    def values(self) -> Any:
        hand_all(self)
        return dict.values(self)

    def copy(self) -> dict[str, Any]:
        hand_all(self)
        return dict(dict.items(self))

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return _deepcopy(self, memo)

    def __reduce_ex__(self, protocol: object) -> Any:
        return dict, (), None, None, iter(dict.items(self))

    def __or__(self, other: Any) -> Any:
        return self.copy() | other if isinstance(other, dict) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        hand_all(self)
        return NotImplemented  # dict's own operator goes on, and finds no frozen child.

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def __setitem__(self, key: str, value: Any) -> None:
        held = dict.get(self, key, _ABSENT)
        dict.__setitem__(self, key, value)
        if not _made_over(held, value):
            _note(self, "set", key, value, () if held is _ABSENT else (held,))

    def __delitem__(self, key: str) -> None:
        held = dict.get(self, key)
        dict.__delitem__(self, key)
        _note(self, "remove", key, None, (held,))

    def pop(self, key: str, *default: Any) -> Any:
        if key not in self:
            return dict.pop(self, key, *default)
        value = self[key]
        dict.__delitem__(self, key)
        _note(self, "remove", key, None, (value,), taken=not default)
        return value

    def popitem(self) -> tuple[str, Any]:
        key = next(reversed(self), _ABSENT)
        if not isinstance(key, str):
            return dict.popitem(self)
        return key, self.pop(key)

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key in self:
            return self[key]
        dict.__setitem__(self, key, default)
        _note(self, "init", key, default)
        return default

    def update(self, /, *others: Any, **members: Any) -> None:
        for key, value in dict(*others, **members).items():
            self[key] = value

    fromkeys = dict.fromkeys


class TrackedList(list[Any]):
    """A list in a draft's state. Copies of it, also by pickle, and what its type makes when called, are plain."""

    __slots__ = ("_base", "_hint", "_journal", "_up")
    _base: FrozenList
    _hint: Any
    _journal: Journal
    _up: Tracked | None

    # `type(state)(…)` gives what `list(…)` gives.
    def __new__(cls, *args: Any) -> Any:
        return list(*args)

    def __iter__(self) -> Iterator[Any]:
        hand_all(self)
        return list.__iter__(self)

    def __reversed__(self) -> Iterator[Any]:
        hand_all(self)
        return list.__reversed__(self)

    def __getitem__(self, index: Any) -> Any:
        value = list.__getitem__(self, index)
        if isinstance(index, slice):
            hand_all(self, range(*index.indices(len(self))))
            return list.__getitem__(self, index)
        return _hand(self, as_index(index) % len(self), value) if type(value) in _FROZEN else value

    def copy(self) -> list[Any]:
        hand_all(self)
        return list.copy(self)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return _deepcopy(self, memo)

    def __reduce_ex__(self, protocol: object) -> Any:
        return list, (), None, list.__iter__(self), None

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, list):
            return NotImplemented
        return self[:] + other[:]

    def __radd__(self, other: Any) -> Any:
        hand_all(self)
        # list's own operator goes on, and finds no frozen child. An answer from here would make `plain += tracked` a new list.
        return NotImplemented

    def __mul__(self, times: Any) -> Any:
        hand_all(self)
        return list.__mul__(self, times) if hasattr(times, "__index__") else NotImplemented

    __rmul__ = __mul__

    def __iadd__(self, items: Any) -> Any:
        self.extend(items)
        return self

    def __imul__(self, times: Any) -> Any:
        hand_all(self)
        before = list.copy(self)
        list.__imul__(self, times)
        _note_changed(self, before)
        return self

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        before = list.copy(self)
        try:
            list.sort(self, key=key, reverse=reverse)
        finally:  # A comparison that raises leaves some order or other.
            _note_changed(self, before)

    def reverse(self) -> None:
        before = list.copy(self)
        list.reverse(self)
        _note_changed(self, before)

    def append(self, item: Any) -> None:
        list.append(self, item)
        _note(self, "append", None, [item])

    def extend(self, items: Iterable[Any]) -> None:
        if items is self:
            hand_all(self)
        size = len(self)
        try:
            list.extend(self, items)
        finally:  # An iterable that raises leaves in the list what it gave before.
            if len(self) > size:
                _note(self, "append", None, list.__getitem__(self, slice(size, None)))

    def insert(self, index: SupportsIndex, item: Any) -> None:
        place = slice(as_index(index), None).indices(len(self))[0]
        list.insert(self, place, item)
        _note(self, "splice", None, [place, 0, [item]])

    def pop(self, index: SupportsIndex = -1) -> Any:
        if not self:
            return list.pop(self, index)
        try:
            value = self[as_index(index)]
        except IndexError:
            return list.pop(self, index)
        place = as_index(index) % len(self)
        list.__delitem__(self, place)
        _note(self, "splice", None, [place, 1, []], (value,), taken=True)
        return value

    def remove(self, item: Any) -> None:
        try:
            place = list.index(self, item)
        except ValueError:
            list.remove(self, item)
        else:
            del self[place]

    def clear(self) -> None:
        del self[:]

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            before = list.copy(self)
            list.__setitem__(self, index, value)
            _note_changed(self, before)
            return
        place = as_index(index)
        held = list.__getitem__(self, place) if -len(self) <= place < len(self) else None
        list.__setitem__(self, place, value)
        if held is not value or not isinstance(value, CONTAINERS):
            _note(self, "set", place % len(self), value, (held,))

    def __delitem__(self, index: Any) -> None:
        size = len(self)
        if not isinstance(index, slice):
            place = as_index(index)
            gone = list.__getitem__(self, slice(place, place + 1 or None))
            list.__delitem__(self, index)
            _note(self, "splice", None, [place % size, 1, []], gone)
            return
        start, _, step = index.indices(size)
        if step != 1:
            before = list.copy(self)
            list.__delitem__(self, index)
            _note_changed(self, before)
            return
        gone = list.__getitem__(self, index)
        list.__delitem__(self, index)
        if gone:
            _note(self, "splice", None, [start, len(gone), []], gone)


Tracked: TypeAlias = TrackedDict | TrackedList


def track(value: Any, journal: Journal, up: Tracked | None = None, hint: Any = None) -> Any:
    """A tracked copy of a frozen container, standing in `up` at `hint`; anything else as it is."""
    made: Tracked
    if type(value) is FrozenDict:
        made = dict.__new__(TrackedDict)
        dict.update(made, value)
    elif type(value) is FrozenList:
        made = list.__new__(TrackedList)
        list.extend(made, value)
    else:
        return value
    made._base, made._journal, made._up, made._hint = value, journal, up, hint
    journal.handed[id(value)] = made
    return made


def origin(value: Any) -> Any:
    """What a tracked container was copied from; anything else is its own origin."""
    return value._base if isinstance(value, (TrackedDict, TrackedList)) else value


def hand_all(container: Tracked, places: Iterable[int] | None = None) -> None:
    """Put tracked copies in the places of all frozen children, or of those of a list at `places`."""
    if isinstance(container, dict):
        for key, value in dict.items(container):
            if type(value) in _FROZEN:
                _hand(container, key, value)
    else:
        for place in range(len(container)) if places is None else places:
            value = list.__getitem__(container, place)
            if type(value) in _FROZEN:
                _hand(container, place, value)


def _hand(container: Tracked, key: Any, value: Any) -> Any:
    child = track(value, container._journal, container, key)
    # The key is there already, so a dict that is being iterated over keeps its size and its order.
    if isinstance(container, dict):
        dict.__setitem__(container, key, child)
    else:
        list.__setitem__(container, key, child)
    return child


def _note(container: Tracked, kind: str, token: str | int | None, value: Any, gone: Sequence[Any] = (), *, taken: bool = False) -> None:
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


def _note_changed(container: TrackedList, before: list[Any]) -> None:
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
        else:
            if not hint < len(up) or list.__getitem__(up, hint) is not node:
                hint = next((place for place, value in enumerate(list.__iter__(up)) if value is node), None)
                if hint is None:
                    return None
            tokens.append(str(hint))
        node._hint = hint
        node = up
    tokens.reverse()
    return tokens


def _made_over(old: Any, new: Any) -> bool:
    """Whether a container was made out of the one that had the same key, as in `s["log"] = s["log"] + [x]`.

    Then the comparison at commit tells the change in fewer words than the new value is long. A container of the state that
    comes from elsewhere is not made out of anything.
    """
    if old is new:
        return isinstance(new, CONTAINERS)
    if isinstance(new, (TrackedDict, TrackedList, *_FROZEN)):
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
    return len(shared) >= _WIDE or any(isinstance(item, (TrackedDict, TrackedList)) for item in shared)


def _identity(item: Any) -> Any:
    return (type(item), item) if type(item) in (str, int, float, bool) else id(item)


def _deepcopy(container: Any, memo: dict[int, Any]) -> Any:
    made: Any
    if isinstance(container, dict):
        made = memo[id(container)] = {}
        for key, value in dict.items(container):
            made[deepcopy(key, memo)] = deepcopy(value, memo)
    else:
        made = memo[id(container)] = []
        made.extend([deepcopy(item, memo) for item in list.__iter__(container)])
    return made
