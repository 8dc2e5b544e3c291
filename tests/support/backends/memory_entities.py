"""Where the driver is tried: entities in memory, by the documented conditions, with whatever should go wrong."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, NamedTuple

from perdure.backends.google.checkup import Settings
from perdure.backends.google.driver import GoogleDriver
from perdure.backends.google.entities import KNOWN, Absent, Entity, Fields, Path, Refused, Version, Write
from perdure.backends.remote import RemoteBackend, open_remote
from perdure.clock import SystemClock

_VERSIONS = count(1)


class Unknown(NamedTuple):
    """A field of a later version, in a service's own form."""

    value: object


class MemoryEntities:
    """`Entities` in a dict that several drivers may share. `troubles` are raised by the next commits, before or after they are applied.
    Each driver has a thread of its own, so a lock holds what a service would do as one."""

    server, is_production = "a dict (API v0)", False

    def __init__(self, data: dict[Path, Entity] | None = None, *, minds: bool = True) -> None:
        """`minds`: whether it minds conditions, as it should."""
        self.data = {} if data is None else data
        self.minds = minds
        self.calls: Counter[str] = Counter()
        self.troubles: list[tuple[str, Exception]] = []
        self._lock = threading.Lock()

    async def get(self, paths: Sequence[Path]) -> Sequence[Entity | None]:
        self.calls["get"] += 1
        await asyncio.sleep(0)
        return [self.data.get(path) for path in paths]

    async def query(
        self, above: Path, kind: str, low: str, high: str, limit: int, where: Sequence[tuple[str, str | int]] = ()
    ) -> Sequence[Entity]:
        self.calls["query"] += 1
        await asyncio.sleep(0)
        with self._lock:
            entities = list(self.data.items())
        found = [
            entity
            for path, entity in entities
            if path[:-2] == above
            and path[-2] == kind
            and low.encode() <= path[-1].encode() < high.encode()
            and all(_has(entity.fields, name, value) for name, value in where)
        ]
        return sorted(found, key=lambda entity: entity.path[-1].encode())[:limit]

    async def ordered(self, kind: str, field: str, after: str, below: str, limit: int) -> Sequence[Entity]:
        self.calls["ordered"] += 1
        await asyncio.sleep(0)
        with self._lock:
            entities = list(self.data.items())
        found = [
            (str(text).encode(), entity)
            for path, entity in entities
            if path[:-1] == (kind,)
            and (text := entity.fields.get(field)) is not None
            and after.encode() < str(text).encode() < below.encode()
        ]
        return [entity for _, entity in sorted(found, key=lambda one: one[0])[:limit]]

    async def commit(self, writes: Sequence[Write]) -> Sequence[Version]:
        self.calls["commit"] += 1
        await asyncio.sleep(0)
        assert len({write.path for write in writes}) == len(writes), "a service takes an entity once in a commit"
        names = {name for write in writes for name, value in (write.fields or {}).items() if not isinstance(value, Unknown)}
        assert names <= KNOWN, names
        with self._lock:
            return self._commit(writes)

    def _commit(self, writes: Sequence[Write]) -> Sequence[Version]:
        when, trouble = self.troubles.pop(0) if self.troubles else ("", None)
        if trouble is not None and when == "before":
            raise trouble
        for write in writes:
            held = self.data.get(write.path)
            fits = held is None if isinstance(write.on, Absent) else write.on is None or (held is not None and held.version == write.on)
            if self.minds and not fits:
                raise Refused
        number = next(_VERSIONS)
        for write in writes:
            if write.fields is None:
                self.data.pop(write.path, None)
            else:
                self.data[write.path] = Entity(write.path, dict(write.fields), number)
        if trouble is not None:
            raise trouble
        return [number] * len(writes)

    async def close(self) -> None:
        """The data stays: another driver may be on it."""


def _has(fields: Fields, name: str, value: str | int) -> bool:
    held: Any = fields.get(name)
    return value in held if isinstance(value, str) and held is not None else held == value


async def unasked() -> Settings:
    """A dict is set to nothing."""
    return Settings(None, None, None, "nothing")


@asynccontextmanager
async def on(entities: MemoryEntities, *, timeout: float = 2) -> AsyncIterator[RemoteBackend]:
    """A backend on these entities."""

    async def connect() -> GoogleDriver:
        driver = GoogleDriver(entities, "memory", unasked)
        await driver.start(SystemClock())
        return driver

    backend = await open_remote(connect, place="google:memory", timeout=timeout)
    try:
        yield backend
    finally:
        await backend.close()
