"""The row of a store: its identity, its schema, and which writers it takes."""

from __future__ import annotations

from typing import Any

from perdure.backends.cassandra.client import Client
from perdure.backends.common.store_header import StoreHeader
from perdure.backends.common.upgrade import DEFAULTS, SchemaState
from perdure.errors import Corrupt

_COLUMNS = {"schema": "layout", "min_writer": "min_writer", "lock": "lock_token", "count": "lock_count"}
"""The columns of `SchemaState`'s fields. In schema 1 there is the first alone."""


class StoreRow:
    """The row of one namespace. It is `upgrade.Headers`."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client, self._ns = client, namespace

    async def fields(self, *, plain: bool = False) -> dict[str, Any] | None:
        """All columns that there are."""
        text = f"SELECT * FROM \"{self._client.keyspace}\".store WHERE ns = '{self._ns}'"
        return next(iter(await self._client.fetch(text, plain=plain)), None)

    async def certain(self, *, plain: bool = False) -> dict[str, Any]:
        """As `fields`. Raises `Corrupt` where the row is gone."""
        found = await self.fields(plain=plain)
        if found is None:
            where = f"The row {self._ns!r} of {self._client.keyspace}.store"
            raise Corrupt(f"{where} is gone from {self._client.place}: restore it from a backup.")
        return found

    async def min_writer(self) -> int:
        """The least version of a writer, by a plain read: many look at once."""
        return _state(await self.certain(plain=True)).min_writer

    async def read(self) -> SchemaState:
        """See `upgrade.Headers`."""
        return _state(await self.certain())

    async def swap(self, old: SchemaState, new: SchemaState) -> bool:
        """See `upgrade.Headers`."""
        return await self._client.decide(("change_store", (*_values(new), self._ns, *_values(old)))) is None


def _state(found: dict[str, Any]) -> SchemaState:
    return SchemaState(**{name: found[column] for name, column in _COLUMNS.items() if found.get(column) is not None})


def _values(state: SchemaState) -> list[Any]:
    """The columns; what is as it is without a column has none."""
    return [None if (value := getattr(state, name)) == getattr(DEFAULTS, name) else value for name in _COLUMNS]


def header_of(row: dict[str, Any]) -> StoreHeader:
    """The header that a row is. Raises `ValueError` where another program wrote it."""
    if row.get("layout") is None or not row.get("id") or not row.get("bucket"):
        raise ValueError(f"{row!r}")
    return StoreHeader(row["layout"], row["id"], row.get("min_writer"))
