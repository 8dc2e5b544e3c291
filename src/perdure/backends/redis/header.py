"""The header of a store, in the first shard, and in each shard the least version of a writer, which every function that writes compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.backends.common.schema import check_writer
from perdure.backends.common.store_header import StoreHeader, open_header
from perdure.backends.common.upgrade import SchemaState
from perdure.backends.redis.connections import Connections, Words
from perdure.backends.redis.layout import LIBRARY
from perdure.backends.spi import SCHEMA_VERSION
from perdure.clock import Clock
from perdure.errors import Corrupt, Error, NotFound

_WRITES = {"put_snapshot", "truncate", "purge", "change_index", "require_writer", "swap_header"}


def writes(name: str) -> bool:
    """Whether a function changes anything."""
    return name in _WRITES


def function(name: str, prefix: str, *more: str | bytes | int) -> tuple[str, Words]:
    """A function's call on a shard, whose keys begin with `prefix`."""
    return prefix, ("FCALL" if writes(name) else "FCALL_RO", f"perdure_{LIBRARY}_{name}", 1, prefix, prefix, *more)


class RedisHeader:
    """The header of the store whose shards' keys begin with `prefixes`. It is `upgrade.Headers`."""

    def __init__(self, connections: Connections, prefixes: Sequence[str]) -> None:
        self._connections, self._prefixes = connections, prefixes
        self._key = f"{prefixes[0]}store"

    async def open(self, clock: Clock, *, create: bool) -> StoreHeader:
        """Read it; make the store where there is none, or without `create` raise `NotFound`."""

        async def make(id: str) -> None:
            header = msgspec.json.encode({"schema": SCHEMA_VERSION, "id": id, "min_writer": SCHEMA_VERSION})
            await self._connections.one(self._key, "SET", self._key, header, "NX", writes=True)

        return await open_header(
            self._stored, make, _parsed,
            place=self._connections.place, what=f"the key {self._key!r}", known=SCHEMA_VERSION, clock=clock, create=create,
        )  # fmt: skip

    async def _stored(self) -> bytes | None:
        found: bytes | None = await self._connections.one(self._key, "GET", self._key)
        return found

    async def id(self) -> str:
        """The id of the store that is there now. Raises `NotFound`."""
        found = await self._stored()
        if found is None:
            raise NotFound(f"There is no store in {self._connections.place}.", missing="store")
        return _parsed(found).id

    async def _certain(self) -> bytes:
        found = await self._stored()
        if found is None:
            raise Corrupt(f"The key {self._key!r} is gone from {self._connections.place}: restore it from a backup.")
        return found

    async def read(self) -> SchemaState:
        """See `upgrade.Headers`."""
        return msgspec.json.decode(await self._certain(), type=SchemaState)

    async def swap(self, old: SchemaState, new: SchemaState) -> bool:
        """See `upgrade.Headers`."""
        before = await self._certain()
        if msgspec.json.decode(before, type=SchemaState) != old:
            return False
        fields = new.within(msgspec.json.decode(before))
        key, words = function("swap_header", self._prefixes[0], before, msgspec.json.encode(fields))
        return bool(await self._connections.one(key, *words, writes=True))

    async def mark(self, version: int) -> None:
        """Let each shard refuse writers below this version."""
        calls = [function("require_writer", prefix, version) for prefix in self._prefixes]
        for answer in await self._connections.call(calls, writes=True):
            if isinstance(answer, Error):
                raise answer

    async def check(self, writer: int) -> None:
        """Raise `Unsupported` where the store does not take this writer, for a write that would be refused for other reasons first."""
        check_writer(self._connections.place, writer, (await self.read()).min_writer)


def _parsed(found: bytes) -> StoreHeader:
    header = msgspec.json.decode(found, type=dict[str, Any])
    least = header.get("min_writer")
    return StoreHeader(int(header["schema"]), str(header["id"]), None if least is None else int(least))
