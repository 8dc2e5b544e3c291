"""A feed that is a log of ranges: which sessions moved from where to where. What an engine of this kind brings is the log's entries.

A cursor names an entry, a session in it, and the version of that session that came last. Numbers of entries are given once: where one was
swept away, its readers go on with the next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from perdure.backends.common.refusals import numbers_of
from perdure.backends.spi import Change, Page, Record
from perdure.model.ids import SessionKey

Range = tuple[SessionKey, int, int]
"""A session, and the versions after which and up to which it moved."""
Ranges = Sequence[Range | None]
"""An entry. What was swept out of it leaves its place, by which cursors count."""
_ENCODE = msgspec.msgpack.Encoder().encode
_RANGES = msgspec.msgpack.Decoder(list[tuple[str, str, int, int] | None])

SWEPT = 4
"""Ranges that a sweep looks at for each record that was dropped: what is left of the dead stays a share of the living."""
STEP, SWEPT_MOST = 64, 2048
"""It looks at so many in any case, and at no more than that."""
SWEPT_ENTRIES = 8
"""Entries read at once by a sweep."""


def encode_ranges(ranges: Ranges) -> bytes:
    """The bytes of an entry, which are stored."""
    return _ENCODE([one and (*one[0], *one[1:]) for one in ranges])


def decode_ranges(blob: bytes) -> Ranges:
    """The entry that these bytes are. Raises `msgspec.DecodeError`."""
    return [one and (SessionKey(one[0], one[1]), one[2], one[3]) for one in _RANGES.decode(blob)]


class Read(Protocol):
    """A driver's `read`."""

    async def __call__(self, session: SessionKey, after: int, before: int | None, limit: int, /, *, reverse: bool) -> Sequence[Record]: ...


class Log(Protocol):
    """What an engine does with the entries of its log."""

    async def entries(self, low: int, limit: int) -> Sequence[tuple[int, Ranges]]:
        """The first entries from this number on, in order."""
        ...

    async def firsts(self, sessions: Sequence[SessionKey]) -> Mapping[SessionKey, int]:
        """The first version that each of these sessions still has; without those that are not there."""
        ...

    async def replace(self, changed: Mapping[int, Ranges | None], place: int) -> None:
        """Put these entries in place of what `entries` gave for them, `None`: remove them; the next sweep begins at `place`."""
        ...


async def feed_page(
    cursor: str | None,
    limit: int,
    *,
    entries: Callable[[int, int], Awaitable[Sequence[tuple[int, Ranges]]]],
    order: Callable[[int], Awaitable[bool]],
    read: Read,
) -> Page[Change]:
    """A page of the feed. `entries` as in `Log`; `order(n)` adds an entry after all others, where there is none from n on and there is
    anything to add: whether there is one now. Raises `Invalid` for a cursor of another feed."""
    number, place, version = _parsed(cursor)
    changes: list[Change] = []
    while len(changes) < limit:
        found = await entries(number, 1)
        if not found:
            if changes or not await order(number):
                break
            continue
        ((there, ranges),) = found
        if there != number:
            number, place, version = there, 0, 0
        while place < len(ranges) and len(changes) < limit:
            session, after, upto = ranges[place] or (None, 0, 0)
            if session is not None:
                records = await read(session, max(after, version), upto + 1, limit - len(changes), reverse=False)
                changes += [Change(session, record) for record in records]
                version = records[-1].head.version if records else upto  # What was truncated meanwhile is gone here too.
            if session is None or version == upto:
                place, version = place + 1, 0
        if place == len(ranges):
            number, place = number + 1, 0
    return Page(changes, f"{number}:{place}:{version}")


async def sweep(log: Log, place: int, dropped: int) -> None:
    """Take the ranges of records that are gone out of the log, after so many were dropped. It goes on from `place`, where the last sweep
    stopped, and starts again at the end. An entry goes when all its records are gone, and gets smaller when half of them are."""
    budget = min(SWEPT * dropped + STEP, SWEPT_MOST)  # Of ranges, and of entries.
    while budget > 0:
        found = await log.entries(place, SWEPT_ENTRIES)
        firsts = await log.firsts([*dict.fromkeys(one[0] for _, ranges in found for one in ranges if one is not None)])
        changed: dict[int, Ranges | None] = {}
        for number, ranges in found:
            left = [one if one is not None and one[2] >= firsts.get(one[0], one[2] + 1) else None for one in ranges]
            gone = sum(one is None for one in left) - sum(one is None for one in ranges)
            if not any(left):
                changed[number] = None
            elif 2 * gone >= sum(one is not None for one in ranges):
                changed[number] = left
        at_end = len(found) < SWEPT_ENTRIES
        place = 0 if at_end else found[-1][0] + 1
        await log.replace(changed, place)
        if at_end:
            break
        budget -= sum(1 + sum(one is not None for one in ranges) for _, ranges in found)


def _parsed(cursor: str | None) -> tuple[int, int, int]:
    number, place, version = numbers_of(cursor or "0:0:0", 3)
    return number, place, version
