"""The difference of two states as operations: what makes one into the other."""

from __future__ import annotations

from bisect import bisect_left
from operator import is_
from typing import Any

from perdure.model.identity import Names, Note
from perdure.model.ops import Op
from perdure.model.pairs import Pairs, member
from perdure.model.pointer import PATH_BYTES_MAX, PATH_TOKENS_MAX, escape
from perdure.model.values import CONTAINERS, key, same, thaw

_ABSENT = object()


def diff(old: Any, new: Any, path: str = "") -> list[Op]:
    """Operations that make `old`, standing at `path`, into what is the same as `new`; none if they are the same.

    Containers that are one object are not looked into, so the cost is the width of what differs. Elements of a list are followed
    when they move: containers by identity, other values by what they are; where identity says nothing, the element at the same place
    is taken for the same. The operations hold plain copies and share nothing with `new`.
    """
    return [note.op for note in _Walk(None).run(old, new, path)]


def compare(old: Any, new: Any, path: str, names: Names, pairs: Pairs | None = None) -> list[Note]:
    """The same for a draft, whose containers have names, as notes: nothing becomes another thing because it looks like it.

    An element of a list that has no match of its name on the other side was taken out or put in, and a known container that stands
    where another stood replaces it. The values in the operations are frozen copies with names. `pairs` may know some of the places.
    """
    return _Walk(names, pairs).run(old, new, path)


def elements(old: list[Any], new: list[Any], path: str, depth: int, names: Names) -> list[Note]:
    """The same for the elements of one list at `path`, which has `depth` tokens."""
    walk = _Walk(names)
    walk.elements(old, new, path, depth)
    return walk.notes


