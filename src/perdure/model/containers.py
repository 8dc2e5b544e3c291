"""The dicts and lists of `draft.state`: real ones, filled, whose calls are noted as operations.

A container is a shallow copy of a frozen one; its children stay frozen until they are handed out, and then a copy takes the frozen
child's place, so that asking twice gives one object. Code written in C sees true content; what it takes out of a container may be a
frozen child, which refuses to be changed, so the shared base never changes silently.

What `pop` and `popitem` hand out is *taken*: the operation is marked, because somebody keeps what it takes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from operator import index as as_index
from typing import Any, SupportsIndex

from perdure.model.journal import Journal, Tracked, is_derived, note, note_changed
from perdure.model.values import CONTAINERS, FrozenDict, FrozenList

_FROZEN = (FrozenDict, FrozenList)
_ABSENT = object()


class TrackedDict(dict[str, Any], Tracked):
    """A dict in a draft's state. Copies of it, also by pickle, and what its type makes when called, are plain."""

    __slots__ = ("_base", "_hint", "_journal", "_up")

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
        if not is_derived(held, value):
            note(self, "set", key, value, () if held is _ABSENT else (held,))

    def __delitem__(self, key: str) -> None:
        held = dict.get(self, key)
        dict.__delitem__(self, key)
        note(self, "remove", key, None, (held,))

    def pop(self, key: str, *default: Any) -> Any:
        if key not in self:
            return dict.pop(self, key, *default)
        value = self[key]
        dict.__delitem__(self, key)
        note(self, "remove", key, None, (value,), taken=not default)
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
        note(self, "init", key, default)
        return default

    def update(self, /, *others: Any, **members: Any) -> None:
        for key, value in dict(*others, **members).items():
            self[key] = value

    fromkeys = dict.fromkeys


class TrackedList(list[Any], Tracked):
    """A list in a draft's state. Copies of it, also by pickle, and what its type makes when called, are plain."""

    __slots__ = ("_base", "_hint", "_journal", "_up")

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
        note_changed(self, before)
        return self

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        before = list.copy(self)
        try:
            list.sort(self, key=key, reverse=reverse)
        finally:  # A comparison that raises leaves some order or other.
            note_changed(self, before)

    def reverse(self) -> None:
        before = list.copy(self)
        list.reverse(self)
        note_changed(self, before)

    def append(self, item: Any) -> None:
        list.append(self, item)
        note(self, "append", None, [item])

    def extend(self, items: Iterable[Any]) -> None:
        if items is self:
            hand_all(self)
        size = len(self)
        try:
            list.extend(self, items)
        finally:  # An iterable that raises leaves in the list what it gave before.
            if len(self) > size:
                note(self, "append", None, list.__getitem__(self, slice(size, None)))

    def insert(self, index: SupportsIndex, item: Any) -> None:
        place = slice(as_index(index), None).indices(len(self))[0]
        list.insert(self, place, item)
        note(self, "splice", None, [place, 0, [item]])

    def pop(self, index: SupportsIndex = -1) -> Any:
        if not self:
            return list.pop(self, index)
        try:
            value = self[as_index(index)]
        except IndexError:
            return list.pop(self, index)
        place = as_index(index) % len(self)
        list.__delitem__(self, place)
        note(self, "splice", None, [place, 1, []], (value,), taken=True)
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
            note_changed(self, before)
            return
        place = as_index(index)
        held = list.__getitem__(self, place) if -len(self) <= place < len(self) else None
        list.__setitem__(self, place, value)
        if held is not value or not isinstance(value, CONTAINERS):
            note(self, "set", place % len(self), value, (held,))

    def __delitem__(self, index: Any) -> None:
        size = len(self)
        if not isinstance(index, slice):
            place = as_index(index)
            gone = list.__getitem__(self, slice(place, place + 1 or None))
            list.__delitem__(self, index)
            note(self, "splice", None, [place % size, 1, []], gone)
            return
        start, _, step = index.indices(size)
        if step != 1:
            before = list.copy(self)
            list.__delitem__(self, index)
            note_changed(self, before)
            return
        gone = list.__getitem__(self, index)
        list.__delitem__(self, index)
        if gone:
            note(self, "splice", None, [start, len(gone), []], gone)


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
    return value._base if isinstance(value, Tracked) else value


def hand_all(container: Any, places: Iterable[int] | None = None) -> None:
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


def _hand(container: Any, key: Any, value: Any) -> Any:
    child = track(value, container._journal, container, key)
    # The key is there already, so a dict that is being iterated over keeps its size and its order.
    if isinstance(container, dict):
        dict.__setitem__(container, key, child)
    else:
        list.__setitem__(container, key, child)
    return child


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
