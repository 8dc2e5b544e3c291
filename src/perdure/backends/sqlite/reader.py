"""Queries of the reading threads: each a function from a connection to records, rows and pages, as of one moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apsw

from perdure.backends.spi import SCHEMA_VERSION, Change, Head, Loaded, Page, Query, Record, Row
from perdure.backends.sqlite.heads import Heads
from perdure.backends.sqlite.rows import RECORD, cells, make_cells, make_head, make_record, make_snapshot, make_tags
from perdure.errors import Corrupt
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey

PAGE_BYTES = 4 << 20
"""About how many bytes of records one read returns."""

TAGGED_MANY = 1_000
"""Of more sessions with a tag than this it does not matter how many they are."""

_CELLS = cells(SCHEMA_VERSION)
_SESSION = "SELECT n, tags, created, status, {cells} FROM session WHERE tenant = ? AND id = ?"
_FIRST = "SELECT version, at, kind FROM log WHERE n = ? ORDER BY version LIMIT 1"
_ANCHORED = f"SELECT 1 FROM log WHERE n = ? AND kind = {int(Kind.anchor)} LIMIT 1"
_TAG = "SELECT 1 FROM tag WHERE tenant = ? AND name = ? AND value = ? AND id = ?"
_ENDED = f"{int(Status.deleted)}, {int(Status.moved)}"
_DIFFERS = f"s.status != l.status OR (l.status IN ({_ENDED})) != (l.kind IN ({int(Kind.tombstone)}, {int(Kind.moved)}))"
"""A status that is not its commit's: such a row is looked at, whatever the status asked for, so that none is hidden."""


