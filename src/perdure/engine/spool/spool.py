"""What a store's calls do with its spool: enqueue, ask for receipts, wait before a direct write, flush, close."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Iterator
from functools import partial
from typing import Any, TypeVar

from perdure.backends.remote.loop import in_thread
from perdure.backends.spi import Backend, Durability
from perdure.clock import Clock
from perdure.codec.codec import Codec
from perdure.codec.records import request_digest
from perdure.config import Settings
from perdure.engine.read.bodies import Bodies
from perdure.engine.read.cache import Cache
from perdure.engine.read.reader import Reader
from perdure.engine.spool import entries
from perdure.engine.spool.entries import Entry, Outcome, State
from perdure.engine.spool.file import SpoolFile
from perdure.engine.spool.identity import Identity
from perdure.engine.spool.sender import Sender, rebuilt
from perdure.engine.spool.shipper import Shipper
from perdure.engine.spool.signals import Signals
from perdure.engine.views import Receipt, Spooled
from perdure.engine.write.committer import Committer
from perdure.engine.write.keys import Keys
from perdure.errors import Busy, Error, NotFound, QuotaExceeded, TooLarge, Unavailable, Unknown
from perdure.lru import LruMap
from perdure.model.events import Event
from perdure.model.ids import SessionKey, uuid_text
from perdure.redaction import Secrets
from perdure.telemetry import Telemetry, traceparent

T = TypeVar("T")

SEEN_MAX = 16_384
"""Sessions of which it is remembered up to which version this process knows them."""
POLL_FIRST, POLL_MAX = 0.02, 0.5
"""Seconds between two looks of a caller who waits for what another process ships: at first, and at most."""
HELD_ADVICE = "Its later writes to the session wait in the spool: see `perdure spool ls`, then `retry` or `drop` it."

log = logging.getLogger("perdure.spool")


class Spool:
    """The spool of one connection, for its stores of all tenants. Safe from any thread and loop."""

    def __init__(
        self,
        file: SpoolFile,
        backend: Backend,
        codec: Codec,
        reader: Reader,
        cache: Cache,
        keys: Keys,
        committer: Committer,
        durability: Durability,
        clock: Clock,
        settings: Settings,
        telemetry: Telemetry,
        url: str,
        bodies: Bodies,
    ) -> None:
        self._file, self._backend, self._codec, self._cache, self._keys = file, backend, codec, cache, keys
        self._committer, self._durability, self._clock, self._settings = committer, durability, clock, settings
        self._telemetry, self._bodies = telemetry, bodies
        self._signals = Signals()
        self._seen = LruMap[SessionKey, int](SEEN_MAX)
        sender = Sender(file, backend, codec, reader, keys, committer, durability, Secrets(url))
        self._shipper = Shipper(file, sender, Identity(backend, url, clock), self._signals, clock, saw=self.saw, measure=self._measure)

    async def open(self, *, create: bool) -> None:
        """Check the file, or make it, and start to ship. Raises `Invalid`, `NotFound`, `Corrupt`, `Unavailable`, `Unsupported`."""
        await self._file.open(self._backend.store_id, create=create)
        self._shipper.start()

    def saw(self, target: SessionKey, version: int) -> None:
        """This process knows the session up to this version: what it enqueues from now on is meant for the life that has it."""
        if version > (self._seen.get(target) or 0):
            self._seen.put(target, version)

    def _known(self, target: SessionKey) -> int | None:
        cached = self._cache.get(target)
        known = max(self._seen.get(target) or 0, 0 if cached is None else cached.head.version)
        return known or None

    async def enqueue(self, target: SessionKey, events: tuple[Event, ...], key: str | None, actor: str | None) -> tuple[int, str, bool]:
        """Store events in the file; the entry's number and key, and whether it was there already.

        Raises `QuotaExceeded`, `TooLarge`, `KeyReused`, `Invalid`, `Unavailable`, `Unknown`.
        """
        body = self._codec.encode_events(events)
        most = self._backend.capabilities.record_bytes_max
        if len(body) > most and not self._bodies.is_large(body):
            raise TooLarge(f"The events take {len(body):,} bytes as they are stored; this engine's records take {most:,}.")
        entry = Entry(
            target=target,
            key=f"spool-{uuid_text(self._committer.new_id())}" if key is None else key,
            seen=self._known(target),
            at=self._clock.now(),
            actor=actor,
            trace=traceparent(),
            request=request_digest(events),
            body=body,
        )
        limit = self._settings.spool_bytes

        def check_room(held: int) -> None:
            if held + len(body) > limit:
                raise QuotaExceeded(
                    f"The spool {self._file.place} holds {held:,} bytes of at most {limit:,}; nothing was enqueued.",
                    advice="Wait until it was shipped, or raise `spool_bytes`; `perdure spool ls` shows what it holds.",
                )

        try:
            n, duplicate = await self._file.write(lambda connection: entries.add(connection, entry, check_room, new_key=key is None))
        except Unknown as error:
            error.facts.setdefault("key", entry.key)
            raise
        self._shipper.wake(target)
        return n, entry.key, duplicate

    async def receipt(self, target: SessionKey, key: str, n: int | None, timeout: float | None) -> Receipt:
        """The receipt of an entry, once it was shipped. See `Queued.receipt`."""
        end = None if timeout is None else self._clock.monotonic() + timeout
        for pause in _pauses():
            with self._signals.waiting(n) as reply:
                found = await self._file.read(lambda connection: entries.find(connection, target, key, n))
                if not isinstance(found, Entry):
                    return await self._after(target, key, found)
                if found.state is not State.queued:
                    raise await self._held(found)
                left = pause if end is None else min(pause, end - self._clock.monotonic())
                if left <= 0:
                    raise Unavailable(
                        f"The write with the key {key!r} in session {target.id!r} was not shipped within {timeout:g} seconds.",
                        session=target.id,
                        advice="It stays in the spool and will be shipped: ask again later.",
                    )
                await reply.within(left)
        raise AssertionError

    async def _after(self, target: SessionKey, key: str, found: Outcome | None) -> Receipt:
        """The receipt of what is no longer queued. What the spool has forgotten, the store knows by its key."""
        if found is None:
            receipt = await self._keys.find_receipt(target, key, self._durability)
            if receipt is not None:
                return receipt
            raise NotFound(f"Neither the spool nor the store has a write with the key {key!r} in session {target.id!r}.", session=target.id)
        if found.receipt is None:
            raise NotFound(
                f"The write with the key {key!r} in session {target.id!r} was dropped from the spool.",
                session=target.id,
                advice="Decide again whether it is needed.",
            )
        stored = found.receipt
        id = bytes.fromhex(stored.id.replace("-", ""))
        return Receipt(stored.version, id, bytes.fromhex(stored.hash), stored.at, stored.durability, stored.duplicate)

    async def _held(self, entry: Entry) -> Exception:
        if entry.error is not None:
            return rebuilt(entry.error, HELD_ADVICE)
        failed = await self._file.read(lambda connection: entries.first_failed(connection, entry.target, entry.n))
        return Busy(
            f"The write with the key {entry.key!r} waits after one of session {entry.target.id!r} that failed, with the key {failed!r}.",
            session=entry.target.id,
            advice="Retry or drop that one: see `perdure spool ls`.",
        )

    async def settled(self, *targets: SessionKey) -> None:
        """Wait until nothing is queued for these sessions. Raises `Busy` after `spool_wait`, and at once where a failed entry waits."""
        end = self._clock.monotonic() + self._settings.spool_wait
        for target in targets:
            for pause in _pauses():
                with self._signals.waiting(target) as reply:
                    waiting, failed = await self._file.read(partial(entries.session_state, target=target))
                    if failed is not None:
                        raise Busy(
                            f"A write to session {target.id!r} failed in the spool, with the key {failed!r}: nothing may overtake it.",
                            session=target.id,
                            advice="Retry or drop it first: see `perdure spool ls`.",
                        )
                    if not waiting:
                        break
                    left = end - self._clock.monotonic()
                    if left <= 0:
                        raise Busy(
                            f"Session {target.id!r} has writes in the spool that were not shipped "
                            f"within {self._settings.spool_wait:g} seconds, and nothing may overtake them.",
                            session=target.id,
                            advice="Send the call again later, or enqueue it too.",
                        )
                    await reply.within(min(pause, left))

    async def after(self, target: SessionKey, work: Coroutine[Any, Any, T]) -> T:
        """A direct write, after what is queued for its session."""
        try:
            await self.settled(target)
        except BaseException:
            work.close()
            raise
        result = await work
        if isinstance(result, Receipt):
            self.saw(target, result.version)
        return result

    async def flush(self, timeout: float) -> Spooled:
        """Wait until all that is queued now was shipped, so many seconds at most; what the spool holds then."""
        end = self._clock.monotonic() + timeout
        last = (await self._file.read(entries.count)).last
        for pause in _pauses():
            with self._signals.waiting(None) as reply:
                left = end - self._clock.monotonic()
                if left <= 0 or not await self._file.read(lambda connection: entries.any_queued(connection, last)):
                    return await self.state()
                await reply.within(min(pause, left))
        raise AssertionError

    async def state(self) -> Spooled:
        """What the spool holds."""
        found = await self._file.read(entries.count)
        queued = found.entries - found.parked - found.failed
        age = 0.0 if found.oldest_at is None else max(0.0, (self._clock.now() - found.oldest_at) / 1e9)
        return Spooled(queued=queued, parked=found.parked, failed=found.failed, bytes=found.bytes, oldest_seconds=age)

    async def _measure(self) -> None:
        if self._telemetry.measures:
            state = await self.state()
            self._telemetry.spool(self._file.place, state.entries, state.bytes, state.oldest_seconds)

    async def close(self) -> Spooled | None:
        """Stop shipping and release the file; what is left in it, `None` where it cannot be read any more."""
        left = None
        try:
            await self._shipper.stop()
            left = await self.state()
        except Error as error:
            log.warning("What is left in the spool %s cannot be seen: %s", self._file.place, error)
        finally:
            await in_thread(self._end)
        if left is not None and left.entries:
            log.warning(
                "The spool %s has %d writes that were not shipped: %d queued, %d parked, %d failed. The queued ones are shipped by the next"
                " store that is opened with it.",
                self._file.place,
                left.entries,
                left.queued,
                left.parked,
                left.failed,
            )
        return left

    def _end(self) -> None:
        self._shipper.end()
        self._file.end()


def _pauses() -> Iterator[float]:
    """Seconds until the next look, each time twice as long."""
    pause = POLL_FIRST
    while True:
        yield pause
        pause = min(2 * pause, POLL_MAX)
