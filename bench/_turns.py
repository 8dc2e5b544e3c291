"""What the benchmarks of engines share: 64 sessions at once through Perdure, a bare client that groups its writes, a table of both."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import msgspec
from _harness import turn

import perdure
from perdure import Event

SESSIONS = 64

Session = Callable[[int, int], Awaitable[None]]
"""The turns of one session: its number, and how many turns."""
W = TypeVar("W")


async def together(session: Session, turns: int) -> float:
    """Turns a second of all sessions."""
    start = time.perf_counter()
    await asyncio.gather(*[session(number, turns) for number in range(SESSIONS)])
    return SESSIONS * turns / (time.perf_counter() - start)


async def warmed(session: Session, turns: int) -> float:
    """Turns a second of all sessions, after two turns of each that are not counted."""
    await together(session, 2)
    return await together(session, turns)


async def perdure_turns(url: str, turns: int) -> float:
    """Ours, through the public API."""
    async with perdure.open(url) as store:

        async def session(number: int, turns: int) -> None:
            for count in range(turns):
                await store.append(f"s{number}", *[Event("message", message) for message in turn(count)])

        return await warmed(session, turns)


class Grouped(ABC, Generic[W]):
    """A bare client: what waits goes together in one write, which a subclass makes in `send`."""

    def __init__(self) -> None:
        self.waiting: list[tuple[W, asyncio.Future[None]]] = []
        self.flushing: asyncio.Task[None] | None = None

    @abstractmethod
    def write(self, id: str, expected: int, body: bytes) -> W:
        """One session's turn after the version expected, as `send` takes it."""

    @abstractmethod
    async def send(self, batch: Sequence[W]) -> None:
        """Write these turns, each under its head's condition."""

    async def append(self, id: str, expected: int, messages: list[dict[str, str]]) -> None:
        """Store one turn."""
        done = asyncio.get_running_loop().create_future()
        self.waiting.append((self.write(id, expected, msgspec.json.encode(messages)), done))
        if self.flushing is None:
            self.flushing = asyncio.create_task(self.flush())
        await done

    async def flush(self) -> None:
        """Send what waits until nothing does."""
        while self.waiting:
            batch, self.waiting = self.waiting, []
            await self.send([write for write, _ in batch])
            for _, future in batch:
                future.set_result(None)
        self.flushing = None

    async def turns(self, turns: int) -> float:
        """Turns a second of all sessions."""
        done = [0] * SESSIONS

        async def session(number: int, turns: int) -> None:
            for count in range(turns):
                await self.append(f"s{number}", done[number], turn(count))
                done[number] += 1

        return await warmed(session, turns)
