"""An engine and a place whose calls pass a gate: there a test counts them, holds one, or lets the caller die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from perdure.backends.memory import MemoryBackend
from perdure.backends.spi import Durability
from perdure.clock import Clock, SystemClock
from perdure.codec.codec import Codec
from perdure.config import make_settings
from perdure.engine.core import Core
from perdure.engine.store import Store
from perdure.places.place import Place

T = TypeVar("T")


class Death(BaseException):
    """The process ends here: nothing of what the library does after an error comes."""


class Gate:
    """Counts the calls that pass. `die` and `hold` are the number of a call: there the process ends, or waits until `go`. With `after` it
    does so once the call has done its work."""

    def __init__(self, *, die: int | None = None, hold: int | None = None, after: bool = False) -> None:
        self.die, self.hold, self.after = die, hold, after
        self.passed = 0
        self.calls: list[str] = []
        self.held, self.go = asyncio.Event(), asyncio.Event()

    async def through(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        self.passed += 1
        number = self.passed
        self.calls.append(name)
        if not self.after:
            await self._stop(number)
        result = await call()
        if self.after:
            await self._stop(number)
        return result

    async def _stop(self, number: int) -> None:
        if self.die is not None and number >= self.die:
            raise Death(self.calls[number - 1])
        if number == self.hold:
            self.held.set()
            await self.go.wait()


class GatedBackend:
    """The engine of one process: others may use the same one."""

    def __init__(self, backend: MemoryBackend, gate: Gate) -> None:
        self._backend, self._gate = backend, gate
        self.capabilities, self.store_id, self.schema = backend.capabilities, backend.store_id, backend.schema
        self.hears = False

    async def append(self, appends: Any) -> Any:
        return await self._gate.through("append", lambda: self._backend.append(appends))

    async def heads(self, sessions: Any) -> Any:
        return await self._gate.through("heads", lambda: self._backend.heads(sessions))

    async def load(self, session: Any, at: int | None = None) -> Any:
        return await self._gate.through("load", lambda: self._backend.load(session, at))

    async def read(self, session: Any, **options: Any) -> Any:
        return await self._gate.through("read", lambda: self._backend.read(session, **options))

    async def find_key(self, session: Any, key: str) -> Any:
        return await self._gate.through("find_key", lambda: self._backend.find_key(session, key))

    async def put_snapshot(self, session: Any, snapshot: Any, **options: Any) -> Any:
        return await self._gate.through("put_snapshot", lambda: self._backend.put_snapshot(session, snapshot, **options))

    async def scan(self, query: Any, **options: Any) -> Any:
        return await self._gate.through("scan", lambda: self._backend.scan(query, **options))

    async def feed(self, *options: Any) -> Any:
        return await self._gate.through("feed", lambda: self._backend.feed(*options))

    async def truncate(self, session: Any, below: int, anchor: Any, **options: Any) -> Any:
        return await self._gate.through("truncate", lambda: self._backend.truncate(session, below, anchor, **options))

    async def change_index(self, row: Any, index: Any) -> Any:
        return await self._gate.through("change_index", lambda: self._backend.change_index(row, index))

    async def purge(self, session: Any) -> Any:
        return await self._gate.through("purge", lambda: self._backend.purge(session))

    async def listen(self, hear: Any) -> None:
        await self._backend.listen(hear)

    async def close(self) -> None:
        """The engine stays open for the others."""


class GatedPlace(Place):
    """The place of one process."""

    def __init__(self, place: Place, gate: Gate) -> None:
        self._inner, self._gate = place, gate

    @property
    def shown(self) -> str:
        return self._inner.shown

    async def put(self, name: str, data: bytes) -> bool:
        return await self._gate.through("put", lambda: self._inner.put(name, data))

    async def get(self, name: str, start: int = 0, end: int | None = None) -> bytes | None:
        return await self._gate.through("get", lambda: self._inner.get(name, start, end))

    async def list(self, folder: str, after: str = "", limit: int = 1_000) -> Sequence[str]:
        return await self._gate.through("list", lambda: self._inner.list(folder, after, limit))

    async def delete_many(self, names: Sequence[str]) -> None:
        return await self._gate.through("delete", lambda: self._inner.delete_many(names))

    async def close(self) -> None:
        """The place stays open for the others."""


@asynccontextmanager
async def process(
    backend: MemoryBackend, place: Place | None, gate: Gate | None = None, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[Store]:
    """A store on an engine and a place that others use too, as another process has one."""
    gate = gate or Gate()
    archive = None if place is None else GatedPlace(place, gate)
    gated: Any = GatedBackend(backend, gate)
    core = Core(gated, "test:", clock or SystemClock(), make_settings(**settings), Durability.memory, Codec(), None, archive)
    store = Store(core, "default")
    try:
        yield store
    finally:
        gate.die, gate.hold = None, None
        gate.go.set()
        await store.close()
