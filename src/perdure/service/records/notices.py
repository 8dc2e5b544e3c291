"""Which sessions have found: what an engine notifies of, for all clients of a node.

The news of a client is collected for `COALESCED` seconds and sent together. It is a hint, as an engine's own is: who hears it looks at the
chain. An engine that does not notify says so in its capabilities, and then clients look at the heads that they watch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from perdure.backends.spi import Hear
from perdure.model.ids import SessionKey
from perdure.wire.records import Moved

COALESCED = 0.02
"""Seconds for which news is collected."""
WAITING_MAX = 20_000
"""Sessions with news that may wait to be sent to one client: beyond that the notice says that some was lost."""

Wanted = Callable[[SessionKey], bool]


class _Listener:
    """One client: what was not sent to it yet."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.moved: dict[SessionKey, int] = {}
        self.lost = False
        self.woken = asyncio.Event()

    def hear(self, session: SessionKey | None, version: int) -> None:
        """On the loop of the client's stream."""
        if session is None:
            self.lost = True
        elif not self.wanted(session):
            return
        elif len(self.moved) < WAITING_MAX or session in self.moved:
            self.moved[session] = max(version, self.moved.get(session, 0))
        else:
            self.moved.clear()
            self.lost = True
        self.woken.set()

    def take(self) -> Moved:
        """What is to be sent now."""
        found = Moved(tuple(self.moved.items()), self.lost)
        self.moved, self.lost = {}, False
        self.woken.clear()
        return found


class NoticeHub:
    """Hears an engine once, for all listeners. Lives on the loop of the node."""

    def __init__(self, listen: Callable[[Hear], Awaitable[None]]) -> None:
        """`listen` has a function called with all news from then on."""
        self._listen = listen
        self._listeners: set[_Listener] = set()
        self._listening: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def hear(self, session: SessionKey | None, version: int) -> None:
        """A record of this version is there; of `None`: some may have gone unheard. From any thread."""
        loop = self._loop
        if loop is not None and self._listeners:
            try:
                loop.call_soon_threadsafe(self._notify, session, version)
            except RuntimeError:  # The node's loop has ended.
                self._loop = None

    def _notify(self, session: SessionKey | None, version: int) -> None:
        for listener in self._listeners:
            listener.hear(session, version)

    async def notices(self, wanted: Wanted, heartbeat: float, versions: Callable[[], Awaitable[Moved]]) -> AsyncGenerator[Moved, None]:
        """First what `versions` finds, once news is heard. Then what comes, and after `heartbeat` seconds without any a sign of life."""
        listener = _Listener(wanted)
        self._loop = asyncio.get_running_loop()
        self._listeners.add(listener)
        try:
            if self._listening is None or (self._listening.done() and (self._listening.cancelled() or self._listening.exception())):
                self._listening = asyncio.ensure_future(self._listen(self.hear))
            await asyncio.shield(self._listening)
            yield await versions()
            while True:
                try:
                    async with asyncio.timeout(heartbeat):
                        await listener.woken.wait()
                except TimeoutError:
                    yield Moved()
                    continue
                await asyncio.sleep(COALESCED)
                yield listener.take()
        finally:
            self._listeners.discard(listener)
