"""What is read of an object whose class cannot be found or does not fit: its content, which remembers what was stored.

The content is that of the framework's strict mode: a dict of the fields, the value of an enum's member. It is written again as it was
stored, so that a step of a program without the class loses nothing. Content that was changed meanwhile is refused: it is neither the
object nor a plain value.
"""

from __future__ import annotations

import weakref
from typing import Any

from perdure.adapters.langgraph.messages import TAG
from perdure.errors import Unsupported


class Lost:
    """The mark of such content. `stored` is the JSON that it was made of, `why` says why the object was not made."""

    stored: dict[str, Any]
    why: str


class LostDict(Lost, dict[Any, Any]):
    """Fields of an object. It can be a key or an element of a set, as the object could."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self))


class LostList(Lost, list[Any]):
    """The content of a class that holds a list, or arguments."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(len(self))


class LostTuple(Lost, tuple[Any, ...]):  # noqa: SLOT001 - it carries the mark
    """An enum's value that is a tuple."""


class LostStr(Lost, str):  # noqa: SLOT000 - it carries the mark
    """An enum's value that is a string."""


class LostInt(Lost, int):
    """An enum's value that is an integer, or true or false."""


class LostFloat(Lost, float):
    """An enum's value that is a number."""


class LostBytes(Lost, bytes):
    """An enum's value that is bytes."""


_KINDS: dict[type, Any] = {dict: LostDict, list: LostList, tuple: LostTuple, str: LostStr, int: LostInt, float: LostFloat, bytes: LostBytes}


def lost(content: Any, stored: dict[str, Any], why: str) -> Any:
    """The content, marked. Raises `Unsupported` for content that cannot carry a mark: it would be written again as a plain value."""
    for kind, marked in _KINDS.items():
        if isinstance(content, kind):
            made = marked(content)
            made.stored, made.why = stored, why
            return made
    raise Unsupported(f"A stored value of type {stored[TAG]!r:.80} cannot be made: {why}. Import its class, or pass it in allow=[…].")


def plain(content: Any) -> Any:
    """The content without the mark."""
    return next(kind for kind in _KINDS if isinstance(content, kind))(content)


class Aside:
    """Stored fields that an object's class no longer has, by object, to be written again with it. Safe from any thread."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[weakref.ref[Any], dict[str, Any]]] = {}

    def put(self, value: Any, fields: dict[str, Any]) -> bool:
        """Keep these for an object; false if the object cannot be recognised again."""
        number = id(value)
        try:
            known = weakref.ref(value, lambda _: self._held.pop(number, None))
        except TypeError:
            return False
        self._held[number] = known, fields
        return True

    def get(self, value: Any) -> dict[str, Any]:
        """What was kept for this very object."""
        known = self._held.get(id(value))
        return known[1] if known is not None and known[0]() is value else {}


aside = Aside()
