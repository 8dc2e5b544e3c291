"""A feed that is a log of ranges: which sessions moved from where to where. What an engine of this kind brings is the log's entries.

A cursor names an entry, a session in it, and the version of that session that came last.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from perdure.backends.spi import Change, Page, Record
from perdure.errors import Invalid
from perdure.model.ids import SessionKey

Range = tuple[SessionKey, int, int]
"""A session, and the versions after which and up to which it moved."""


class Read(Protocol):
    """A driver's `read`."""

    async def __call__(self, session: SessionKey, after: int, before: int | None, limit: int, /, *, reverse: bool) -> Sequence[Record]: ...


async def feed_page(
    cursor: str | None,
    limit: int,
    *,
    entry: Callable[[int], Awaitable[Sequence[Range] | None]],
    order: Callable[[int], Awaitable[bool]],
    read: Read,
) -> Page[Change]:
    """A page of the feed. `entry(n)` is the log's entry n, from 0 on, or `None` at its end; `order(n)` adds it, if there is anything to
    add: whether it is there now. Raises `Invalid` for a cursor of another feed."""
    number, place, version = _parsed(cursor)
    changes: list[Change] = []
    while len(changes) < limit:
        ranges = await entry(number)
        if ranges is None:
            if changes or not await order(number):
                break
            continue
        while place < len(ranges) and len(changes) < limit:
            session, after, upto = ranges[place]
            records = await read(session, max(after, version), upto + 1, limit - len(changes), reverse=False)
            changes += [Change(session, record) for record in records]
            version = records[-1].head.version if records else upto  # What was truncated meanwhile is gone here too.
            if version == upto:
                place, version = place + 1, 0
        if place == len(ranges):
            number, place = number + 1, 0
    return Page(changes, f"{number}:{place}:{version}")


def _parsed(cursor: str | None) -> tuple[int, int, int]:
    parts = (cursor or "0:0:0").split(":")
    if len(parts) != 3 or not all(part.isascii() and part.isdecimal() and len(part) < 20 for part in parts):
        raise Invalid(f"{cursor!r} is no cursor of this feed.")
    number, place, version = map(int, parts)
    return number, place, version
