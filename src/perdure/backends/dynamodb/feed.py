"""The feed: a log of which sessions moved from where to where, written by those who read it.

A commit puts its session into the index `perdure-feed`, in the write that stores it: at no extra request, and at no extra write while
the session is in there already. A reader that comes to the feed's end looks the index up, adds an entry to the log (on the condition that
its number is free) and only then takes the sessions out, each on the condition that its head is still the one that the log now has.
So nothing is passed over, however late it commits or the index shows it; what two readers order at once may come twice.

Where records are dropped, the entries about them are swept from the log. The number of an entry is taken from a count in the same
transaction: a reader whose entry comes late, when others' were written and swept meanwhile, does not put it where all readers have been.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from perdure.backends.dynamodb import layout
from perdure.backends.dynamodb.layout import FEED_INDEX, SHARDS, Item, Layout, at, key, number
from perdure.backends.dynamodb.reader import Reader
from perdure.backends.dynamodb.table import Refusal, Table
from perdure.backends.remote.change_log import Ranges, feed_page, sweep
from perdure.backends.spi import Change, Page
from perdure.errors import Error
from perdure.model.ids import SessionKey

ENTRY_SESSIONS = 128
"""Most sessions in one entry of the log: with two names of 255 bytes each well below an item's 400 KB."""


LOGGED, SWEPT = "n", "w"
"""In the log's partition, after all entries: the number of the next one; that from which the next sweep looks."""
LAST = "f" * 16
"""The last name that an entry can have."""


class _Moved(NamedTuple):
    session: SessionKey
    after: int
    upto: int
    head: Item


class Feed:
    """Reads and continues the log."""

    def __init__(self, table: Table, keys: Layout, reader: Reader) -> None:
        self._table, self._keys, self._reader = table, keys, reader
        self._starts: list[Item | None] = [None] * SHARDS
        """Where the next look into each shard of the index begins."""

    async def page(self, cursor: str | None, limit: int) -> Page[Change]:
        """See `spi.Backend.feed`."""
        return await feed_page(cursor, limit, entries=self.entries, order=self._order, read=self._reader.read)

    async def entries(self, low: int, limit: int) -> Sequence[tuple[int, Ranges]]:
        """See `Log`."""
        items, _ = await self._table.query(self._keys.log, at("", low), LAST, limit=limit)
        return [layout.decode_ranges(item) for item in items]

    async def _order(self, entry: int) -> bool:
        """Add the next entry, unless another reader did; whether there is one now."""
        moved = await self._moved()
        if not moved:
            return bool(await self.entries(entry, 1))  # Another reader may have just put them all there.
        count = await self._table.get(key(self._keys.log, LOGGED))
        place = max(entry, layout.decode_count(count))
        item = key(self._keys.log, at("", place)) | {"e": layout.encode_ranges([(one.session, one.after, one.upto) for one in moved])}
        counted = self._put(self._number(LOGGED, place + 1))
        if count is not None:
            counted |= {"ConditionExpression": "n = :n", "ExpressionAttributeValues": {":n": count["n"]}}
        with suppress(Refusal):
            await self._table.ask("transact_write_items", TransactItems=[{"Put": self._put(item)}, {"Put": counted}])
            await asyncio.gather(*[self._take_out(one) for one in moved])
        return True

    def _put(self, item: Item) -> Item:
        return {"TableName": self._table.name, "Item": item, "ConditionExpression": "attribute_not_exists(pk)"}

    def _number(self, name: str, value: int) -> Item:
        return key(self._keys.log, name) | {"n": number(value)}

    async def sweep(self, dropped: int) -> None:
        """Sweep the log after so many records were dropped, which stays done where this fails: a later sweep comes by again."""
        with suppress(Error, Refusal):
            if await self._table.get(key(self._keys.log, LOGGED)) is not None:
                await sweep(self, layout.decode_count(await self._table.get(key(self._keys.log, SWEPT))), dropped)

    async def firsts(self, sessions: Sequence[SessionKey]) -> Mapping[SessionKey, int]:
        """See `Log`."""
        found = await self._table.get_many([self._keys.header(session) for session in sessions], "f") if sessions else {}
        return {self._keys.session_of(pk): int(item["f"]["N"]) for (pk, _), item in found.items()}

    async def replace(self, changed: Mapping[int, Ranges | None], place: int) -> None:
        """See `Log`."""
        requests: list[Item] = [{"PutRequest": {"Item": self._number(SWEPT, place)}}]
        for number_, ranges in changed.items():
            named = key(self._keys.log, at("", number_))
            requests.append(
                {"DeleteRequest": {"Key": named}}
                if ranges is None
                else {"PutRequest": {"Item": named | {"e": layout.encode_ranges(ranges)}}}
            )
        await self._table.change(requests)

    async def _moved(self) -> list[_Moved]:
        """Sessions whose head the log does not have, some of each shard."""
        shards = await asyncio.gather(*[self._moved_in(shard) for shard in range(SHARDS)])
        return [moved for shard in shards for moved in shard]

    async def _moved_in(self, shard: int) -> list[_Moved]:
        """A page of a shard of the index: each time the next one, so that sessions that are written to all the time keep no other out."""
        pk, low = self._keys.unsequenced(shard), self._keys.sessions
        start = self._starts[shard]
        whole = start is None
        while True:
            items, start = await self._table.query(
                pk, low, low + "\U0010ffff", limit=ENTRY_SESSIONS // SHARDS, index=FEED_INDEX, start=start
            )
            self._starts[shard] = start
            if moved := await self._unread([self._keys.session_of(item["pk"]["S"]) for item in items]):
                return moved
            if start is None:
                if whole:
                    return []
                whole = True

    async def _unread(self, sessions: Sequence[SessionKey]) -> list[_Moved]:
        """Those that their headers mark too: the index may be late both ways."""
        found = await self._table.get_many([self._keys.header(session) for session in sessions], "h,d,q") if sessions else {}
        moved = []
        for session in sessions:
            item = found.get((self._keys.session(session), "t"))
            if item is not None and "d" in item:
                moved.append(_Moved(session, layout.sequenced(item), layout.decode_head(item).version, item["h"]))
        return moved

    async def _take_out(self, moved: _Moved) -> None:
        """The log has this session up to a version. One that moved on meanwhile stays in the index."""
        values = {":a": number(moved.after), ":u": number(moved.upto), ":h": moved.head}
        with suppress(Refusal):
            await self._update(moved, "SET q = :u REMOVE d", "q = :a AND h = :h", values)
            return
        del values[":h"]
        with suppress(Refusal):
            await self._update(moved, "SET q = :u", "q = :a", values)

    async def _update(self, moved: _Moved, change: str, condition: str, values: Item) -> None:
        await self._table.ask(
            "update_item",
            TableName=self._table.name,
            Key=self._keys.header(moved.session),
            UpdateExpression=change,
            ConditionExpression=condition,
            ExpressionAttributeValues=values,
        )
