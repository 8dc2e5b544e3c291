"""Telling the feed, before each append, what is about to be tried: without it nothing would know of a record whose writer died.

A telling says when, which session, which versions; the append that follows carries that time. The time is looked at once more when the
telling is durable: it may be at most half a horizon old, and so may it be when a further append relies on it. All that wait while one is
on its way share the next. A session that is appended to again and again is told of ahead, some versions at a time: its next appends,
while they are this process's own, one right behind the other, and in time, need no telling.
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
"""Tenant, session, bucket, first and last version, and the first commit's id; without an id the versions are told ahead."""
WINDOW = 600 * 10**9
"""Nanoseconds of one partition's share of the feed."""
SLOTS = 8
"""Partitions a window: processes are spread over them."""
AHEAD = 64
"""Most versions told at once."""
TOLD_AT_ONCE = 1_000
"""Most appends told in one row."""
TRIES = 4

_ENCODER = msgspec.msgpack.Encoder()


class Told(NamedTuple):
    """What appends may rely on: the feed was told at `at` (ns) of this bucket's versions from `next` to `last`; it holds `until` and the
    append before was stored at `stored` (seconds of the loop's clock)."""

    at: int
    until: float
    bucket: int
    next: int
    last: int
    stored: float = 0.0


class Teller:
    """The writing half of the feed. `horizon` in seconds."""

    def __init__(self, chain: Chain, clock: Clock, horizon: float) -> None:
        self._chain, self._client, self._clock, self._horizon = chain, chain.client, clock, horizon
        self._writer = clock.bits(63)
        self._waiting: list[tuple[Entry, asyncio.Future[tuple[int, float]]]] = []
        self._teller: asyncio.Task[None] | None = None
        self._last = 0
        self._windows: set[int] = set()
        self._relied = LruMap[SessionKey, Told](REMEMBERED)

    async def tell(self, session: SessionKey, bucket: int, records: Sequence[Record], end: int) -> Told:
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
        if self._teller is None:
            self._teller = asyncio.ensure_future(self._tell_all())
        at, until = await future
        return Told(at, until, bucket, first, upto)

    def stored(self, session: SessionKey, told: Told, last: int) -> None:
        """The append that relied on it is in the chain, up to this version: the next may."""
        self._relied.put(session, told._replace(next=last + 1, stored=asyncio.get_running_loop().time()))

    async def _tell_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:TOLD_AT_ONCE], self._waiting[TOLD_AT_ONCE:]
            try:
                told = await self._tell([entry for entry, _ in batch])
            except BaseException as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error if isinstance(error, Error) else Unavailable("The feed could not be told."))
                if not isinstance(error, Exception):
                    self._teller = None
                    raise
            else:
                for _, future in batch:
                    if not future.done():
                        future.set_result(told)
        self._teller = None

    async def _tell(self, entries: Sequence[Entry]) -> tuple[int, float]:
        tick = asyncio.get_running_loop().time
        for _ in range(TRIES):
            until = tick() + self._horizon / 2
            at = self._last = max(self._clock.now(), self._last + 1)
            window = at // WINDOW
            if window not in self._windows:
                await self._client.run("open_window", self._chain.ns, window)
                self._windows.add(window)
            slot = self._writer % SLOTS
            await self._client.run("tell", self._chain.ns, window, slot, at, self._writer, _ENCODER.encode(entries))
            if tick() < until:
                return at, until
        raise Unavailable(f"Cassandra took longer than {self._horizon / 2:g} s to be told of an append, {TRIES} times in a row.")
