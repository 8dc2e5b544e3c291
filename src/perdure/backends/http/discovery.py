"""Which nodes there are: asked where they are listed, and asked again while the store is open.

static   the hosts of the URL, for good
`srv`    SRV records of the DNS
`consul` the services that pass their checks, in Consul

An answer without nodes, and none at all, leave the nodes that are known.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

import msgspec

from perdure.backends.http.pool import Pool
from perdure.backends.remote import cancel_and_wait
from perdure.errors import Error, Unavailable

LOOK_MIN, LOOK_MAX = 1.0, 30.0
"""Seconds between two questions, at least and at most: the floor and the ceiling of a TTL, and the first and the longest pause after a
failed question."""

_log = logging.getLogger(__name__)


class Found(msgspec.Struct, frozen=True):
    """An answer."""

    urls: Sequence[str]
    """The nodes, as `http://host:port`; none: none is listed now."""
    again: float | None
    """Seconds after which to ask again; `None`: never."""


class Finder(Protocol):
    """Where nodes are listed. Used on one loop."""

    async def find(self) -> Found:
        """The nodes that are there now. May wait until they change. Raises `Unavailable` where there is no answer,
        `Unauthorized`."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


class Static:
    """The nodes are those of the URL."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._found = Found(urls, None)

    async def find(self) -> Found:
        """See `Finder.find`."""
        return self._found

    async def close(self) -> None:
        """See `Finder.close`."""


class Discovery:
    """Keeps a pool's nodes as a finder lists them. Lives on one event loop."""

    def __init__(self, finder: Finder, pool: Pool, place: str) -> None:
        self._finder, self._pool, self._place = finder, pool, place
        self._soon = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Ask for the first time. Raises `Unavailable` where no node is found."""
        found = await self._finder.find()
        if not found.urls:
            raise Unavailable(f"No node is listed at {self._place}: the name is wrong, or no node is ready yet.")
        self._pool.replace(found.urls)
        if found.again is not None:
            self._task = asyncio.get_running_loop().create_task(self._follow(found.again))

    def hurry(self) -> None:
        """A node could not be reached: ask before it is time, and not more often than once in `LOOK_MIN`."""
        self._soon.set()

    async def _follow(self, again: float) -> None:
        failures, listed = 0, True
        while True:
            await self._pause(again)
            try:
                found = await self._finder.find()
            except Exception as error:  # noqa: BLE001 - whatever it is, the nodes that are known stay, and it is asked again
                what = error.detail if isinstance(error, Error) else repr(error)
                _log.warning("The nodes at %s could not be looked up, those that are known stay: %s", self._place, what)
                again = min(LOOK_MIN * 2**failures, LOOK_MAX)
                failures = min(failures + 1, 16)
                continue
            failures, again = 0, LOOK_MAX if found.again is None else found.again
            if listed and not found.urls:
                _log.warning("No node is listed at %s now, those that are known stay.", self._place)
            listed = bool(found.urls)
            self._pool.replace(found.urls)

    async def _pause(self, seconds: float) -> None:
        first = min(seconds, LOOK_MIN)
        await asyncio.sleep(first)
        try:
            async with asyncio.timeout(seconds - first):
                await self._soon.wait()
        except TimeoutError:
            return
        finally:
            self._soon.clear()

    async def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            await cancel_and_wait(self._task)
        await self._finder.close()
