"""The one writing thread's work: a batch of appends in one transaction, with one sync.

Heads are certain inside the transaction. They are remembered between batches, and forgotten when SQLite's `data_version`
shows that another connection wrote.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

import apsw
import msgspec

from perdure.backends.common.checks import check_records
from perdure.backends.common.schema import check_index, check_writer, writer_version
from perdure.backends.spi import NEVER, SCHEMA_VERSION, Append, Appended, Durability, Head, Index, Known, Outcome, Progress, Record, Refused
from perdure.backends.sqlite.files import OpenFiles
from perdure.backends.sqlite.heads import Heads
from perdure.backends.sqlite.rows import make_known, make_tags
from perdure.backends.sqlite.schema import Options, errors, read_min_writer
from perdure.backends.sqlite.upgrade import migrate, raise_min_writer
from perdure.errors import Unknown, Unsupported
from perdure.model.ids import SessionKey

HEADS_REMEMBERED = 16_384
"""Sessions whose heads the writer keeps; about 8 MiB."""

RECORD_BYTES_MAX = 64 << 20
"""Largest `meta` plus `body` of one record."""

_SESSION = "SELECT n FROM session WHERE tenant = ? AND id = ?"
_KEY = "SELECT version, request FROM key WHERE n = ? AND key = ?"
_ADD_SESSION = "INSERT INTO session (tenant, id, created, status) VALUES (?, ?, ?, ?) RETURNING n"
_ADD_KEY = "INSERT INTO key (n, key, version, request) VALUES (?, ?, ?, ?)"
_TOUCH = "INSERT INTO store (name, value) VALUES ('touched', '1') ON CONFLICT (name) DO UPDATE SET value = value + 1"
"""Makes a transaction sync what another process wrote and perhaps died before syncing: a known key is acknowledged again. The value
must change: SQLite writes no page, and so syncs nothing, for an update to what is there."""
_ADD_RECORD = (
    "INSERT INTO log (n, version, hash, at, epoch, status, data, id, kind, key, request, meta, body) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


_LOCAL = Durability.local


class Place(msgspec.Struct):
    """What the writer knows of a session: its number (0: it has no row yet) and its head."""

    n: int
    head: Head | None


class BatchWriter:
    """Owns the writing connection. Used by one thread only."""

    def __init__(self, connection: apsw.Connection, options: Options, heads: Heads, schema: int = SCHEMA_VERSION) -> None:
        self.connection, self._schema = connection, schema
        self._heads = heads
        self._path = options.place
        self._files = OpenFiles(options)
        self._places: dict[SessionKey, Place] = {}
        self._data_version = -1
        self._synchronous = Durability.local

    def write(self, appends: Sequence[Append]) -> list[Outcome | BaseException]:
        """One transaction. Raises `Unavailable` when nothing was written, `Unknown` when the commit itself failed."""
        synced = any(append.durability >= _LOCAL for append in appends)
        with errors(self._path):
            self._files.check()
            self._set_synchronous(_LOCAL if synced else Durability.buffered)
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                self._refresh()
                rows: list[tuple[object, ...]] = []
                outcomes = [self._one(append, rows) for append in appends]
                if rows:
                    self.connection.executemany(_ADD_RECORD, rows)
                elif any(type(outcome) is Known for outcome in outcomes):
                    self.connection.execute(_TOUCH)
            except BaseException:
                self._roll_back()
                raise
            self._commit()
            self._acknowledge()
        return outcomes

    def find_key(self, session: SessionKey, key: str) -> Known | None:
        """Where a key was applied, durably."""
        found: list[Known] = []

        def find(writer: BatchWriter) -> None:
            place = writer.place(session)
            row = self.connection.execute(_KEY, (place.n, key)).fetchone()
            if row is not None and place.head is not None:
                self.connection.execute(_TOUCH)
                found.append(Known(*make_known(row, place.head), place.head))

        self._set_synchronous(Durability.local)
        self.transact(find, as_writer=False)
        return found[0] if found else None

    def _acknowledge(self) -> None:
        """Look once more before anyone gets an answer: a file that went away meanwhile took what was committed with it."""
        try:
            self._files.check(Unknown)
        except Unknown as error:
            self._places.clear()
            error.facts["settled"] = (
                True  # A connection that reads the old file would find the commit, and it is in no file that has a name.
            )
            raise

    def _commit(self) -> None:
        try:
            self.connection.execute("COMMIT")
        except apsw.BusyError:
            self._roll_back()
            raise
        except apsw.Error as error:
            self._roll_back()
            raise Unknown(f"SQLite failed while it committed to {self._path}: {type(error).__name__}: {error}.") from error

    def _roll_back(self) -> None:
        self._places.clear()
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def _set_synchronous(self, level: Durability) -> None:
        if level is not self._synchronous:
            self.connection.pragma("synchronous", "full" if level is Durability.local else "normal")
            self._synchronous = level

    def _refresh(self) -> None:
        version = self.connection.execute("PRAGMA data_version").get
        if version != self._data_version or len(self._places) > HEADS_REMEMBERED:
            self._places.clear()
            check_writer(self._path, writer_version(self._schema), read_min_writer(self.connection, self._path) or 1)
            self._data_version = version

    def require_writer(self, version: int) -> None:
        """Take older writers no more, this one included."""
        self.transact(lambda _: raise_min_writer(self.connection, self._path, version), as_writer=False)
        self._data_version = -1

    def migrate(self, from_version: int, progress: Progress) -> None:
        """See `spi.Versioned.migrate`. Afterwards this writer is too old itself."""
        self._files.check()
        migrate(self.connection, self._path, from_version, progress)
        self._data_version = -1
        self._acknowledge()

    def transact(self, change: Callable[[BatchWriter], None], *, as_writer: bool = True) -> None:
        """Any other change, in a transaction of its own; heads are looked up again. `as_writer`: not if this one is too old."""
        self._files.check()
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            if as_writer:
                self._refresh()
            self._places.clear()
            change(self)
            self.connection.execute("COMMIT")
        finally:
            self._roll_back()
        self._acknowledge()

    def fold_log(self) -> None:
        """Fold the write-ahead log into the file and empty it, so that no old page is left there; not while others read or write."""
        with contextlib.suppress(apsw.Error):
            self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def place(self, session: SessionKey) -> Place:
        """The session's number and head; certain inside a transaction."""
        place = self._places.get(session)
        if place is None:
            n = self.connection.execute(_SESSION, session).get
            head = None if n is None else self._heads.find(self.connection, session, n)
            place = self._places[session] = Place(n or 0, head)
        return place

    def _one(self, append: Append, rows: list[tuple[object, ...]]) -> Outcome | BaseException:
        if append.durability > _LOCAL:
            return Unsupported(
                f"SQLite reaches the durability 'local', not {append.durability.name!r}: ask for less, or use a replicated engine."
            )
        try:
            session = append.session
            place = self._places.get(session) or self.place(session)
            head = place.head
            if append.key is not None and head is not None:
                known = self.connection.execute(_KEY, (place.n, append.key)).fetchone()
                if known is not None:
                    return Known(*make_known(known, head), head)
            records = append.finish(head)
            if records is None:
                return Refused(head)
            check_records(session, head, records, RECORD_BYTES_MAX)
            old = None if append.index is None else self._old_tags(session, append.index, place)
        except apsw.Error:
            raise
        except Exception as error:  # noqa: BLE001 - the outcome of this append alone: nothing of it was written
            return error
        self._store(append, place, records, rows)
        if append.index is not None:
            self._set_index(session, place.n, append.index, old or {})
        return Appended(records[-1].head, head, records[-1].id, self._synchronous)

    def _old_tags(self, session: SessionKey, index: Index, place: Place) -> dict[str, str]:
        """The tags that a change of the index row takes the place of. Raises what `check_index` does."""
        check_index(session, index, schema=self._schema)
        if not place.n or index.tags is None:
            return {}
        return make_tags(self.connection.execute("SELECT tags FROM session WHERE n = ?", (place.n,)).get)

    def _store(self, append: Append, place: Place, records: Sequence[Record], rows: list[tuple[object, ...]]) -> None:
        """Add the records' rows to `rows`, and write what stands in other tables."""
        last = records[-1].head
        if not place.n:
            place.n = self.connection.execute(_ADD_SESSION, (*append.session, records[0].head.at, last.status)).get
        elif place.head is not None and place.head.status != last.status:
            self.connection.execute("UPDATE session SET status = ? WHERE n = ?", (last.status, place.n))
        n = place.n
        for record in records:
            head = record.head
            rows.append(
                (
                    n, head.version, head.hash, head.at, head.epoch, head.status, head.data,
                    record.id, record.kind, record.key, record.request, record.meta, record.body,
                )
            )  # fmt: skip
            if record.key is not None:
                self.connection.execute(_ADD_KEY, (n, record.key, head.version, record.request))
        place.head = last

    def _set_index(self, session: SessionKey, n: int, index: Index, old: Mapping[str, str]) -> None:
        """Change the index row. `old`: the tags that it had."""
        self.set_cells(n, index)
        if index.tags is not None:
            self._set_tags(session, n, index.tags, old)

    def _set_tags(self, session: SessionKey, n: int, tags: Mapping[str, str], old: Mapping[str, str]) -> None:
        tenant, id = session
        self.connection.executemany(
            "DELETE FROM tag WHERE tenant = ? AND name = ? AND value = ? AND id = ?", [(tenant, *tag, id) for tag in old.items()]
        )
        self.connection.executemany(
            "INSERT INTO tag (tenant, name, value, id) VALUES (?, ?, ?, ?)", [(tenant, *tag, id) for tag in tags.items()]
        )
        self.connection.execute("UPDATE session SET tags = ? WHERE n = ?", (msgspec.json.encode(tags).decode(), n))

    def set_cells(self, n: int, index: Index) -> None:
        """Write the cells that came with schema 2; on a store of schema 1 there are none, and what is given was found to remove them."""
        if self._schema < 2:
            return
        due_at = None if index.due_at == NEVER else index.due_at
        cells = (("due_at", index.due_at, due_at), ("control", index.control, index.control))
        given = [(name, value) for name, said, value in (*cells, ("size_bytes", index.size_bytes, index.size_bytes)) if said is not None]
        if given:
            changes = ", ".join(f"{name} = ?" for name, _ in given)
            self.connection.execute(f"UPDATE session SET {changes} WHERE n = ?", (*(value for _, value in given), n))
