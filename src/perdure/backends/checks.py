"""What every engine checks of finished records before it stores them."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.backends.spi import Head, Record
from perdure.errors import Corrupt, TooLarge
from perdure.model.ids import SessionKey


def check_records(session: SessionKey, head: Head | None, records: Sequence[Record], bytes_max: int) -> None:
    """Raise `Corrupt` unless the records follow the head, and one another, without a gap, each with a key of its own or none;
    `TooLarge` over `bytes_max` a record."""
    if not records:
        raise Corrupt(f"An append to session {session.id!r} was finished without a record.")
    version = records[0].head.version - 1 if head is None else head.version
    for record in records:
        version += 1
        if record.head.version != version or version < 1:
            raise Corrupt(f"An append to session {session.id!r} has version {record.head.version} where {version} must follow.")
        size = len(record.meta) + len(record.body)
        if size > bytes_max:
            raise TooLarge(
                f"A record of session {session.id!r} has {size:,} bytes; this engine takes {bytes_max:,}.", size=size, limit=bytes_max
            )
    if len(records) > 1:
        keys = [record.key for record in records if record.key is not None]
        if len({*keys}) < len(keys):
            raise Corrupt(f"An append to session {session.id!r} has two records with one idempotency key.")
