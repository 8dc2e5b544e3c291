"""Whether a session's records are as many as its head and its first version say. The functions find a record by its place in the list."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from perdure.backends.redis import layout
from perdure.backends.redis.connections import Connections, Words
from perdure.backends.spi import Record
from perdure.errors import Corrupt
from perdure.model.ids import SessionKey

LOOKS = 8
"""How often they are compared where others append meanwhile."""


def is_expected(records: Sequence[Record], first: int | None) -> bool:
    """Whether these follow one another and begin with this version (`None`: with any), so that the extent needs no look."""
    versions = [record.head.version for record in records]
    if not versions or first not in (None, versions[0]):
        return False
    return all(abs(left - right) == 1 for left, right in pairwise(versions))


async def check_extent(connections: Connections, shard: str, session: SessionKey) -> None:
    """Raise `Corrupt` unless the head's version is that of the list's last record. One round trip."""
    name = layout.name_of(session)
    calls: list[tuple[str, Words]] = [
        (shard, ("HGET", f"{shard}h", name)),
        (shard, ("HGET", f"{shard}b", name)),
        (shard, ("LLEN", f"{shard}l:".encode() + name)),
    ]
    for _ in range(LOOKS):
        stored, first, count = await connections.each(calls)
        head = layout.decode_head(stored)
        if (head is None and first is None) or (head and first and first.isdigit() and int(first) + count - 1 == head.version):
            return
    raise Corrupt(f"The records of session {session.id!r} in Redis are not those up to its head.", session=session.id)
