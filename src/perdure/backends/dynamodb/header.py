"""The header of a store: an item that is read again every few seconds before a write, for whether the store takes this writer still.

No write compares it: an item that every transaction looks at would make them conflict with one another.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from perdure.backends.common.schema import WriterCheck
from perdure.backends.common.store_header import StoreHeader, open_header
from perdure.backends.common.upgrade import DEFAULTS, SchemaState
from perdure.backends.dynamodb.layout import Item, number, text
from perdure.backends.dynamodb.table import Refusal, Table
from perdure.backends.spi import SCHEMA_VERSION
from perdure.clock import Clock
from perdure.errors import Corrupt

_FIELDS = {"schema": "v", "min_writer": "min_writer", "lock": "lock_token", "count": "lock_count"}
"""The attributes of `SchemaState`'s fields."""


class TableHeader:
    """The header of the store at the key `meta`. It is `upgrade.Headers`. `writers` is there when it was opened."""

    writers: WriterCheck

    def __init__(self, table: Table, meta: Item) -> None:
        self._table, self._meta, self._place = table, meta, ""

    async def open(self, clock: Clock, place: str, *, create: bool) -> StoreHeader:
        """Read it; make the store where there is none, or without `create` raise `NotFound`."""

        async def make(id: str) -> None:
            item = self._meta | {"v": number(SCHEMA_VERSION), "store": text(id), "min_writer": number(SCHEMA_VERSION)}
            with suppress(Refusal):  # Another process was first.
                await self._table.ask(
                    "put_item", TableName=self._table.name, Item=item, ConditionExpression="attribute_not_exists(pk)", writes=True
                )

        what = f"the item {self._meta['pk']['S']!r}"
        header = await open_header(
            lambda: self._table.get(self._meta), make, _parsed, place=place, what=what, known=SCHEMA_VERSION, clock=clock, create=create
        )
        self._place = place
        self.writers = WriterCheck(place, header, self._min_writer, asyncio.get_running_loop().time)
        return header

    async def _min_writer(self) -> int:
        return (await self.read()).min_writer

    async def read(self) -> SchemaState:
        """See `upgrade.Headers`."""
        item = await self._table.get(self._meta)
        if item is None:
            raise Corrupt(f"The item {self._meta['pk']['S']!r} is gone from {self._place}: restore it from a backup.")
        return SchemaState(
            int(item["v"]["N"]),
            int(item.get("min_writer", {"N": "1"})["N"]),
            str(item.get("lock_token", {"S": ""})["S"]),
            int(item.get("lock_count", {"N": "0"})["N"]),
        )

    async def swap(self, old: SchemaState, new: SchemaState) -> bool:
        """See `upgrade.Headers`."""
        sets, removes, conditions, values = list[str](), list[str](), list[str](), dict[str, Item]()
        for field, name in _FIELDS.items():
            before, after, default = getattr(old, field), getattr(new, field), getattr(DEFAULTS, field)
            item = text if field == "lock" else number
            if before == default:
                conditions.append(f"(attribute_not_exists({name}) OR {name} = :{name}0)")
            else:
                conditions.append(f"{name} = :{name}0")
            values[f":{name}0"] = item(before)
            if after == default:
                removes.append(name)
            else:
                sets.append(f"{name} = :{name}")
                values[f":{name}"] = item(after)
        remove = f" REMOVE {', '.join(removes)}" if removes else ""
        try:
            await self._table.ask(
                "update_item", writes=True, TableName=self._table.name, Key=self._meta,
                UpdateExpression=f"SET {', '.join(sets)}{remove}",
                ConditionExpression=" AND ".join(conditions), ExpressionAttributeValues=values,
            )  # fmt: skip
        except Refusal:
            return False
        return True


def _parsed(item: Item) -> StoreHeader:
    least = item.get("min_writer")
    return StoreHeader(int(item["v"]["N"]), str(item["store"]["S"]), None if least is None else int(least["N"]))
