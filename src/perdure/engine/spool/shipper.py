"""Ships what is queued: one process of those that share a spool does, elected by a lock that ends with its process.

A lane ships the entries of one session, one after another; lanes of several sessions run at once. What the store cannot take now is tried
again, later each time: first by a session of its own, and where the store itself is away by one session for all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import apsw

from perdure.backends.remote.loop import IoLoop, cancel_and_wait
from perdure.clock import Clock
from perdure.concurrency.replies import Reply
from perdure.engine.spool import entries
from perdure.engine.spool.entries import Entry, Shipped, shipped_id
from perdure.engine.spool.file import ShipperLock, SpoolFile
from perdure.engine.spool.identity import Identity
from perdure.engine.spool.sender import Refusal, Sender
from perdure.engine.spool.signals import Signals
from perdure.engine.views import Receipt
from perdure.errors import Busy, Error, Fenced, QuotaExceeded
from perdure.model.ids import SessionKey

LANES = 64
"""Sessions that are shipped at once."""
LANE_ENTRIES = 32
"""Entries that a lane ships before it marks them in the spool, and lets other sessions have its place."""
SCAN = 256
"""Sessions that are looked through for one that can be shipped."""
LOOK_EVERY = 0.1
"""Seconds between two looks for what other processes have enqueued; what this one enqueues is seen at once."""
ELECT_EVERY = 1.0
"""Seconds after which a process that does not ship tries to take over."""
BACKOFF_FIRST, BACKOFF_MAX = 0.1, 15.0
"""Seconds until the first next try, and at most: twice as long each time, and by chance half of that to all of it."""
MEASURE_EVERY = 1.0
"""Seconds between two measures of the spool's depth, where metrics are collected."""
CLOSE_PATIENCE = 5.0
"""Seconds that `close` gives to entries that are being sent."""

log = logging.getLogger("perdure.spool")
_START = SessionKey("", "")