@contextmanager
def as_of_one_moment(connection: apsw.Connection) -> Iterator[None]:
    """A read transaction. SQLite ends it by itself where it fails."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def heads(connection: apsw.Connection, proven: Heads, sessions: Sequence[SessionKey]) -> list[Head | None]:
    """The heads, in one read transaction."""
    found = []
    with as_of_one_moment(connection):
        for session in sessions:
            n = connection.execute("SELECT n FROM session WHERE tenant = ? AND id = ?", session).get
            found.append(None if n is None else proven.find(connection, session, n))
    return found


def load(connection: apsw.Connection, proven: Heads, session: SessionKey, at: int | None, cells: str = _CELLS) -> Loaded | None:
    """Index row, newest fitting snapshot and the records after it. `cells`: the columns that the schema has, see `rows.cells`."""
    with as_of_one_moment(connection):
        found = connection.execute(_SESSION.replace("{cells}", cells), session).fetchone()
        if found is None:
            return None
        n, *columns = found
        head = proven.find(connection, session, n)
        index = make_row(connection, session, n, head, columns)
        upto = head.version if at is None else at
        row = connection.execute(
            "SELECT version, hash, body FROM snapshot WHERE n = ? AND version <= ? ORDER BY version DESC LIMIT 1", (n, upto)
        ).fetchone()
        snapshot = None if row is None else make_snapshot(row)
        after = snapshot.version if snapshot else 0
        cursor = connection.execute(
            f"SELECT {RECORD} FROM log WHERE n = ? AND version > ? AND version <= ? ORDER BY version", (n, after, upto)
        )
        records = [make_record(record) for record in cursor]
    return Loaded(index, snapshot, records)


def make_row(connection: apsw.Connection, session: SessionKey, n: int, head: Head, columns: Sequence[Any]) -> Row:
    """The index row from its tags, creation, status and cells. Copies are compared with what they are copies of."""
    tags, created, status, *values = columns
    first, at, kind = connection.execute(_FIRST, (n,)).fetchone() or (0, 0, 0)
    whole = first == 1 or (kind == Kind.configure and created != at and connection.execute(_ANCHORED, (n,)).get is None)
    if type(created) is not int or status != head.status or created > at or (whole and created != at):
        raise Corrupt(f"The row of session {session.id!r} has another status or time than its commits.", session=session.id)
    row = Row(session, head, make_tags(tags), created, *make_cells(values))
    for name, value in row.tags.items():
        if connection.execute(_TAG, (session.tenant, name, value, session.id)).get is None:
            raise Corrupt(f"The tag {name!r} of session {session.id!r} is not among those that it is listed by.", session=session.id)
    return row


_ORPHANS = " UNION ALL ".join(
    f"SELECT count(*) FROM {table} WHERE n > (SELECT max(n) FROM session) OR n < 1 OR (n > ?1 AND n < ?1 + 1)"
    for table in ("log", "key", "snapshot")
)
_LOST_KEYS = (
    "SELECT count(*) FROM log l WHERE n = ? AND key IS NOT NULL AND NOT EXISTS "
    "(SELECT 1 FROM key k WHERE k.n = l.n AND k.key = l.key AND k.version = l.version AND k.request = l.request)"
)
_FALSE_KEYS = (
    "SELECT count(*) FROM key k WHERE n = ?1 AND version >= (SELECT min(version) FROM log WHERE n = ?1) AND NOT EXISTS "
    "(SELECT 1 FROM log l WHERE l.n = k.n AND l.version = k.version AND l.key = k.key)"
)
_FALSE_SNAPSHOTS = (
    "SELECT count(*) FROM snapshot s WHERE n = ?1 AND version >= (SELECT min(version) FROM log WHERE n = ?1) AND NOT EXISTS "
    "(SELECT 1 FROM log l WHERE l.n = s.n AND l.version = s.version AND l.hash = s.hash)"
)


def copies(connection: apsw.Connection, proven: Heads, session: SessionKey, cells: str = _CELLS) -> None:
    """Raise `Corrupt` unless all rows of a session that repeat something of its log repeat it truly, and none is missing."""
    proven.forget(session)
    loaded = load(connection, proven, session, 0, cells)
    with as_of_one_moment(connection):
        n = connection.execute("SELECT n FROM session WHERE tenant = ? AND id = ?", session).get
        if any(count for (count,) in connection.execute(_ORPHANS, (n,))):
            raise Corrupt("There are commits, keys or snapshots that belong to no session.")
        for query, what in ((_LOST_KEYS, "keys"), (_FALSE_KEYS, "keys"), (_FALSE_SNAPSHOTS, "snapshots")):
            if connection.execute(query, (n,)).get:
                raise Corrupt(f"The {what} of session {session.id!r} are not those of its commits.", session=session.id)
        tags = connection.execute("SELECT name, value FROM tag WHERE tenant = ? AND id = ?", session).fetchall()
    if loaded is None or sorted(tags) != sorted(loaded.row.tags.items()):
        raise Corrupt(f"Session {session.id!r} is listed by other tags than it has.", session=session.id)


def read(connection: apsw.Connection, session: SessionKey, after: int, before: int | None, limit: int, reverse: bool) -> list[Record]:
    """A range of records, bounded in number and bytes."""
    query = (
        f"SELECT {RECORD} FROM log WHERE n = (SELECT n FROM session WHERE tenant = ? AND id = ?) "
        f"AND version > ? AND version < ? ORDER BY version {'DESC' if reverse else 'ASC'} LIMIT ?"
    )
    records: list[Record] = []
    size = 0
    for row in connection.execute(query, (*session, after, 1 << 62 if before is None else before, limit)):
        records.append(make_record(row))
        size += records[-1].stored_bytes
        if size > PAGE_BYTES:
            break
    return records


def scan(
    connection: apsw.Connection, proven: Heads, query: Query, cursor: str | None, limit: int, cells: str = cells(SCHEMA_VERSION, "s.")
) -> Page[Row]:
    """Index rows by id, behind the id that the cursor names. With tags, the sessions of the rarest one are looked at, and no others."""
    tags = sorted(query.tags.items(), key=lambda tag: _count(connection, query.one_tenant, *tag))
    by, source = ("r", "tag r CROSS JOIN session s ON s.tenant = r.tenant AND s.id = r.id") if tags else ("s", "session s")
    where, values = [f"{by}.tenant = ?"], list[Any]((query.one_tenant,))
    if tags:
        where.append("r.name = ? AND r.value = ?")
        values += tags[0]
    add_conditions(query, tags[1:], by, where, values)
    if cursor is not None:
        where.append(f"{by}.id > ?")
        values.append(cursor)
    page = select(connection, proven, query, source, cells, where, f"{by}.id", (*values, limit))
    return Page(page, page[-1].session.id if len(page) == limit else None)


def add_conditions(query: Query, tags: Sequence[tuple[str, str]], by: str, where: list[str], values: list[Any]) -> None:
    """What a query asks of tags, prefix and status, for the rows that `by` names."""
    for tag in tags:
        where.append(f"EXISTS (SELECT 1 FROM tag t WHERE t.tenant = {by}.tenant AND t.name = ? AND t.value = ? AND t.id = {by}.id)")
        values += tag
    if query.prefix:
        where.append(f"{by}.id >= ? AND substr({by}.id, 1, ?) = ? AND {by}.id < ?")
        values += [query.prefix, len(query.prefix), query.prefix, query.prefix + "\U0010ffff" * 64]
    if query.status is None:
        where.append(f"(l.status NOT IN ({_ENDED}) OR {_DIFFERS})")
    else:
        where.append(f"(l.status = ? OR {_DIFFERS})")
        values.append(query.status)


def select(
    connection: apsw.Connection,
    proven: Heads,
    query: Query,
    source: str,
    cells: str,
    where: Sequence[str],
    order: str,
    values: Sequence[Any],
) -> list[Row]:
    """The rows of sessions `s` that hold these conditions, each proven."""
    statement = (
        "SELECT s.tenant, s.id, s.n, l.version, l.hash, l.at, l.epoch, l.status, l.data, s.tags, s.created, s.status, "
        f"{cells} FROM {source} CROSS JOIN log l ON l.n = s.n AND l.version = (SELECT max(version) FROM log WHERE n = s.n) "
        f"WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ?"
    )
    rows = []
    with as_of_one_moment(connection):
        for tenant, id, n, *columns in connection.execute(statement, values):
            session = SessionKey(tenant, id)
            head = proven.prove(connection, session, n, make_head(columns[:6]))
            rows.append(make_row(connection, session, n, head, columns[6:]))
            if not query.tags.items() <= rows[-1].tags.items():
                raise Corrupt(f"Session {id!r} is listed by tags that it has not.", session=id)
    return rows


def _count(connection: apsw.Connection, tenant: str, name: str, value: str) -> int:
    """How many sessions have a tag; beyond `TAGGED_MANY` it is only known that they are many."""
    counted = "SELECT count(*) FROM (SELECT 1 FROM tag WHERE tenant = ? AND name = ? AND value = ? LIMIT ?)"
    return int(connection.execute(counted, (tenant, name, value, TAGGED_MANY)).get)


def feed(connection: apsw.Connection, last: int, limit: int) -> Page[Change]:
    """The log in the order of its rows, after the row with this number."""
    columns = ", ".join("log." + name for name in RECORD.split(", "))
    statement = f"SELECT pos, tenant, session.id, {columns} FROM log JOIN session USING (n) WHERE pos > ? ORDER BY pos LIMIT ?"
    changes, size = list[Change](), 0
    for position, tenant, id, *row in connection.execute(statement, (last, limit)):
        last = position
        changes.append(Change(SessionKey(tenant, id), make_record(row)))
        size += changes[-1].record.stored_bytes
        if size > PAGE_BYTES:
            break
    return Page(changes, str(last))
