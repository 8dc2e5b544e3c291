"""Agents that write all the time, each to a session of its own, while nodes come and go: none of their calls may fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from urllib.parse import SplitResult, urlsplit

from perdure import Event, Store
from tests.support.backends.scenarios import until

WRITERS = 4
PATIENCE = 120.0
"""Seconds for what other programs have to notice first."""


class Writers:
    """What they have written."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.written = [0] * WRITERS
        self._over = False
        self._running: set[asyncio.Task[None]] = set()

    async def write(self, number: int) -> None:
        """Write until it is over. Raises what a call raises."""
        while not self._over:
            await self._store.append(f"s{number}", Event("note", self.written[number]))
            self.written[number] += 1

    async def progress(self) -> None:
        """Wait until each has written some more."""
        least = [count + 5 for count in self.written]
        await until(lambda: all(now >= count for now, count in zip(self.written, least, strict=True)), PATIENCE)

    async def listed(self, *ports: int) -> None:
        """Wait until the client knows the nodes on these ports and no others, and its agents write on."""
        await until(lambda: {url.port for url in self._known()} == {*ports}, PATIENCE)
        await self.progress()

    async def listed_hosts(self, hosts: AbstractSet[str]) -> None:
        """Wait until the client knows the nodes on these hosts and no others, and its agents write on."""
        await until(lambda: {url.hostname for url in self._known()} == hosts, PATIENCE)
        await self.progress()

    def _known(self) -> list[SplitResult]:
        pool = self._store._core.backend.driver.calls._pool  # type: ignore[attr-defined]
        return [urlsplit(member.url) for member in pool.members]

    async def check(self) -> None:
        """Stop them; what they wrote is there, once each and in order."""
        self._over = True
        await until(lambda: not self._running)
        for number, count in enumerate(self.written):
            data = [commit.events[0].data async for commit in self._store.history(f"s{number}")]
            assert data == list(range(count))


@asynccontextmanager
async def writing(store: Store) -> AsyncIterator[Writers]:
    """They write inside the block. A call that fails ends it."""
    writers = Writers(store)
    async with asyncio.TaskGroup() as group:
        writers._running = {group.create_task(writers.write(number)) for number in range(WRITERS)}
        for task in writers._running.copy():
            task.add_done_callback(writers._running.discard)
        await writers.progress()
        try:
            yield writers
        finally:
            writers._over = True
