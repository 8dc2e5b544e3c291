"""What tests of leases share: a session, an event, an engine that counts its calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from perdure import Event, op
from perdure.backends.memory import MemoryBackend
from perdure.backends.spi import Append, Durability, Head, Outcome, Record
from perdure.clock import SystemClock
from perdure.codec.codec import Codec
from perdure.config import Settings
from perdure.engine.core import Core
from perdure.engine.store import Store
from perdure.errors import Unavailable
from perdure.model.ids import SessionKey

S = SessionKey("default", "s")
OPS = Event("set", None, (op.set("/n", 1),))


class Counting(MemoryBackend):
    """Memory that counts its calls, and can be away."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.reads = self.looks = self.writes = 0
        self.away = False

    async def append(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
        self._check()
        self.writes += len(appends)
        return await super().append(appends)

    async def heads(self, sessions: Sequence[SessionKey]) -> Sequence[Head | None]:
        self._check()
        self.looks += 1
        return await super().heads(sessions)

    async def read(self, session: SessionKey, **options: Any) -> Sequence[Record]:
        self._check()
        self.reads += 1
        return await super().read(session, **options)

    def _check(self) -> None:
        if self.away:
            raise Unavailable("The engine is away.")


def store_on(backend: MemoryBackend, clock: Any = None) -> Store:
    """A store object of its own on this engine."""
    return Store(Core(backend, "memory:", clock or SystemClock(), Settings(), Durability.memory, Codec()), "default")


async def until(condition: Any, seconds: float = 60) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.01)


async def events(store: Store) -> list[str]:
    """What the commits of the session say, control commits too."""
    return [commit.events[0].type async for commit in store.history("s", control=True)]
