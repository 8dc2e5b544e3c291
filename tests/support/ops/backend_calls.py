"""A backend whose calls a test counts: it dies at one of them, or has something else happen before one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import perdure
from perdure.backends.memory import MemoryBackend
from perdure.backends.spi import Durability
from perdure.clock import Clock
from perdure.codec.codec import Codec
from perdure.config import make_settings
from perdure.engine.core import Core
from perdure.places.place import Place

CALLS = ("append", "heads", "load", "read", "find_key", "put_snapshot", "change_index", "scan", "feed", "truncate", "purge")


class Died(BaseException):
    """The process is dead: nothing that it awaits comes back."""


class CountedCalls:
    """A backend in memory, seen by one process of several. `die_at`: the number of the call, from 1, that never comes back: it was not
    made, or with `late` it was. `before`: run once before the call of this number."""

    def __init__(
        self,
        backend: MemoryBackend,
        *,
        die_at: int = 0,
        late: bool = False,
        at: int = 0,
        before: Callable[[], Awaitable[Any]] | None = None,
    ) -> None:
        self.backend, self.count, self.names = backend, 0, list[str]()
        self._die_at, self._late, self._at, self._before = die_at, late, at, before
        self.capabilities, self.store_id, self.schema = backend.capabilities, backend.store_id, backend.schema
        self.pause: Callable[[], Awaitable[None]] | None = None
        self.hears, self.listen, self.require_writer, self.migrate = False, backend.listen, backend.require_writer, backend.migrate

    async def close(self) -> None:
        """The data stay for the other processes."""


def _counted(name: str) -> Callable[..., Awaitable[Any]]:
    async def call(self: CountedCalls, *arguments: Any, **options: Any) -> Any:
        if self.pause is not None:
            await self.pause()
        self.count += 1
        self.names.append(name)
        number = self.count
        if number == self._at and self._before is not None:
            await self._before()
        if self._die_at and (number > self._die_at or (number == self._die_at and not self._late)):
            raise Died
        result = await getattr(self.backend, name)(*arguments, **options)
        if number == self._die_at:
            raise Died
        return result

    return call


for _name in CALLS:
    setattr(CountedCalls, _name, _counted(_name))


class _Process(Core):
    """One of several processes in this one: it may die without closing its store."""

    def __del__(self) -> None:
        pass


def store_on(backend: Any, clock: Clock, tenant: str = "default", archive: Place | None = None) -> perdure.Store:
    """A store on a backend that is there: another process on the same data."""
    return perdure.Store(
        _Process(backend, "memory:", clock, make_settings(), Durability.memory, Codec("json", {}), archive=archive), tenant
    )
