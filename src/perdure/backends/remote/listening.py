"""News from an engine behind a network, for as long as the store is open: a connection that breaks is made again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Protocol, runtime_checkable

from perdure.backends.remote.loop import cancel_and_wait
from perdure.backends.spi import Hear
from perdure.errors import Error
from perdure.model.ids import SessionKey

AGAIN_AFTER = (0.1, 0.25, 0.5, 1.0, 2.0)
"""Seconds until a broken connection is made again; the last one repeats."""

Notice = tuple[SessionKey | None, int]
"""A session and a version that is stored; `(None, 0)`: from here on news is heard, and some may have been missed before."""


@runtime_checkable
class NotificationSource(Protocol):
    """What a driver adds whose engine notifies of new records: `capabilities.notification` says whether it does on this server."""

    def notices(self) -> AsyncGenerator[Notice, None]:
        """First `(None, 0)`, once every record that is stored from now on will be notified; then what anyone stores. Closed by its caller.
        A broken connection raises, within the time-outs of the URL."""
        ...


class Listener:
    """Hands a driver's notices on. Lives on the driver's loop."""

    def __init__(self, driver: NotificationSource) -> None:
        self._driver = driver
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self.hears = False

    async def listen(self, hear: Hear, within: float) -> None:
        """See `spi.Notifying.listen`; `within` in seconds."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(hear))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._tried.wait(), within)

    async def _run(self, hear: Hear) -> None:
        failed = 0
        while True:
            try:
                async with contextlib.aclosing(self._driver.notices()) as notices:
                    async for session, version in notices:
                        self.hears, failed = True, 0
                        self._tried.set()
                        hear(session, version)
            except Error:
                pass  # Watchers look at the heads meanwhile, and meet what is wrong.
            finally:
                heard, self.hears = self.hears, False
            self._tried.set()
            if heard:  # Watchers look at the heads from now on; where there were no notifications they do so already.
                hear(None, 0)
            await asyncio.sleep(AGAIN_AFTER[min(failed, len(AGAIN_AFTER) - 1)])
            failed += 1

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            await cancel_and_wait(self._task)
