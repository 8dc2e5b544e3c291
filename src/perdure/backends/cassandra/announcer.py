"""Announces each append to the feed before it is tried: without that nothing would know of a record whose writer died.

An announcement says when, which session, which versions; the append that follows carries that time. The time is looked at once more when
the announcement is durable: it may be at most half a horizon old, and so may it be when a further append relies on it. All that wait while
one is on its way share the next. A session that is appended to again and again is announced ahead, some versions at a time: its next
appends, while they are this process's own, one right after the other, and in time, need no announcement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from perdure.backends.cassandra.buckets import REMEMBERED, Chain
from perdure.backends.spi import Record
from perdure.clock import Clock
from perdure.errors import Error, Unavailable
from perdure.lru import LruMap
from perdure.model.ids import SessionKey

Entry = tuple[str, str, int, int, int, bytes]
"""Tenant, session, bucket, first and last version, and the first commit's id; without an id the versions are announced ahead."""
WINDOW = 600 * 10**9
"""Nanoseconds of one partition's share of the feed."""
SLOTS = 8
"""Partitions a window: processes are spread over them."""
AHEAD = 64
"""Most versions announced at once."""
APPENDS_AT_ONCE = 1_000
"""Most appends announced in one row."""
TRIES = 4

_ENCODER = msgspec.msgpack.Encoder()


class Announcement(NamedTuple):
    """What appends may rely on: this bucket's versions from `next` to `last` were announced at `at` (ns); that holds `until` and the
    append before was stored at `stored` (seconds of the loop's clock)."""

    at: int
    until: float
    bucket: int
    next: int
    last: int
    stored: float = 0.0


class FeedAnnouncer:
    """The writing half of the feed. `horizon` in seconds."""

    def __init__(self, chain: Chain, clock: Clock, horizon: float) -> None:
        self._chain, self._client, self._clock, self._horizon = chain, chain.client, clock, horizon
        self._writer = clock.bits(63)
        self._waiting: list[tuple[Entry, asyncio.Future[tuple[int, float]]]] = []
        self._task: asyncio.Task[None] | None = None
        self._last = 0
        self._windows: set[int] = set()
        self._relied = LruMap[SessionKey, Announcement](REMEMBERED)

    async def announce(self, session: SessionKey, bucket: int, records: Sequence[Record], end: int) -> Announcement:
        """What an append of these records may rely on, now durable. `end`: the last version that an append of one record may have here.

        Raises `Unavailable`.
        """
        now = asyncio.get_running_loop().time()
        first, last = records[0].head.version, records[-1].head.version
        known = self._relied.pop(session)  # It comes back when this append was stored: whatever else happens ends it.
        if known is not None and (known.bucket, known.next) == (bucket, first) and last <= known.last and now < known.until:
            return known
        often = known is not None and now - known.stored < self._horizon / 4
        upto = max(last, min(end, first + AHEAD - 1)) if often else last
        future: asyncio.Future[tuple[int, float]] = asyncio.get_running_loop().create_future()
        self._waiting.append(((session.tenant, session.id, bucket, first, upto, records[0].id if upto == last else b""), future))
        if self._task is None:
            self._task = asyncio.ensure_future(self._announce_all())
        at, until = await future
        return Announcement(at, until, bucket, first, upto)

    def stored(self, session: SessionKey, announcement: Announcement, last: int) -> None:
        """The append that relied on it is in the chain, up to this version: the next may."""
        self._relied.put(session, announcement._replace(next=last + 1, stored=asyncio.get_running_loop().time()))

    async def _announce_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:APPENDS_AT_ONCE], self._waiting[APPENDS_AT_ONCE:]
            try:
                times = await self._announce([entry for entry, _ in batch])
            except BaseException as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error if isinstance(error, Error) else Unavailable("The append could not be announced."))
                if not isinstance(error, Exception):
                    self._task = None
                    raise
            else:
                for _, future in batch:
                    if not future.done():
                        future.set_result(times)
        self._task = None

    async def _announce(self, entries: Sequence[Entry]) -> tuple[int, float]:
        tick = asyncio.get_running_loop().time
        for _ in range(TRIES):
            until = tick() + self._horizon / 2
            at = self._last = max(self._clock.now(), self._last + 1)
            window = at // WINDOW
            if window not in self._windows:
                await self._client.run("open_window", self._chain.ns, window)
                self._windows.add(window)
            slot = self._writer % SLOTS
            await self._client.run("announce", self._chain.ns, window, slot, at, self._writer, _ENCODER.encode(entries))
            if tick() < until:
                return at, until
        raise Unavailable(f"Cassandra took longer than {self._horizon / 2:g} s for the announcement of an append, {TRIES} times in a row.")
