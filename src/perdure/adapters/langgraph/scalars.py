"""Single values of the standard library as JSON, and back.

bytes, text with half a surrogate pair    {"$": "bytes", "base64": …}
inf, nan                             {"$": "float", "value": "inf"}
a datetime                           {"$": "datetime", "value": …, "zone": "Europe/Rome"}
a date, a UUID, a path, …            {"$": "uuid.UUID", "ext": 0, "value": …}: as the framework calls their constructors
"""

from __future__ import annotations

import base64
import ipaddress
import pathlib
import re
import uuid
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from math import isfinite
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from perdure.adapters.langgraph.messages import TAG
from perdure.adapters.langgraph.refusals import would_lose
from perdure.errors import Unsupported

SINGLE, POSITIONS, NAMES, METHOD = range(4)
"""The framework's numbers for how a constructor is called."""
_LEAVES: dict[Any, tuple[int, Callable[[Any], Any]]] = {
    date: (POSITIONS, lambda value: [value.year, value.month, value.day]),
    timedelta: (POSITIONS, lambda value: [value.days, value.seconds, value.microseconds]),
    uuid.UUID: (SINGLE, lambda value: value.hex),
    Decimal: (SINGLE, str),
    type(pathlib.Path()): (POSITIONS, lambda value: list(value.parts)),
    **{getattr(ipaddress, f"IPv{version}{name}"): (SINGLE, str) for version in (4, 6) for name in ("Address", "Interface", "Network")},
}


def text(value: str) -> Any:
    """A string; one with half of a surrogate pair, which UTF-8 cannot say, by its bytes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return {TAG: "text", "base64": base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()}
    return value


def encode(value: Any, kind: type) -> Any:
    """A value of exactly this type as JSON; `None` if the type is not one of these. Raises `Refused` for a zone that would be lost."""
    if kind is float:
        return value if isfinite(value) else {TAG: "float", "value": repr(value)}
    if kind is bytes or kind is bytearray:
        return {TAG: kind.__name__, "base64": base64.b64encode(value).decode()}
    if kind is datetime:
        return _moment(value)
    if kind is time:
        zone = None if value.tzinfo is None else _zone(value.tzinfo)
        names = ("hour", "minute", "second", "microsecond")
        return _leaf("datetime.time", NAMES, {**{name: getattr(value, name) for name in names}, "tzinfo": zone, "fold": value.fold})
    if kind is timezone or kind is ZoneInfo:
        return _zone(value)
    if kind is re.Pattern:
        pattern = text(value.pattern) if isinstance(value.pattern, str) else encode(value.pattern, bytes)
        return _leaf("re.compile", POSITIONS, [pattern, value.flags])
    leaf = _LEAVES.get(kind)
    return None if leaf is None else _leaf(f"{kind.__module__}.{kind.__name__}", leaf[0], leaf[1](value))


def _leaf(name: str, code: int, value: Any) -> dict[str, Any]:
    return {TAG: name, "ext": code, "value": value}


def _moment(value: datetime) -> Any:
    """A datetime; one in a named zone keeps the name; the framework's serialiser would keep the offset of that day."""
    zone = value.tzinfo
    encoded: dict[str, Any] = {TAG: "datetime"}
    if isinstance(zone, ZoneInfo) and zone.key is not None:
        encoded |= {"value": value.replace(tzinfo=None, fold=0).isoformat(), "zone": zone.key}
    else:
        name = None if zone is None else _fixed(zone, datetime)
        encoded["value"] = value.isoformat()
        encoded |= {"name": name} if name else {}
    return encoded | {"fold": 1} if value.fold else encoded


def _fixed(zone: Any, kind: type) -> str | None:
    """The name of a zone that is nothing but an offset (whatever its class: it comes back as a `timezone`), if it has one of its own."""
    try:
        offset = zone.utcoffset(None)
    except Exception:  # noqa: BLE001 - a class of the user's, which may not be written for this question
        offset = None
    if offset is None:
        raise would_lose(kind, f"its time zone {zone!r:.60} has rules, of which only the offset would be kept: use zoneinfo.ZoneInfo")
    name: str | None = zone.tzname(None) if type(zone) is timezone else None
    return None if name == timezone(offset).tzname(None) else name


def _zone(zone: Any) -> dict[str, Any]:
    if isinstance(zone, ZoneInfo):
        if zone.key is None:
            raise would_lose(type(zone), "it has no name by which it could be found")
        return _leaf("zoneinfo.ZoneInfo", SINGLE, zone.key)
    name = _fixed(zone, type(zone))
    offset = encode(zone.utcoffset(None), timedelta)
    return _leaf("datetime.timezone", POSITIONS, [offset] if name is None else [offset, name])


def decode(tag: Any, stored: dict[str, Any]) -> Any:
    """The value of a tag without "ext". Raises `Unsupported` for a tag that only a newer version writes."""
    if tag == "bytes":
        return from_base64(stored)
    if tag == "bytearray":
        return bytearray(from_base64(stored))
    if tag == "text":
        return from_base64(stored).decode("utf-8", "surrogatepass")
    if tag == "float":
        return float(stored["value"])
    if tag == "datetime":
        moment = datetime.fromisoformat(stored["value"])
        zone = _named(stored["zone"]) if "zone" in stored else moment.tzinfo
        if "name" in stored:
            zone = timezone(moment.utcoffset() or timedelta(), stored["name"])
        return moment.replace(tzinfo=zone, fold=stored.get("fold", 0))
    raise Unsupported(f"A stored value has the type {tag!r:.60}, which this version of the adapter does not know: use a newer one.")


def _named(key: str) -> ZoneInfo:
    try:
        return ZoneInfo(key)
    except ZoneInfoNotFoundError as error:
        raise Unsupported(f"A stored time is in the zone {key!r:.60}, which is not known here: install tzdata.") from error


def from_base64(stored: dict[str, Any]) -> bytes:
    """The bytes of a stored value."""
    return base64.b64decode(stored["base64"], validate=True)
