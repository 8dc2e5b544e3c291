"""One reader, and the queues of those who listen to it. All on one event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence

from perdure.errors import Error
from perdure.service.stream.entries import Entry

BACKLOG_MAX = 256
"""Most entries that wait for one listener. One that is slower loses them, and catches up by itself."""
Source = AsyncGenerator[tuple[Sequence[Entry], str], None]
"""Entries as they come, and the position after them; without entries only the position has moved on."""


class Listener:
    """The queue of one who listens."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        self.lagging = False
        """Whether entries were dropped."""
        self.error: Error | None = None
        """What ended the channel."""
        self.over = False
        """Whether the channel has ended."""
        self._waiter: asyncio.Future[None] | None = None

    def put(self, entry: Entry) -> None:
        """One more entry."""
        if self.lagging:
            return
        if len(self.entries) >= BACKLOG_MAX:
            self.entries.clear()
            self.lagging = True
        else:
            self.entries.append(entry)
        self.wake()

    def wake(self) -> None:
        """End the wait, if somebody waits."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Until there is something, for so many seconds at most, or until it is woken."""
        if self.entries or self.over or self.lagging or seconds <= 0:
            return
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(seconds, self.wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None


class Channel:
    """Reads a source for as long as somebody listens."""

    def __init__(self, source: Source, position: str, finished: Callable[[], None]) -> None:
        """`position` is where the source begins. `finished` is called when the channel is of no more use."""
        self.position = position
        self._source, self._notify_ended = source, finished
        self._listeners: set[Listener] = set()
        self._task = asyncio.ensure_future(self._run())

    def __len__(self) -> int:
        return len(self._listeners)

    def listen(self) -> Listener:
        """From now on each entry is put into the listener's queue."""
        listener = Listener()
        self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """Listen no more. Without listeners the channel ends."""
        self._listeners.discard(listener)
        if not self._listeners:
            self.close()

    def close(self) -> None:
        """End the reader."""
        self._notify_ended()
        self._task.cancel()

    async def _run(self) -> None:
        error: Error | None = None
        try:
            async for entries, position in self._source:
                for entry in entries:
                    for listener in tuple(self._listeners):
                        listener.put(entry)
                self.position = position
        except Error as raised:
            error = raised
        finally:
            self._notify_ended()
            for listener in tuple(self._listeners):
                listener.error, listener.over = error, True
                listener.wake()
            await self._source.aclose()
