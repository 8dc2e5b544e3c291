"""Turns before the engine: so many requests at a time, and of those that wait each tenant's first in rotation.

However many requests one tenant sends, another one's next request waits for one turn of each tenant that waits, and not for their queues.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque


class FairQueue:
    """`slots` turns at a time. Belongs to one event loop."""

    def __init__(self, slots: int) -> None:
        self.free = slots
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    def acquire_now(self) -> bool:
        """Take a turn, if one is free."""
        if self.free > 0 and not self._waiting:
            self.free -= 1
            return True
        return False

    async def acquire(self, tenant: str) -> None:
        """Wait for a turn. Who is cancelled has none."""
        if self.acquire_now():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            else:
                self._forget(tenant, turn)
            raise

    def release(self) -> None:
        """End a turn: the next tenant's first one begins."""
        while self._waiting:
            tenant, turns = next(iter(self._waiting.items()))
            turn = turns.popleft()
            if turns:
                self._waiting.move_to_end(tenant)
            else:
                del self._waiting[tenant]
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def _forget(self, tenant: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(tenant)
        if turns is not None and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[tenant]