class Backoff:
    """When something is tried again."""

    __slots__ = ("failures", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.until = 0.0

    def fail(self, now: float, chance: float) -> None:
        """It failed once more. `chance` is drawn from 0 to 1."""
        delay = min(BACKOFF_FIRST * 2 ** min(self.failures, 30), BACKOFF_MAX)
        self.failures += 1
        self.until = now + delay * (0.5 + chance / 2)

    def succeed(self) -> None:
        """It worked."""
        self.failures, self.until = 0, 0.0


class Shipper:
    """Runs on a loop and a thread of its own, from `start` until `close`."""

    def __init__(
        self,
        file: SpoolFile,
        sender: Sender,
        identity: Identity,
        signals: Signals,
        clock: Clock,
        *,
        saw: Callable[[SessionKey, int], None],
        measure: Callable[[], Awaitable[None]],
    ) -> None:
        """`saw` is called with each version that was shipped, `measure` about once a second."""
        self._file, self._sender, self._identity, self._signals = file, sender, identity, signals
        self._clock, self._saw, self._measure = clock, saw, measure
        self._lock = ShipperLock(file.options.path)
        self._io = IoLoop("perdure-spool-shipper")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work: asyncio.Event | None = None
        self._done: Reply[None] | None = None
        self._stopping = False
        self._lanes: dict[SessionKey, asyncio.Task[None]] = {}
        self._cursor = _START
        self._outage = Backoff()
        """The store itself: while it is away, one lane at a time tries it."""
        self._delays: dict[SessionKey, Backoff] = {}
        self._measured = 0.0

    def start(self) -> None:
        """Start the thread."""
        self._done = self._io.call(self._run())

    def wake(self, target: SessionKey | None = None) -> None:
        """There is something to ship, of this session. From any thread. Where its entries are being shipped just now, the end of that
        makes the shipper look again."""
        loop, work = self._loop, self._work
        if target in self._lanes:
            return
        if loop is not None and work is not None and not work.is_set():
            with suppress(RuntimeError):  # It has ended.
                loop.call_soon_threadsafe(work.set)

    async def stop(self) -> None:
        """Take up nothing more, and give what is being sent `CLOSE_PATIENCE` to end."""
        self._stopping = True
        self.wake()
        if self._done is not None:
            await self._done.within(CLOSE_PATIENCE)

    def end(self) -> None:
        """End the thread, and let another process ship. Blocks."""
        self._io.close()
        self._lock.release()

    async def _run(self) -> None:
        self._loop, self._work = asyncio.get_running_loop(), asyncio.Event()
        said: str | None = None
        while not self._stopping:
            try:
                if self._lock.take():
                    await self._ship(self._work)
                    return
            except Exception as error:  # noqa: BLE001 - the file may be there again later, and nobody else would ship
                if str(error) != said:
                    said = str(error)
                    log.warning("The spool %s cannot be shipped from now: %s", self._file.place, error)
            finally:
                self._lock.release()
            await self._rest(self._work, ELECT_EVERY)

    async def _rest(self, work: asyncio.Event, seconds: float) -> None:
        """Wait until there is something to do, or so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await work.wait()

    async def _ship(self, work: asyncio.Event) -> None:
        """Fill the lanes until the end."""
        try:
            while not self._stopping:
                work.clear()
                await self._measure_now()
                await self._rest(work, await self._fill())
            if self._lanes:
                await asyncio.wait(self._lanes.values())
        finally:
            await cancel_and_wait(*self._lanes.values())
            self._lanes.clear()

    async def _measure_now(self) -> None:
        now = self._clock.monotonic()
        if now - self._measured >= MEASURE_EVERY:
            self._measured = now
            await self._measure()

    async def _fill(self) -> float:
        """Start lanes for sessions that have something to ship; seconds after which to look again."""
        now, wait = self._clock.monotonic(), LOOK_EVERY
        if now < self._outage.until:
            return self._outage.until - now
        room = 1 if self._outage.failures else LANES
        for _ in range(2):  # From where the last look ended, then from the beginning.
            found = await self._file.read(lambda connection: entries.sessions(connection, self._cursor, SCAN))
            for target in found:
                if len(self._lanes) >= room:
                    return wait
                self._cursor = target
                delay = self._delays.get(target)
                if delay is not None and now < delay.until:
                    wait = min(wait, delay.until - now)
                elif target not in self._lanes:
                    self._start_lane(target)
            if len(found) == SCAN:
                break
            self._cursor = _START
        return wait

    def _start_lane(self, target: SessionKey) -> None:
        task = asyncio.get_running_loop().create_task(self._lane(target))
        self._lanes[target] = task

        def release(task: asyncio.Task[None]) -> None:
            self._lanes.pop(target, None)
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("A lane of the spool ended with an error of its own.", exc_info=error)
            if self._work is not None:
                self._work.set()

        task.add_done_callback(release)

    async def _lane(self, target: SessionKey) -> None:
        """Ship the next entries of a session, in order, until one has to wait or was refused."""
        try:
            shipped: list[tuple[Entry, Receipt]] = []
            await self._identity.prove()
            try:
                for entry in await self._file.read(lambda connection: entries.queued(connection, target, LANE_ENTRIES)):
                    if self._stopping:
                        break
                    result = await self._sender.send(entry)
                    self._succeed(target)
                    if isinstance(result, Refusal):
                        await self._mark(target, shipped, (entry, result))
                        shipped = []
                        break
                    shipped.append((entry, result))
            finally:
                if shipped:
                    await self._mark(target, shipped)
        except Error as error:
            self._fail(target, error)

    async def _mark(self, target: SessionKey, shipped: list[tuple[Entry, Receipt]], refused: tuple[Entry, Refusal] | None = None) -> None:
        """Say in the file what became of entries. What was shipped need not be synced: it would be shipped again, with the same key."""

        def mark(connection: apsw.Connection) -> None:
            for entry, receipt in shipped:
                entries.settle(connection, entry.n, _stored(receipt))
            entries.forget(connection)
            if refused is not None:
                entries.fail(connection, refused[0], refused[1].failure, refused[1].tombstone)

        await self._file.write(mark, synced=refused is not None)
        for _, receipt in shipped:
            self._saw(target, receipt.version)
        self._signals.fire(target, None, *[entry.n for entry, _ in shipped])
        if refused is not None:
            log.warning(
                "A write in the spool %s was refused (%s), and what follows it in its session waits: see `perdure spool ls`.",
                self._file.place,
                refused[1].failure.code,
            )
            self._signals.fire_all()

    def _succeed(self, target: SessionKey) -> None:
        if self._outage.failures:
            log.info("The store takes what the spool %s ships again.", self._file.place)
        self._outage.succeed()
        self._identity.answered()
        self._delays.pop(target, None)

    def _fail(self, target: SessionKey, error: Error) -> None:
        """What the store does not take now is tried again later."""
        now = self._clock.monotonic()
        self._identity.failed()
        self._delays.setdefault(target, Backoff()).fail(now, self._chance())
        if isinstance(error, (Busy, Fenced, QuotaExceeded)):  # It says nothing of other sessions.
            return
        if not self._outage.failures:
            message = self._sender.failure(error)
            log.warning(
                "The store does not take what the spool %s ships (%s): it waits. %s", self._file.place, message.code, message.detail
            )
        if self._outage.until <= now:  # Of several lanes that fail together, one counts.
            self._outage.fail(now, self._chance())

    def _chance(self) -> float:
        return self._clock.bits(16) / (1 << 16)


def _stored(receipt: Receipt) -> Shipped:
    return Shipped(receipt.version, shipped_id(receipt.id), receipt.hash.hex(), receipt.at, receipt.durability, receipt.duplicate)
