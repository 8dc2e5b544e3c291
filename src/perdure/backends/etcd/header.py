"""The header of a store: one value, which every write compares, so that a writer that is too old meets it in the write itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.backends.common.schema import check_writer, writer_version
from perdure.backends.common.store_header import StoreHeader, open_header
from perdure.backends.common.upgrade import SchemaState
from perdure.backends.etcd.gateway import Gateway, Json, absent, data, get, holds, items, nested, put
from perdure.backends.spi import SCHEMA_VERSION
from perdure.clock import Clock
from perdure.errors import Corrupt, Unavailable

_TRIES = 16
"""How often a write is sent with the header as it is now; an upgrade that is at work changes it every few seconds."""


class GuardedHeader:
    """The header of the store that the key `meta` names. It is `upgrade.Headers`."""

    def __init__(self, gateway: Gateway, meta: bytes) -> None:
        self._gateway, self._meta = gateway, meta
        self._place, self._writer = "", 0
        self._taken = b""
        """The header, as it was seen to take this writer."""

    async def open(self, place: str, clock: Clock, *, create: bool) -> StoreHeader:
        """Read it; make the store where there is none, or without `create` raise `NotFound`."""
        made = {"schema": SCHEMA_VERSION, "min_writer": SCHEMA_VERSION}

        async def make(id: str) -> None:
            value = msgspec.msgpack.encode({**made, "store": id})
            await self._gateway.txn([absent(self._meta)], [put(self._meta, value)])

        opened = b""

        def parsed(value: bytes) -> StoreHeader:
            nonlocal opened
            opened = value
            return _parsed(value)

        what = f"the key {self._meta.decode()!r}"
        header = await open_header(self._stored, make, parsed, place=place, what=what, known=SCHEMA_VERSION, clock=clock, create=create)
        self._place, self._writer = place, writer_version(header.schema)
        if (header.min_writer or 1) <= self._writer:
            self._taken = opened
        return header

    async def _stored(self) -> bytes | None:
        found = items(await self._gateway.range(key=self._meta))
        return data(found[0], "value") if found else None

    async def write(self, requests: Sequence[Json]) -> list[Json]:
        """Send the requests in one transaction while the store takes this writer; their answers. Raises `Unsupported`."""
        for _ in range(_TRIES):
            answer = await self._gateway.txn([holds(self._meta, self._taken)], requests, [get(self._meta)])
            if answer.get("succeeded"):
                answers: list[Json] = answer.get("responses", [])
                return answers
            found = items(answer["responses"][0])
            stored = self._certain(data(found[0], "value") if found else None)
            check_writer(self._place, self._writer, _state(stored).min_writer)
            self._taken = stored
        raise Unavailable(f"The header of {self._place} changes too often to be compared: try again later.")

    async def decide(self, compare: Sequence[Json], success: Sequence[Json], failure: Sequence[Json] = ()) -> Json:
        """As `write`: one transaction with comparisons of its own, and its answer."""
        (answer,) = await self.write([nested(compare, success, failure)])
        inner: Json = answer["response_txn"]
        return inner

    async def check(self) -> None:
        """Raise `Unsupported` where the store does not take this writer, for a write that would be refused for other reasons first."""
        check_writer(self._place, self._writer, (await self.read()).min_writer)

    def _certain(self, stored: bytes | None) -> bytes:
        if stored is None:
            raise Corrupt(f"The key {self._meta.decode()!r} is gone from {self._place}: restore it from a backup.")
        return stored

    async def read(self) -> SchemaState:
        """See `upgrade.Headers`."""
        return _state(self._certain(await self._stored()))

    async def swap(self, old: SchemaState, new: SchemaState) -> bool:
        """See `upgrade.Headers`."""
        before = self._certain(await self._stored())
        if _state(before) != old:
            return False
        fields = new.within(msgspec.msgpack.decode(before))
        answer = await self._gateway.txn([holds(self._meta, before)], [put(self._meta, msgspec.msgpack.encode(fields))])
        return bool(answer.get("succeeded"))


def _parsed(value: bytes) -> StoreHeader:
    header = msgspec.msgpack.decode(value, type=dict[str, Any])
    least = header.get("min_writer")
    return StoreHeader(int(header["schema"]), str(header["store"]), None if least is None else int(least))


def _state(value: bytes) -> SchemaState:
    return msgspec.msgpack.decode(value, type=SchemaState)
