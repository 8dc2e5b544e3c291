"""Whether a value that was read back is the one that was written: equal and of the same types, all the way down."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from datetime import datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from perdure.adapters.langgraph import arrays
from perdure.adapters.langgraph.lost import Lost
from perdure.adapters.langgraph.objects import GROUPS, family
from perdure.adapters.langgraph.refusals import Refused, would_lose

_IDENTITY: Any = object.__eq__


def compare(before: Any, after: Any) -> None:
    """Raise `Refused`, with the path to the first difference."""
    if before is after or isinstance(before, Lost):
        return
    kind = type(before)
    if isinstance(after, Lost):
        raise would_lose(kind, after.why)
    if type(after) is not kind:
        raise would_lose(kind, f"it would become a {type(after).__module__}.{type(after).__qualname__}")
    if kind is str or kind is int or kind is bool or before is None or kind is bytes or kind is bytearray:
        _check(before == after, kind)
    elif kind is float:
        _check(repr(before) == repr(after), kind)
    elif kind in (list, tuple, deque):
        _check(len(before) == len(after) and getattr(before, "maxlen", None) == getattr(after, "maxlen", None), kind)
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            _inner(one, other, f"[{index}]")
    elif kind in (dict, defaultdict, OrderedDict, Counter):
        _check(len(before) == len(after) and getattr(before, "default_factory", None) is getattr(after, "default_factory", None), kind)
        for (key, one), (name, other) in zip(before.items(), after.items(), strict=True):
            _inner(key, name, f"[{key!r:.40}]")
            _inner(one, other, f"[{key!r:.40}]")
    elif kind is set or kind is frozenset:
        _check(before == after and Counter(map(type, before)) == Counter(map(type, after)), kind)
    elif kind is datetime or kind is time:
        _check(_moment(before) == _moment(after), kind)
    else:
        _objects(before, after, kind)


def _objects(before: Any, after: Any, kind: type) -> None:
    numbers = arrays.encode(before)
    if numbers is not None:
        _check(numbers == arrays.encode(after), kind)
        return
    how = family(kind)
    if how is None:
        # Objects without an `__eq__` cannot be compared. Only a serialiser of the user's writes such objects.
        _check(kind.__eq__ is _IDENTITY or repr(before) == repr(after) or bool(before == after), kind)
        return
    one, other = how.take(before), how.take(after)
    _check(one.keys() - {"unset"} == other.keys() - {"unset"}, kind)
    for part, content in one.items():
        if part in GROUPS:
            _check(content.keys() == other[part].keys(), kind)
            for name, item in content.items():
                _inner(item, other[part][name], f".{name}")
        elif part != "unset":
            _inner(content, other[part], "")


def _inner(before: Any, after: Any, part: str) -> None:
    try:
        compare(before, after)
    except Refused as refused:
        raise refused.within(part) from None


def _moment(value: Any) -> tuple[Any, ...]:
    zone = value.tzinfo
    return value.isoformat(), value.fold, zone.key if isinstance(zone, ZoneInfo) else None


def _check(same: bool, kind: type) -> None:
    if not same:
        raise would_lose(kind, "its content would differ")
