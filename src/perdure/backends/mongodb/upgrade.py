"""From one schema to the next: the index is made, and the store's document says so. The lock and the order are `common.upgrade`'s."""

from __future__ import annotations

from perdure.backends.common import schema, upgrade
from perdure.backends.common.upgrade import SchemaState
from perdure.backends.mongodb.connections import Connections
from perdure.backends.mongodb.layout import STORE, Doc
from perdure.backends.mongodb.schema import DUE_INDEX, make_index, read_store
from perdure.backends.spi import Progress
from perdure.errors import Corrupt

_ABSENT = {"min_writer": 1, "lock": "", "count": 0}
"""What a field that a document does not have stands for."""


class Headers:
    """The document of a store as `upgrade.Headers`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def read(self) -> SchemaState:
        """See `upgrade.Headers.read`."""
        doc = await read_store(self._connections)
        if doc is None:
            raise Corrupt(f"The document of the store at {self._connections.place} is gone.")
        return SchemaState(doc["schema"], *[doc.get(name, absent) for name, absent in _ABSENT.items()])

    async def swap(self, old: SchemaState, new: SchemaState) -> bool:
        """See `upgrade.Headers.swap`."""
        where: Doc = {"_id": "store", "schema": old.schema}
        put: Doc = {"schema": new.schema}
        for name, absent in _ABSENT.items():
            was = getattr(old, name)
            where[name] = {"$in": [was, None]} if was == absent else was
            put[name] = getattr(new, name)
        answer = await self._connections.update(STORE, [{"q": where, "u": {"$set": put}}])
        self._connections.check(answer)
        return bool(answer["n"])


async def migrate(connections: Connections, from_version: int, progress: Progress) -> None:
    """See `spi.Versioned.migrate`."""
    steps = [("the index of what is due", lambda: make_index(connections, DUE_INDEX))]
    await upgrade.upgrade(Headers(connections), from_version, steps, progress, settle_seconds=schema.MIN_WRITER_SECONDS)
