"""Whether the place of a store still holds that store. A spool is of one store: what it has is sent nowhere else.

A server may come back empty, or with another store. Where the engine says at the cost of a read which store it holds, it is asked before
each lane. Elsewhere the place is opened once more after a failure, and after a pause.
"""

from __future__ import annotations

import asyncio

from perdure.backends.registry import open_backend
from perdure.backends.spi import Backend, Durability, Identified
from perdure.clock import Clock
from perdure.errors import NotFound, Unavailable

PROVE_AFTER = 30.0
"""Seconds without an answer of the store after which its place is opened once more."""


class Identity:
    """The store of one connection, as the shipper sees it."""

    def __init__(self, backend: Backend, url: str, clock: Clock) -> None:
        self._backend, self._url, self._clock = backend, url, clock
        self._lock = asyncio.Lock()
        self._answered: float | None = clock.monotonic()
        """When the store has answered last; `None`: something has failed since."""

    def answered(self) -> None:
        """The store has taken something."""
        if self._answered is not None:
            self._answered = self._clock.monotonic()

    def failed(self) -> None:
        """Something was not taken."""
        self._answered = None

    async def prove(self) -> None:
        """Raise `Unavailable` where the place holds another store, or none; and as `open`."""
        if self._backend.capabilities.durability == Durability.memory:
            return
        async with self._lock:
            try:
                found = await self._found()
            except NotFound:
                found = ""
            mine = self._backend.store_id
            if found != mine:
                holds = f"the store {found}" if found else "no store"
                message = f"There is {holds} in the place of the store {mine}, of which the spool is."
                raise Unavailable(message, advice="Nothing was sent there. Bring that store back from a backup: then it goes on.")
            self._answered = self._clock.monotonic()

    async def _found(self) -> str:
        known = await self._backend.identify() if isinstance(self._backend, Identified) else None
        if known is not None:
            return known
        if self._answered is not None and self._clock.monotonic() - self._answered < PROVE_AFTER:
            return self._backend.store_id
        again = await open_backend(self._url, clock=self._clock, create=False)
        try:
            return again.store_id
        finally:
            await again.close()
