"""An event: what happened, in the domain's words, and the operations by which it changed the state."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.errors import Invalid
from perdure.model.ops import Op

TYPE_BYTES_MAX = 255
"""Longest event type, in bytes of UTF-8."""


class Event(msgspec.Struct, frozen=True, array_like=True):
    """One thing that happened.

    `type` names it (1 to 255 bytes), `data` is any JSON value, `ops` say how the state changes. An event without
    operations is history only: it is read by range and never makes the state larger.
    """

    type: str
    data: Any = None
    ops: tuple[Op, ...] = ()


def is_event_type(name: object) -> bool:
    """Whether `name` is a string of 1 to 255 bytes without control characters."""
    return type(name) is str and len(name) > 0 and name.isprintable() and (len(name) <= 63 or len(name.encode()) <= TYPE_BYTES_MAX)


def check_event_type(name: object) -> None:
    """Raise `Invalid` unless `is_event_type`."""
    if type(name) is not str or not name:
        raise Invalid(f"An event's type must be a non-empty string, not {name!r}.")
    if not is_event_type(name):
        raise Invalid(f"An event's type must have at most {TYPE_BYTES_MAX} bytes and no control characters; this one starts {name[:40]!r}.")
