"""What engines share: the check of finished records before they are stored, and of index rows that are held in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perdure.backends.spi import Head, Query, Record
from perdure.errors import Corrupt, Invalid, TooLarge
from perdure.model.commit import Status
from perdure.model.ids import SessionKey

LOOKED_MAX = 10_000
"""About how many rows one `scan` looks at, where an engine has no index for what is asked; its page is then short, and has a cursor."""
_INTEGER_END, _KINDS_END = 1 << 63, 256


def check_records(session: SessionKey, head: Head | None, records: Sequence[Record], bytes_max: int) -> None:
    """Raise `Corrupt` unless the records follow the head, and one another, without a gap, each with a key of its own or none;
    `TooLarge` over `bytes_max` a record; `Invalid` for what no engine can store, so that it does not spoil those that it is sent with."""
    if not records:
        raise Corrupt(f"An append to session {session.id!r} was finished without a record.")
    version = records[0].head.version - 1 if head is None else head.version
    for record in records:
        version += 1
        made = record.head
        if made.version != version or version < 1:
            raise Corrupt(f"An append to session {session.id!r} has version {made.version} where {version} must follow.")
        if version >= _INTEGER_END or made.at >= _INTEGER_END or made.epoch >= _INTEGER_END or not 0 <= record.kind < _KINDS_END:
            raise Invalid(
                f"A record of session {session.id!r} has a number that engines cannot store: they hold 64 bits, and 8 of the kind."
            )
        size = len(record.meta) + len(record.body)
        if size > bytes_max:
            raise TooLarge(
                f"A record of session {session.id!r} has {size:,} bytes; this engine takes {bytes_max:,}.", size=size, limit=bytes_max
            )
    if len(records) > 1:
        keys = [record.key for record in records if record.key is not None]
        if len({*keys}) < len(keys):
            raise Corrupt(f"An append to session {session.id!r} has two records with one idempotency key.")


def selects(query: Query, head: Head, tags: Mapping[str, str]) -> bool:
    """Whether a query asks for a session of this status and with these tags."""
    wanted = head.status == query.status if query.status is not None else head.status not in (Status.deleted, Status.moved)
    return wanted and all(tags.get(name) == value for name, value in query.tags.items())


def matches(query: Query, cursor: str | None, session: SessionKey, head: Head, tags: Mapping[str, str]) -> bool:
    """Whether a session belongs to the rows that a query in the order `id` asks for, after the id that the cursor names."""
    return (
        session.tenant == query.one_tenant
        and (cursor is None or session.id.encode() > cursor.encode())
        and fits(query, session, head, tags)
    )


def fits(query: Query, session: SessionKey, head: Head, tags: Mapping[str, str]) -> bool:
    """Whether a session has the tenant, prefix, status and tags that a query asks for, whatever its order."""
    return query.tenant in (None, session.tenant) and session.id.startswith(query.prefix) and selects(query, head, tags)
