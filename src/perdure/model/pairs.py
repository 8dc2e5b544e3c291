"""Two containers, one of which became the other: the places at which they hold different objects.

Members that are one object on both sides are passed over in C, so what is looked at one by one is what changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any

from perdure.model.pointer import escape
from perdure.model.values import CONTAINERS, check, differing


class Pairs:
    """The places of pairs of containers, each pair looked through once. While this lives, nobody may change them."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        # With the containers themselves: an id is used again when its object is gone.
        self._known: dict[tuple[int, int], tuple[Any, Any, list[Any] | None]] = {}

    def places(self, old: Any, new: Any) -> list[Any] | None:
        """The keys or indices, in the order of `new`, under which two containers hold different objects.

        `None` where they do not pair: they are of two kinds, or have other keys, or another length.
        """
        known = self._known.get((id(old), id(new)))
        if known is not None:
            return known[2]
        found = _places(old, new)
        self._known[id(old), id(new)] = old, new, found
        return found

    def check(self, old: Any, new: Any, *, what: str, depth: int, trust: tuple[type, ...], at: str = "") -> None:
        """As `values.check` of `new`, where `old` is sound and was not changed: what is one object in both is not looked at."""
        if new is old or type(new) in trust:
            return
        places = self.places(old, new) if isinstance(new, CONTAINERS) else None
        if places is None or depth <= 0:
            check(new, what=what, at=at, depth=depth, trust=trust)
            return
        for place in places:
            self.check(old[place], member(new, place), what=what, depth=depth - 1, trust=trust, at=f"{at}/{escape(str(place))}")


def member(container: Any, place: Any) -> Any:
    """What a container holds at a place, whatever its class makes of it."""
    return dict.__getitem__(container, place) if isinstance(container, dict) else list.__getitem__(container, place)


def _places(old: Any, new: Any) -> list[Any] | None:
    if isinstance(old, dict) and isinstance(new, dict):
        names = list(dict.keys(new))
        held: Iterator[Any] = iter(dict.values(old))
        if names != list(dict.keys(old)):
            if dict.keys(old) != dict.keys(new):
                return None
            held = map(dict.get, repeat(old), names)
        return [names[place] for place in differing(held, iter(dict.values(new)), len(names))]
    if isinstance(old, list) and isinstance(new, list) and list.__len__(old) == list.__len__(new):
        return list(differing(list.__iter__(old), list.__iter__(new), list.__len__(new)))
    return None
