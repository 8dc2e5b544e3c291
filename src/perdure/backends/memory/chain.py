"""One session in memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import msgspec

from perdure.backends.common.pages import one_page
from perdure.backends.spi import Head, Record, Snapshot
from perdure.errors import Corrupt
from perdure.model.ids import SessionKey


class Chain(msgspec.Struct):
    """One session: records by version, oldest first; what its keys gave; snapshots by version; the cells of its index row."""

    records: list[Record]
    keys: dict[str, tuple[int, bytes]]
    snapshots: dict[int, Snapshot]
    tags: dict[str, str]
    created_at: int
    due_at: int | None = None
    control: bytes = b""
    size_bytes: int = 0

    @property
    def head(self) -> Head:
        return self.records[-1].head

    def after(self, version: int) -> int:
        """The place of the first record after `version`."""
        return bisect_left(self.records, version + 1, key=lambda record: record.head.version)

    def find(self, version: int) -> Record | None:
        place = self.after(version - 1)
        found = self.records[place] if place < len(self.records) else None
        return found if found is not None and found.head.version == version else None

    def page(self, after: int, before: int | None, limit: int, *, reverse: bool) -> list[Record]:
        """The records of one `spi.Backend.read`."""
        records = self.records[self.after(after) : None if before is None else self.after(before - 1)]
        return one_page(reversed(records) if reverse else records, limit)


def check_keys(session: SessionKey, chain: Chain | None, records: Sequence[Record]) -> None:
    """Raise `Corrupt` for a record whose key is taken: its append named no key, or another, so nothing has looked it up."""
    for record in records:
        if chain is not None and record.key in chain.keys:
            raise Corrupt(f"A record of session {session.id!r} has an idempotency key that was applied before: {record.key!r}.")
