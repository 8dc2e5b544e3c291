"""The difference of two states as operations: what makes one into the other."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from operator import is_
from typing import Any

from perdure.model.ops import Op
from perdure.model.pointer import PATH_BYTES_MAX, PATH_TOKENS_MAX, escape
from perdure.model.values import CONTAINERS, same, thaw

_ABSENT = object()


def diff(old: Any, new: Any, path: str = "", origin: Callable[[Any], Any] | None = None) -> list[Op]:
    """Operations that make `old`, standing at `path`, into what is the same as `new`; none if they are the same.

    Containers that are one object are not looked into, so the cost is the width of what differs. Elements of a list are followed
    when they move: containers by identity, other values by what they are. `origin` gives, for a container of `new`, the one of
    `old` that it is a changed copy of, or the container itself. The operations hold plain copies and share nothing with `new`.
    """
    walk = _Walk(origin)
    walk.value(old, new, path, path.count("/"))
    return walk.ops


class _Walk:
    """One run of `diff`. Every path it extends is checked against the limits on paths: beyond them the container is set whole."""

    __slots__ = ("ops", "origin")

    def __init__(self, origin: Callable[[Any], Any] | None) -> None:
        self.ops: list[Op] = []
        self.origin = origin

    def value(self, old: Any, new: Any, path: str, depth: int) -> None:
        if old is new:
            return
        if isinstance(old, dict) and isinstance(new, dict):
            self.members(old, new, path, depth)
        elif isinstance(old, list) and isinstance(new, list):
            self.elements(list.copy(old), list.copy(new), path, depth)
        elif not same(old, new):
            self.ops.append(Op("set", path, thaw(new)))

    def members(self, old: dict[str, Any], new: dict[str, Any], path: str, depth: int) -> None:
        before = len(self.ops)
        if dict.__len__(old) != dict.__len__(new) or not dict.keys(old) <= dict.keys(new):
            for key in dict.keys(old) - dict.keys(new):
                at = below(path, depth, escape(key))
                if at is None:
                    return self.whole(before, new, path)
                self.ops.append(Op("remove", at))
            # Sets have no order of their own, and the same change should always give the same operations.
            self.ops[before:] = sorted(self.ops[before:], key=lambda op: op.path)
        elif all(map(is_, dict.values(old), dict.values(new))) and list(dict.keys(old)) == list(dict.keys(new)):
            return None
        for key, value in dict.items(new):
            held = dict.get(old, key, _ABSENT)
            if held is value:
                continue
            at = below(path, depth, escape(key))
            if at is None:
                if same(held, value):
                    continue
                return self.whole(before, new, path)
            if held is _ABSENT:
                self.ops.append(Op("set", at, thaw(value)))
            else:
                self.value(held, value, at, depth + 1)
        return None

    def whole(self, before: int, new: Any, path: str) -> None:
        del self.ops[before:]
        self.ops.append(Op("set", path, thaw(new)))

    def elements(self, old: list[Any], new: list[Any], path: str, depth: int) -> None:
        """From the last change to the first, so that every index is one of the old list."""
        start = _common(old, new)
        end = _common(old[: start - 1 if start else None : -1], new[: start - 1 if start else None : -1])
        old_end, new_end = len(old) - end, len(new) - end
        anchors = self.anchors(old[start:old_end], new[start:new_end])
        if anchors is None:
            self.ops.append(Op("splice", path, [start, old_end - start, thaw(new[start:new_end])]))
            return
        for left, right in reversed(anchors):
            self.gap(old, new, (start + left + 1, old_end), (start + right + 1, new_end), path, depth)
            old_end, new_end = start + left, start + right
            self.element(old, new, old_end, new_end, path, depth)
        self.gap(old, new, (start, old_end), (start, new_end), path, depth)

    def anchors(self, old: list[Any], new: list[Any]) -> list[tuple[int, int]] | None:
        """Positions of elements that both lists hold once, rising in both (patience diff), or None if most of them moved."""
        if not old or not new:
            return []
        places = self.unique(old)
        if not places:
            return []
        pairs = [(places[key], position) for key, position in self.unique(new).items() if key in places]
        chain = _rising(pairs)
        # Of a list that was sorted or shuffled too little stays in order to be worth telling piece by piece.
        return chain if 2 * len(chain) >= len(pairs) else None

    def unique(self, items: list[Any]) -> dict[Any, int]:
        places: dict[Any, int] = {}
        for position, item in enumerate(items):
            key = self.identity(item)
            places[key] = -1 if key in places else position
        return {key: position for key, position in places.items() if position >= 0}

    def identity(self, item: Any) -> Any:
        if isinstance(item, CONTAINERS):
            return id(item if self.origin is None else self.origin(item))
        return type(item), item

    def gap(self, old: list[Any], new: list[Any], taken: tuple[int, int], put: tuple[int, int], path: str, depth: int) -> None:
        """What stands between two anchors: elements that became others one by one, or were taken out and put in."""
        size, put_size = taken[1] - taken[0], put[1] - put[0]
        if size == put_size and (size == 1 or all(map(_alike, old[taken[0] : taken[1]], new[put[0] : put[1]]))):
            for step in reversed(range(size)):
                self.element(old, new, taken[0] + step, put[0] + step, path, depth)
        elif not size and taken[0] == len(old):
            self.ops.append(Op("append", path, thaw(new[put[0] : put[1]])))
        else:
            self.ops.append(Op("splice", path, [taken[0], size, thaw(new[put[0] : put[1]])]))

    def element(self, old: list[Any], new: list[Any], index: int, position: int, path: str, depth: int) -> None:
        at = below(path, depth, str(index))
        if at is not None:
            self.value(old[index], new[position], at, depth + 1)
        elif not same(old[index], new[position]):
            self.ops.append(Op("splice", path, [index, 1, [thaw(new[position])]]))


def below(path: str, depth: int, token: str) -> str | None:
    """The pointer one token further, or None if that is longer than pointers may be."""
    at = f"{path}/{token}"
    if depth >= PATH_TOKENS_MAX or (len(at) * 4 > PATH_BYTES_MAX and len(at.encode()) > PATH_BYTES_MAX):
        return None
    return at


def _common(old: list[Any], new: list[Any]) -> int:
    """How many first elements are the same."""
    flags = list(map(is_, old, new))
    position = 0
    while True:
        try:
            position = flags.index(False, position)
        except ValueError:
            return len(flags)
        if not same(old[position], new[position]):
            return position
        position += 1


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
