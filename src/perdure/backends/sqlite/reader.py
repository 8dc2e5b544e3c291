"""Queries of the reading threads: each a function from a connection to records, rows and pages, as of one moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import NoneType
from typing import Any

import apsw
import msgspec

from perdure.backends.spi import Change, Head, Loaded, Page, Query, Record, Row, Snapshot
from perdure.errors import Corrupt
from perdure.model.commit import Status
from perdure.model.ids import SessionKey

PAGE_BYTES = 4 << 20
"""About how many bytes of records one read returns."""

TAGGED_MANY = 1_000
"""Of more sessions with a tag than this it does not matter how many they are."""

_RECORD = "version, hash, at, epoch, status, data, id, kind, key, request, meta, body"
_HEAD = "SELECT version, hash, at, epoch, status, data FROM log WHERE n = ? ORDER BY version DESC LIMIT 1"
_SESSION = "SELECT n, tags, created FROM session WHERE tenant = ? AND id = ?"


@contextmanager
def as_of_one_moment(connection: apsw.Connection) -> Iterator[None]:
    """A read transaction. SQLite ends it by itself where it fails."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def make_head(row: Sequence[Any]) -> Head:
    """A head from its six columns. Raises `Corrupt` if one has another type than it was written with."""
    version, hash, at, epoch, status, data = row
    if type(hash) is not bytes or {type(version), type(at), type(epoch), type(status), type(data)} != {int}:
        raise Corrupt(f"A row of the log has columns that were not written so: {row!r:.200}.")
    return Head(version, hash, at, epoch, status, data)


def _record(row: Sequence[Any]) -> Record:
    id, kind, key, request, meta, body = row[6:]
    if {type(id), type(request), type(meta), type(body)} != {bytes} or type(kind) is not int or type(key) not in (str, NoneType):
        raise Corrupt(f"A row of the log has columns that were not written so: {row[:8]!r:.200}.")
    return Record(make_head(row[:6]), id, kind, key, request, meta, body)


def heads(connection: apsw.Connection, sessions: Sequence[SessionKey]) -> list[Head | None]:
    """The heads, in one read transaction."""
    found = []
    with as_of_one_moment(connection):
        for session in sessions:
            n = connection.execute("SELECT n FROM session WHERE tenant = ? AND id = ?", session).get
            found.append(None if n is None else _head(connection, n))
    return found


def _head(connection: apsw.Connection, n: int) -> Head | None:
    row = connection.execute(_HEAD, (n,)).fetchone()
    return None if row is None else make_head(row)


def load(connection: apsw.Connection, session: SessionKey, at: int | None) -> Loaded | None:
    """Index row, newest fitting snapshot and the records behind it."""
    with as_of_one_moment(connection):
        n, tags, created = connection.execute(_SESSION, session).fetchone() or (0, "{}", 0)
        head = _head(connection, n)
        if head is None:
            return None
        index = Row(session, head, msgspec.json.decode(tags), created)
        upto = head.version if at is None else at
        row = connection.execute(
            "SELECT version, hash, body FROM snapshot WHERE n = ? AND version <= ? ORDER BY version DESC LIMIT 1", (n, upto)
        ).fetchone()
        snapshot = None if row is None else Snapshot(*row)
        after = snapshot.version if snapshot else 0
        cursor = connection.execute(
            f"SELECT {_RECORD} FROM log WHERE n = ? AND version > ? AND version <= ? ORDER BY version", (n, after, upto)
        )
        records = [_record(record) for record in cursor]
    return Loaded(index, snapshot, records)


def read(connection: apsw.Connection, session: SessionKey, after: int, before: int | None, limit: int, reverse: bool) -> list[Record]:
    """A range of records, bounded in number and bytes."""
    query = (
        f"SELECT {_RECORD} FROM log WHERE n = (SELECT n FROM session WHERE tenant = ? AND id = ?) "
        f"AND version > ? AND version < ? ORDER BY version {'DESC' if reverse else 'ASC'} LIMIT ?"
    )
    records: list[Record] = []
    size = 0
    for row in connection.execute(query, (*session, after, 1 << 62 if before is None else before, limit)):
        records.append(_record(row))
        size += records[-1].stored_bytes
        if size > PAGE_BYTES:
            break
    return records


def scan(connection: apsw.Connection, query: Query, cursor: str | None, limit: int) -> Page[Row]:
    """Index rows by id, behind the id that the cursor names. With tags, the sessions of the rarest one are looked at, and no others."""
    tags = sorted(query.tags.items(), key=lambda tag: _count(connection, query.tenant, *tag))
    by, source = ("r", "tag r CROSS JOIN session s ON s.tenant = r.tenant AND s.id = r.id") if tags else ("s", "session s")
    where, values = [f"{by}.tenant = ?"], [query.tenant]
    if tags:
        where.append("r.name = ? AND r.value = ?")
        values += tags[0]
    for tag in tags[1:]:
        where.append("EXISTS (SELECT 1 FROM tag t WHERE t.tenant = r.tenant AND t.name = ? AND t.value = ? AND t.id = r.id)")
        values += tag
    if query.prefix:
        where.append(f"{by}.id >= ? AND substr({by}.id, 1, ?) = ? AND {by}.id < ?")
        values += [query.prefix, len(query.prefix), query.prefix, query.prefix + "\U0010ffff" * 64]  # type: ignore[list-item]
    if cursor is not None:
        where.append(f"{by}.id > ?")
        values.append(cursor)
    if query.status is None:
        where.append(f"s.status NOT IN ({int(Status.deleted)}, {int(Status.moved)})")
    else:
        where.append("s.status = ?")
        values.append(query.status)  # type: ignore[arg-type]
    statement = (
        f"SELECT s.id, s.tags, s.created, l.version, l.hash, l.at, l.epoch, l.status, l.data FROM {source} CROSS JOIN log l ON l.n = s.n "
        f"AND l.version = (SELECT max(version) FROM log WHERE n = s.n) WHERE {' AND '.join(where)} ORDER BY {by}.id LIMIT ?"
    )
    rows = [
        Row(SessionKey(query.tenant, id), make_head(head), msgspec.json.decode(tags), created)
        for id, tags, created, *head in connection.execute(statement, (*values, limit))
    ]
    return Page(rows, rows[-1].session.id if len(rows) == limit else None)


def _count(connection: apsw.Connection, tenant: str, name: str, value: str) -> int:
    """How many sessions have a tag; beyond `TAGGED_MANY` it is only known that they are many."""
    counted = "SELECT count(*) FROM (SELECT 1 FROM tag WHERE tenant = ? AND name = ? AND value = ? LIMIT ?)"
    return int(connection.execute(counted, (tenant, name, value, TAGGED_MANY)).get)


def feed(connection: apsw.Connection, cursor: str | None, limit: int) -> Page[Change]:
    """The log in the order of its rows."""
    columns = ", ".join("log." + name for name in _RECORD.split(", "))
    statement = f"SELECT pos, tenant, session.id, {columns} FROM log JOIN session USING (n) WHERE pos > ? ORDER BY pos LIMIT ?"
    last, changes, size = int(cursor or 0), list[Change](), 0
    for position, tenant, id, *row in connection.execute(statement, (last, limit)):
        last = position
        changes.append(Change(SessionKey(tenant, id), _record(row)))
        size += changes[-1].record.stored_bytes
        if size > PAGE_BYTES:
            break
    return Page(changes, str(last))
