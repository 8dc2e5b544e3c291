"""The feed: shard after shard, each in the order of its segments."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perdure.backends.common.refusals import bad_cursor
from perdure.backends.objects.shard import Shard
from perdure.backends.remote.loop import gather_all
from perdure.backends.spi import Change, Page


async def read_feed(shards: Sequence[Shard], cursor: str | None, limit: int) -> Page[Change]:
    """A page. A cursor holds, for each shard, a position and a place in its segment."""
    places = _places(shards, cursor)
    await gather_all(*[shard.sync() for shard in shards])
    changes: list[Change] = []
    for number, shard in enumerate(shards):
        position, offset = places[number]
        while position <= shard.position and len(changes) < limit:
            if position:
                segment = await shard.segment(position)
                rows = [(entry.key, record) for entry in segment.entries for record in entry.records]
                for session, stored in rows[offset:]:
                    if len(changes) == limit:
                        break
                    offset += 1
                    record = stored.record()
                    chain = shard.chains[session]
                    if record is not None and record.head.version >= chain.first:
                        blank = record.head.version == chain.blank
                        changes.append(Change(session, msgspec.structs.replace(record, body=b"") if blank else record))
                if offset < len(rows):
                    break
            position, offset = position + 1, 0
        places[number] = position, offset
    return Page(changes, ",".join(f"{position}.{offset}" for position, offset in places))


def _places(shards: Sequence[Shard], cursor: str | None) -> list[tuple[int, int]]:
    if cursor is None:
        return [(0, 0)] * len(shards)
    parts = [part.split(".") for part in cursor.split(",")]
    if len(parts) != len(shards) or any(len(part) != 2 or not all(text.isdecimal() for text in part) for part in parts):
        raise bad_cursor(cursor)
    return [(int(position), int(offset)) for position, offset in parts]
