"""What the stores of all tenants on one connection share: the engine's parts, put together once."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from perdure.backends.spi import Backend, Durability, Proving
from perdure.clock import Clock
from perdure.codec.codec import Codec
from perdure.concurrency.replies import FORKED
from perdure.config import Settings, shown_url
from perdure.engine.archive.archiver import Archiver
from perdure.engine.archive.retention import Retention
from perdure.engine.archive.unread import Unread
from perdure.engine.leasing.leases import Leases
from perdure.engine.live.changes import Follower
from perdure.engine.live.watch import Watchers
from perdure.engine.read.bodies import Bodies
from perdure.engine.read.cache import Cache
from perdure.engine.read.chains import Chains
from perdure.engine.read.reader import Reader
from perdure.engine.read.segments import Segments
from perdure.engine.read.shared.client import CacheClient
from perdure.engine.read.shared.tier import SharedTier
from perdure.engine.read.sizes import StateSizes
from perdure.engine.views import CacheInfo
from perdure.engine.write.committer import Committer
from perdure.engine.write.controls import ControlCommits
from perdure.engine.write.keys import Keys
from perdure.engine.write.prefixes import PrefixPolicies
from perdure.engine.write.quotas import make_quotas
from perdure.engine.write.shared_secret import load_secret
from perdure.engine.write.snapshots import Snapshots
from perdure.engine.write.writer import Writer
from perdure.errors import Closed
from perdure.model.ids import SessionKey
from perdure.telemetry import Telemetry

if TYPE_CHECKING:
    from perdure.engine.spool.spool import Spool  # It imports the SQLite engine, which most stores do not need.
    from perdure.engine.views import Spooled
    from perdure.places.place import Place

T = TypeVar("T")


class Core:
    """What the stores of all tenants on one connection share."""

    def __init__(
        self,
        backend: Backend,
        url: str,
        clock: Clock,
        settings: Settings,
        durability: Durability,
        codec: Codec,
        place: Place | None = None,
        archive: Place | None = None,
    ) -> None:
        """`place` is for bodies out of line, `archive` for segments; both are closed with the store."""
        self.backend, self.url, self.clock, self.settings, self.durability, self.codec = backend, url, clock, settings, durability, codec
        self.telemetry = Telemetry(clock.monotonic)
        if isinstance(backend, Proving):
            backend.prove_with(codec.check_record)
        self.cache = Cache(settings.cache_bytes, settings.cache_ttl, clock.monotonic, self.telemetry)
        self.segments = Segments(archive)
        self.chains = Chains(backend, codec, self.segments)
        self.bodies = Bodies(self.chains, place, settings.blob_bytes)
        self.reader = Reader(self.chains, codec, self.cache, self.bodies)
        self.sizes = StateSizes(codec, settings.warn_bytes, self.telemetry)
        self.writer = Writer(backend, self.telemetry, self.cache.saw_all)
        self.watchers = Watchers(backend, self.reader, clock, settings)
        self.keys = Keys(backend, self.reader, self.bodies)
        self.snapshots = Snapshots(backend, codec, self.cache, settings.snapshot_bytes_min)
        self.prefixes = PrefixPolicies(backend, clock)
        self.committer = Committer(
            backend,
            codec,
            self.writer,
            self.reader,
            self.cache,
            self.keys,
            self.snapshots,
            self.prefixes,
            self.watchers,
            clock,
            settings,
            self.telemetry,
            self.bodies,
            make_quotas(clock, settings),
            self.sizes,
        )
        self.controls = ControlCommits(backend, codec, self.writer, self.reader, self.cache, self.committer, self.watchers, clock, settings)
        self.follower = partial(Follower, backend, codec, self.bodies, self.chains, self.watchers, clock, settings)
        """Makes a follower of a tenant's changes, of a selection, after a cursor. It does not refer to this object, which warns when it is
        forgotten unclosed."""
        self.unread = Unread(backend, self.reader, clock, self.follower)
        self.archiver = Archiver(
            backend,
            codec,
            self.reader,
            self.chains,
            self.segments,
            self.controls,
            self.snapshots,
            clock,
            durability,
            self.bodies,
            self.unread,
            self.telemetry,
        )
        self.retention = Retention(backend, codec, self.reader, self.chains, self.segments, self.archiver, clock, self.bodies, self.unread)
        self.committer.restore = self.archiver.restore
        self.leases = Leases(
            backend, self.controls, self.cache, self.snapshots, self.watchers, clock, durability, self.telemetry, self.keys
        )
        self.spool: Spool | None = None
        self.spool_left: Spooled | None = None
        self.shared: SharedTier | None = None
        self.pid = os.getpid()
        self.closed = False

    def in_order(self, session: SessionKey, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """A direct write: with a spool it waits for what is queued for its session. See `Spool.settled`."""
        return work if self.spool is None else self.spool.after(session, work)

    async def settled(self, *sessions: SessionKey) -> None:
        """Wait for what is queued for these sessions. Raises `Busy`."""
        if self.spool is not None:
            await self.spool.settled(*sessions)

    def saw(self, session: SessionKey, version: int) -> None:
        """A caller was given this version: what it enqueues next is meant for the life that has it."""
        if self.spool is not None:
            self.spool.saw(session, version)

    def cache_info(self) -> CacheInfo:
        """See `Store.cache_info`."""
        cache = self.cache
        shared = None if self.shared is None else self.shared.info()
        return CacheInfo(cache.hits, cache.misses, cache.evictions, len(cache), cache.size, cache.size_max, shared)

    async def share(self, client: CacheClient, *, create: bool) -> None:
        """Read through a shared cache from now on. Without `create` the store must have a key for it: else `NotFound`."""
        secret = await load_secret(self.reader, self.committer, self.durability, create=create)
        timeout = self.settings.cache_timeout
        self.shared = SharedTier(client, self.backend, self.codec, secret, timeout, self.clock, self.telemetry)
        self.reader.share(self.shared)

    def check_open(self) -> None:
        """Raise `Closed` after `close`, and in a forked child."""
        if self.closed:
            raise Closed
        if self.pid != os.getpid():
            raise Closed(FORKED)

    def check_process(self) -> None:
        """Raise `Closed` in a forked child: its copies of locks may be held by threads that it does not have."""
        if self.pid != os.getpid():
            raise Closed(FORKED)

    async def close(self) -> None:
        """Finish the appends in progress and release everything. While the interpreter shuts down, nothing is waited for."""
        if not self.closed:
            self.check_process()
            self.closed = True
            if sys.is_finalizing():
                return
            self.watchers.close()
            self.cache.close()
            try:
                await self.leases.close()
                if self.spool is not None:
                    self.spool_left = await self.spool.close()
            finally:
                await self._close_engine()

    async def _close_engine(self) -> None:
        await self.writer.drain()
        try:
            if self.shared is not None:
                await self.shared.close()
            await self.backend.close()
        finally:
            await self.bodies.close()
            await self.segments.close()

    def __del__(self) -> None:
        try:
            if not self.closed and self.pid == os.getpid():
                self.leases.keeper.stop()
                place = shown_url(self.url)
                message = f"A Perdure store on {place} was never closed: use `async with perdure.open(...)`."
                warnings.warn(message, ResourceWarning, stacklevel=1)
        except (AttributeError, TypeError):  # While the interpreter shuts down, modules are already emptied.
            return
