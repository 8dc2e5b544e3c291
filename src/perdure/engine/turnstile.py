"""One stateful commit of a session at a time in this process, first come first served.

Without it the tasks of one process race one another for each head, and all but one lose; the true race, with other processes,
is decided by the engine as ever.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType

from perdure.backends.bridge import Reply
from perdure.model.ids import SessionKey


class Turnstile:
    """`async with turnstile.turn(session)`: from any loop or thread."""

    def __init__(self) -> None:
        self._waiting: dict[SessionKey, deque[Reply[None]]] = {}
        self._lock = threading.Lock()

    def turn(self, session: SessionKey) -> Turn:
        """A turn to be entered once."""
        return Turn(self, session)

    async def enter(self, session: SessionKey) -> None:
        """Wait until nobody before me is inside. Cancelled: my place goes to the next."""
        with self._lock:
            queue = self._waiting.get(session)
            if queue is None:
                self._waiting[session] = deque()
                return
            reply: Reply[None] = Reply()
            queue.append(reply)
        try:
            await reply
        except BaseException:
            with self._lock:
                mine = reply in queue
                if mine:
                    queue.remove(reply)
            if not mine:
                self.leave(session)
            raise

    def leave(self, session: SessionKey) -> None:
        """Let the next one in."""
        with self._lock:
            queue = self._waiting[session]
            following = queue.popleft() if queue else None
            if following is None:
                del self._waiting[session]
        if following is not None:
            following.set(None)


class Turn:
    """One passage."""

    def __init__(self, turnstile: Turnstile, session: SessionKey) -> None:
        self._turnstile, self._session = turnstile, session

    async def __aenter__(self) -> None:
        await self._turnstile.enter(self._session)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._turnstile.leave(self._session)
