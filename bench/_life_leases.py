"""Leases: what an append under one costs, what holding costs while nobody competes, and how soon a silent holder is followed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from _harness import small, table

from perdure import Event
from perdure.backends.memory import MemoryBackend
from perdure.backends.spi import Append, Durability, Head, Outcome
from perdure.clock import SystemClock
from perdure.codec.codec import Codec
from perdure.config import Settings
from perdure.engine.core import Core
from perdure.engine.store import Store
from perdure.model.ids import SessionKey

HELD = 20 if small() else 1_000
APPENDS = 20 if small() else 1_000
TTL = 3.0
TTLS = 1 if small() else 5
"""For how many ttls the leases are held."""


class Counted(MemoryBackend):
    """An engine that counts the requests that it gets."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.writes = self.looks = 0

    async def append(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
        self.writes += 1
        return await super().append(appends)

    async def heads(self, sessions: Sequence[SessionKey]) -> Sequence[Head | None]:
        self.looks += 1
        return await super().heads(sessions)


def store_on(backend: MemoryBackend) -> Store:
    """A store object of its own on this engine."""
    return Store(Core(backend, "memory:", SystemClock(), Settings(), Durability.memory, Codec()), "default")


async def measure() -> list[tuple[str, ...]]:
    """A row for each figure."""
    backend = Counted()
    store, other = store_on(backend), store_on(backend)
    leases = [await store.lease(f"session-{number}", owner="bench", ttl=TTL).__aenter__() for number in range(HELD)]
    backend.writes = backend.looks = 0
    await asyncio.sleep(TTLS * TTL)
    rows = [
        (f"writes while {HELD:,} leases are held for {TTLS} ttls", f"{backend.writes}", "0"),
        ("requests for heads, per ttl/3 and 256 leases", f"{backend.looks / (3 * TTLS) / -(-HELD // 256):.2f}", "1 to 1.25"),
    ]
    store._core.leases.keeper.stop()
    backend.writes = backend.looks = 0
    for _ in range(APPENDS):
        await store.append("session-0", Event("turn"), lease=leases[0])
    rows.append(("requests of an append under a lease", f"{(backend.writes + backend.looks) / APPENDS:.2f}", "1"))
    start = time.monotonic()
    async with other.lease("session-0", owner="next", ttl=TTL, wait=10 * TTL):
        seconds = time.monotonic() - start
    rows.append((f"seconds until a silent holder of a ttl of {TTL:g} s is followed", f"{seconds:.2f}", f"≤ {TTL * 1.1 + 1:.1f}"))
    await other._core.leases.close()
    await store.close()
    other._core.closed = True
    return rows


def leases() -> None:
    """Print the table."""
    table("Leases, in memory", [("what", "found", "wanted"), *asyncio.run(measure())])
