"""The memory engine behind a driver, and a network between them that loses requests and answers by a seed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from perdure.backends.memory import MemoryBackend
from perdure.backends.remote import Answer, Attempt, HeadMismatch, Notice, RemoteBackend, Stored, open_remote
from perdure.backends.spi import Append, Appended, Durability, Head, Record, Refused
from perdure.clock import SeededClock
from perdure.errors import Unavailable, Unknown
from perdure.model.ids import SessionKey


class MemoryDriver:
    """A `Driver` on a memory engine. Each write yields to the loop, as a network does; `writes` counts them."""

    durability_read = Durability.memory
    proves_heads = False

    def __init__(self, backend: MemoryBackend, *, lanes: int = 1, batch_max: int = 64) -> None:
        self.backend, self.lanes, self.batch_max = backend, lanes, batch_max
        self.capabilities, self.store_id = backend.capabilities, backend.store_id
        self.schema = backend.schema
        self.writes = 0

    async def write(self, attempts: Sequence[Attempt]) -> Sequence[Answer]:
        assert len({attempt.session for attempt in attempts}) == len(attempts) <= self.batch_max
        self.writes += 1
        await asyncio.sleep(0)
        return [await self.apply(attempt) for attempt in attempts]

    async def apply(self, attempt: Attempt) -> Answer:
        def finish(head: Head | None) -> Sequence[Record] | None:
            return attempt.records if head == attempt.expected else None

        (outcome,) = await self.backend.append([Append(attempt.session, finish, attempt.key, attempt.index)])
        if isinstance(outcome, Appended):
            return Stored(outcome.durability)
        return HeadMismatch(outcome.head) if isinstance(outcome, Refused) else outcome

    async def load(self, session, at):
        return await self.backend.load(session, at)

    async def read(self, session, after, before, limit, *, reverse):
        return await self.backend.read(session, after=after, before=before, limit=limit, reverse=reverse)

    async def scan(self, query, cursor, limit):
        return await self.backend.scan(query, cursor=cursor, limit=limit)

    async def change_index(self, row, index):
        return await self.backend.change_index(row, index)

    async def put_snapshot(self, session, snapshot, *, size_bytes=None):
        await self.backend.put_snapshot(session, snapshot, size_bytes=size_bytes)

    async def truncate(self, session, below, anchor, *, snapshot=False):
        await self.backend.truncate(session, below, anchor, snapshot=snapshot)

    async def require_writer(self, version):
        await self.backend.require_writer(version)

    async def migrate(self, from_version, progress):
        await self.backend.migrate(from_version, progress)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    async def notices(self) -> AsyncGenerator[Notice, None]:
        """What the engine tells, until `break_off`."""
        loop, self._heard = asyncio.get_running_loop(), asyncio.Queue[Notice | None]()
        heard = self._heard

        def hear(session: SessionKey | None, version: int) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(heard.put_nowait, (session, version))

        await self.backend.listen(hear)
        yield None, 0
        while (notice := await heard.get()) is not None:
            yield notice
        raise Unavailable("the connection broke")

    async def break_off(self) -> None:
        """Break the connection that news comes by."""
        self._heard.put_nowait(None)

    async def close(self) -> None:
        """The data stays: another driver may be on it."""


class LossyDriver(MemoryDriver):
    """Loses a write, its answer, or delays it behind an `Unknown` (a zombie), each with a chance of one in `odds`; seeded."""

    def __init__(self, backend: MemoryBackend, seed: int, *, odds: int = 6, lanes: int = 2, batch_max: int = 8) -> None:
        super().__init__(backend, lanes=lanes, batch_max=batch_max)
        self.random, self.odds = Random(seed), odds
        self.zombies: list[Attempt] = []
        self.faults: list[str] = []

    def fault(self, name: str) -> bool:
        hit = self.random.randrange(self.odds) == 0
        if hit:
            self.faults.append(name)
        return hit

    async def write(self, attempts: Sequence[Attempt]) -> Sequence[Answer]:
        await self.wake()
        if self.fault("refused"):
            raise Unavailable("no connection")
        if self.fault("asleep"):
            self.zombies += attempts
            raise Unknown("no answer; it lands later")
        answers = await super().write(attempts)
        if self.fault("answer"):
            raise Unknown("the answer was lost")
        return [Unknown("this answer was lost") if self.fault("one answer") else answer for answer in answers]

    async def read(self, session, after, before, limit, *, reverse):
        if self.fault("read"):
            raise Unavailable("no connection for a read")
        found = await super().read(session, after, before, limit, reverse=reverse)
        await self.wake()
        return found

    async def wake(self) -> None:
        """Let writes land whose time had run out long ago."""
        while self.zombies and self.random.randrange(3) == 0:
            await self.apply(self.zombies.pop(self.random.randrange(len(self.zombies))))


def memory(seed: int = 1) -> MemoryBackend:
    return MemoryBackend(SeededClock(seed))


@asynccontextmanager
async def opened(driver: MemoryDriver, *, timeout: float = 10.0) -> AsyncIterator[RemoteBackend]:
    async def connect() -> MemoryDriver:
        return driver

    backend = await open_remote(connect, place="test://nowhere", timeout=timeout)
    try:
        yield backend
    finally:
        await backend.close()
