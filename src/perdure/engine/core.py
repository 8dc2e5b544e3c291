"""What the stores of all tenants on one connection share: the engine's parts, put together once."""

from __future__ import annotations

import os
import sys
import warnings

from perdure.backends.spi import Backend, Durability, Proving
from perdure.clock import Clock
from perdure.codec.codec import Codec
from perdure.concurrency.replies import FORKED
from perdure.config import Settings, shown_url
from perdure.engine.live.watch import Watchers
from perdure.engine.read.cache import Cache
from perdure.engine.read.reader import Reader
from perdure.engine.write.committer import Committer
from perdure.engine.write.controls import ControlCommits
from perdure.engine.write.keys import Keys
from perdure.engine.write.prefixes import PrefixPolicies
from perdure.engine.write.snapshots import Snapshots
from perdure.engine.write.writer import Writer
from perdure.errors import Closed
from perdure.telemetry import Telemetry


class Core:
    """What the stores of all tenants on one connection share."""

    def __init__(self, backend: Backend, url: str, clock: Clock, settings: Settings, durability: Durability, codec: Codec) -> None:
        self.backend, self.url, self.clock, self.settings, self.durability, self.codec = backend, url, clock, settings, durability, codec
        self.telemetry = Telemetry(clock.monotonic)
        if isinstance(backend, Proving):
            backend.prove_with(codec.check_record)
        self.cache = Cache(settings.cache_bytes)
        self.reader = Reader(backend, codec, self.cache)
        self.writer = Writer(backend)
        self.watchers = Watchers(backend, self.reader, clock, settings)
        self.keys = Keys(backend, self.reader)
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
        )
        self.controls = ControlCommits(backend, codec, self.writer, self.reader, self.cache, self.committer, self.watchers, clock, settings)
        self.pid = os.getpid()
        self.closed = False

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
            await self.writer.drain()
            await self.backend.close()

    def __del__(self) -> None:
        try:
            if not self.closed and self.pid == os.getpid():
                place = shown_url(self.url)
                message = f"A Perdure store on {place} was never closed: use `async with perdure.open(...)`."
                warnings.warn(message, ResourceWarning, stacklevel=1)
        except (AttributeError, TypeError):  # While the interpreter shuts down, modules are already emptied.
            return
