"""The newest row of a session's log, proven before it decides anything.

Its hash covers what was written but not `status` and `data`, which follow from the commits before: these are derived again, from the newest
row back to the newest data commit. What was proven is remembered, so that a head costs its proof once for each change of it by others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import apsw

from perdure.backends.spi import Head, Record
from perdure.backends.sqlite.rows import HEAD, RECORD, make_head, make_record
from perdure.errors import Corrupt
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey

REMEMBERED = 16_384
"""Sessions whose proven heads are kept."""

Check = Callable[[SessionKey, Record], bytes]
"""Raises `Corrupt` unless a record is as it was written; the hash that it follows."""

_HEAD = f"SELECT {HEAD} FROM log WHERE n = ? ORDER BY version DESC LIMIT 1"
_BACKWARDS = f"SELECT {RECORD} FROM log WHERE n = ? ORDER BY version DESC"
_FIRST = "SELECT version, kind FROM log WHERE n = ? ORDER BY version LIMIT 1"


class Heads:
    """Proven heads, for all connections of one store. Safe from any thread."""

    def __init__(self) -> None:
        self.check: Check | None = None
        self._proven: dict[SessionKey, tuple[int, Head]] = {}

    def find(self, connection: apsw.Connection, session: SessionKey, n: int) -> Head:
        """The head of a session that has a row. Raises `Corrupt` where it has no commit, or one that was not written so."""
        row = connection.execute(_HEAD, (n,)).fetchone()
        if row is None:
            raise Corrupt(f"Session {session.id!r} has a row and no commits.", session=session.id)
        return self.prove(connection, session, n, make_head(row))

    def forget(self, session: SessionKey) -> None:
        """Prove its head once more, when it is asked for again."""
        self._proven.pop(session, None)

    def prove(self, connection: apsw.Connection, session: SessionKey, n: int, head: Head) -> Head:
        """This head of the session, once it is certain. Inside a transaction."""
        if self._proven.get(session) == (n, head):
            return head
        first, kind = connection.execute(_FIRST, (n,)).fetchone() or (None, None)
        if type(first) is not int or first < 1:
            raise Corrupt(f"Session {session.id!r} has a commit at version {first!r}.", session=session.id)
        if _standing(self._backwards(connection, session, n), head, first, kind) != (head.status, head.data):
            raise Corrupt(
                f"Version {head.version} of session {session.id!r} has another status or data version than its commits give.",
                session=session.id,
            )
        if len(self._proven) >= REMEMBERED:
            self._proven.clear()
        self._proven[session] = (n, head)
        return head

    def _backwards(self, connection: apsw.Connection, session: SessionKey, n: int) -> Iterator[Record]:
        """The session's records from the newest on, each checked and the one that the next follows."""
        expected: bytes | None = None
        for row in connection.execute(_BACKWARDS, (n,)):
            record = make_record(row)
            if expected is not None and record.head.hash != expected:
                raise Corrupt(f"Version {record.head.version} of session {session.id!r} is not the one that the next commit follows.")
            expected = None if self.check is None or _is_stub(record) else self.check(session, record)
            yield record


def _is_stub(record: Record) -> bool:
    """Whether a purge left this: nothing proves any more that it is as it was written."""
    return record.kind == Kind.tombstone and not record.body


_ANCHORED = (int(Status.active), int(Status.archived))
"""What a session can be after an anchor commit."""


def _standing(records: Iterator[Record], head: Head, first: int, first_kind: Any) -> tuple[int, int]:
    """The status and the version of the newest data commit, by the commits themselves."""
    status: int | None = None
    for record in records:
        if _is_stub(record):
            return int(Status.deleted) if status is None else status, record.head.data
        if record.kind == Kind.data:
            return int(Status.active) if status is None else status, record.head.version
        if status is None and record.kind in (Kind.tombstone, Kind.moved):
            status = int(Status.deleted if record.kind == Kind.tombstone else Status.moved)
        elif status is None and record.kind == Kind.anchor and record.head.status in _ANCHORED:
            status = record.head.status  # Its event decides, and an engine does not look into it: readers do.
    # No data commit is left. A fork's chain goes on from its parent's; what was truncated may have held one.
    below = first - 1
    data = below if first == 1 or first_kind == Kind.configure else min(head.data, below)
    return int(Status.active) if status is None else status, data