class _Walk:
    """One comparison. Every path it extends is checked against the limits on paths: beyond them the container is set whole."""

    __slots__ = ("names", "notes", "pairs")

    def __init__(self, names: Names | None, pairs: Pairs | None = None) -> None:
        self.notes: list[Note] = []
        self.names = names
        self.pairs = pairs or Pairs()

    def run(self, old: Any, new: Any, path: str) -> list[Note]:
        self.value(old, new, path, path.count("/"))
        return self.notes

    def put(self, kind: str, path: str, value: Any, *gone: Any) -> None:
        self.notes.append(Note(Op(kind, path, self.copy(value)), gone))

    def splice(self, path: str, old: list[Any], taken: slice, items: list[Any]) -> None:
        gone = list.__getitem__(old, taken)
        if not gone and taken.start == list.__len__(old):
            self.notes.append(Note(Op("append", path, [self.copy(item) for item in items])))
        else:
            self.notes.append(Note(Op("splice", path, [taken.start, len(gone), [self.copy(item) for item in items]]), gone))

    def copy(self, value: Any) -> Any:
        return thaw(value) if self.names is None else self.names.freeze(value)

    def value(self, old: Any, new: Any, path: str, depth: int) -> None:
        if old is new:
            return
        if not (isinstance(old, CONTAINERS) and isinstance(new, CONTAINERS)):
            if not same(old, new):
                self.put("set", path, new, old)
        elif self.replaced(old, new):
            self.put("set", path, new, old)
        elif isinstance(old, dict) and isinstance(new, dict):
            self.members(old, new, path, depth)
        elif isinstance(old, list) and isinstance(new, list):
            self.elements(old, new, path, depth)
        else:
            self.put("set", path, new, old)

    def replaced(self, old: Any, new: Any) -> bool:
        names = self.names
        return names is not None and names.original(old) is not names.original(new) and not names.stranger(new)

    def members(self, old: dict[str, Any], new: dict[str, Any], path: str, depth: int) -> None:
        before = len(self.notes)
        places = self.pairs.places(old, new)
        if places is None:
            # Sets have no order of their own, and the same change should always give the same operations.
            for name in sorted(dict.keys(old) - dict.keys(new), key=escape):
                at = below(path, depth, escape(name))
                if at is None:
                    return self.whole(before, old, new, path)
                self.put("remove", at, None, dict.__getitem__(old, name))
            places = [name for name, value in dict.items(new) if dict.get(old, name, _ABSENT) is not value]
        for name in places:
            held, value = dict.get(old, name, _ABSENT), dict.__getitem__(new, name)
            at = below(path, depth, escape(name))
            if at is None:
                if same(held, value):
                    continue
                return self.whole(before, old, new, path)
            if held is _ABSENT:
                self.put("set", at, value)
            else:
                self.value(held, value, at, depth + 1)
        return None

    def whole(self, before: int, old: Any, new: Any, path: str) -> None:
        del self.notes[before:]
        self.put("set", path, new, old)

    def elements(self, old: list[Any], new: list[Any], path: str, depth: int) -> None:
        """From the last change to the first, so that every index is one of the old list."""
        places = self.pairs.places(old, new)
        if places is not None and all(self.match(member(old, place), member(new, place)) for place in places):
            for place in reversed(places) if self.names is not None else ():
                self.element(old, new, place, place, path, depth)
            return
        old, new = list.copy(old), list.copy(new)
        start, first = self.common(old, new)
        end, last = self.common(old[: start - 1 if start else None : -1], new[: start - 1 if start else None : -1])
        old_end, new_end = len(old) - end, len(new) - end
        for back in last:
            self.element(old, new, len(old) - 1 - back, len(new) - 1 - back, path, depth)
        anchors = self.anchors(old[start:old_end], new[start:new_end])
        if anchors is None:
            self.splice(path, old, slice(start, old_end), new[start:new_end])
        else:
            for left, right in reversed(anchors):
                self.gap(old, new, (start + left + 1, old_end), (start + right + 1, new_end), path, depth)
                old_end, new_end = start + left, start + right
                self.element(old, new, old_end, new_end, path, depth)
            self.gap(old, new, (start, old_end), (start, new_end), path, depth)
        for place in reversed(first):
            self.element(old, new, place, place, path, depth)

    def common(self, old: list[Any], new: list[Any]) -> tuple[int, list[int]]:
        """How many first elements are the same ones, and which of them may differ inside."""
        flags = list(map(is_, old, new))
        differ: list[int] = []
        position = 0
        while True:
            try:
                position = flags.index(False, position)
            except ValueError:
                return len(flags), differ
            if not self.match(old[position], new[position]):
                return position, differ
            if self.names is not None:
                differ.append(position)
            position += 1

    def match(self, old: Any, new: Any) -> bool:
        return same(old, new) if self.names is None else self.names.match(old, new)

    def anchors(self, old: list[Any], new: list[Any]) -> list[tuple[int, int]] | None:
        """Positions of elements that both lists hold once, rising in both (patience diff), or None if most of them moved."""
        if not old or not new:
            return []
        places = self.unique(old)
        if not places:
            return []
        pairs = [(places[who], position) for who, position in self.unique(new).items() if who in places]
        chain = _rising(pairs)
        # Of a list that was sorted or shuffled too little stays in order to be worth telling piece by piece.
        return chain if 2 * len(chain) >= len(pairs) else None

    def unique(self, items: list[Any]) -> dict[Any, int]:
        places: dict[Any, int] = {}
        for position, item in enumerate(items):
            who = self.identity(item)
            places[who] = -1 if who in places else position
        return {who: position for who, position in places.items() if position >= 0}

    def identity(self, item: Any) -> Any:
        if isinstance(item, CONTAINERS):
            return (id(item if self.names is None else self.names.original(item)),)
        return key(item)

    def gap(self, old: list[Any], new: list[Any], taken: tuple[int, int], put: tuple[int, int], path: str, depth: int) -> None:
        """What stands between two anchors: elements that became others one by one, or were taken out and put in."""
        first, end = taken
        start, stop = put
        size = end - first
        if self.names is None:
            alike = size == stop - start and (size == 1 or all(map(_alike, old[first:end], new[start:stop])))
        else:
            while first < end and start < stop and self.match(old[end - 1], new[stop - 1]):
                end, stop = end - 1, stop - 1
                self.element(old, new, end, stop, path, depth)
            while first < end and start < stop and self.match(old[first], new[start]):
                first, start = first + 1, start + 1
            size = end - first
            alike = size == stop - start == 1 and not isinstance(old[first], CONTAINERS) and not isinstance(new[start], CONTAINERS)
        if alike:
            for step in reversed(range(size)):
                self.element(old, new, first + step, start + step, path, depth)
        elif size or start < stop:
            self.splice(path, old, slice(first, end), new[start:stop])
        for step in reversed(range(first - taken[0])):
            self.element(old, new, taken[0] + step, put[0] + step, path, depth)

    def element(self, old: list[Any], new: list[Any], index: int, position: int, path: str, depth: int) -> None:
        at = below(path, depth, str(index))
        held, value = list.__getitem__(old, index), list.__getitem__(new, position)
        if at is not None:
            self.value(held, value, at, depth + 1)
        elif not same(held, value):
            self.splice(path, old, slice(index, index + 1), [value])


def below(path: str, depth: int, token: str) -> str | None:
    """The pointer one token further, or None if that is longer than pointers may be."""
    at = f"{path}/{token}"
    if depth >= PATH_TOKENS_MAX or (len(at) * 4 > PATH_BYTES_MAX and len(at.encode()) > PATH_BYTES_MAX):
        return None
    return at


def _rising(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest chain of pairs, given in the order of their second parts, whose first parts rise too."""
    tails: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for number, (left, _) in enumerate(pairs):
        length = bisect_left(tails, left)
        before.append(ends[length - 1] if length else -1)
        tails[length : length + 1] = [left]
        ends[length : length + 1] = [number]
    chain: list[tuple[int, int]] = []
    number = ends[-1] if ends else -1
    while number >= 0:
        chain.append(pairs[number])
        number = before[number]
    return chain[::-1]


def _alike(old: Any, new: Any) -> bool:
    return (isinstance(old, dict) and isinstance(new, dict)) or (isinstance(old, list) and isinstance(new, list))
