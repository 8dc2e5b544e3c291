"""The driver: named statements and the records that go in and out of them."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from importlib.resources import files
from typing import Any

import msgspec

from perdure.backends.common.packing import Reading
from perdure.backends.common.refusals import head_differs, no_store, numbers_of
from perdure.backends.common.schema import check_writer, write_due_cursor, writer_version
from perdure.backends.common.store_header import StoreHeader, check_schema, new_store_id
from perdure.backends.common.stored import make_cells, make_head, make_record
from perdure.backends.postgresql.checkup import ahead, checkup, renumber
from perdure.backends.postgresql.conditions import conditions
from perdure.backends.postgresql.connections import Connections
from perdure.backends.postgresql.notifications import LISTENING, Announcer, notices
from perdure.backends.postgresql.packing import ATTEMPT, LEAVE, RECORD, REMOVE, due, pack, size
from perdure.backends.postgresql.upgrade import LOCK, migrate, require_writer
from perdure.backends.remote import Answer, Attempt, HeadMismatch, Notice, Stored
from perdure.backends.spi import (
    SCHEMA_VERSION,
    Capabilities,
    Change,
    Checkup,
    Durability,
    Finding,
    Head,
    Index,
    Known,
    Loaded,
    Page,
    Progress,
    Query,
    Record,
    Row,
    Snapshot,
)
from perdure.clock import Clock
from perdure.errors import Corrupt, Error, Invalid, Unknown, Unsupported
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey

RECORD_BYTES_MAX = 32 << 20
PAGE_BYTES = 4 << 20
"""About how many bytes of records one `read` returns."""
BATCH_MAX = 128
"""Most attempts in one statement."""
BATCH_BYTES = 64 << 20
"""About how many bytes of attempts go in one statement: the server takes 1 GiB."""
SNAPSHOTS_KEPT = 2
_VERSION_END = 1 << 62
_WRITES = "coalesce((SELECT value::int FROM {ns}.store WHERE name = 'min_writer'), 1) <= {writer}"
"""Whether the store takes writers of a version."""
_PROVEN = (
    "EXISTS (SELECT FROM {ns}.log l WHERE l.n = s.n AND l.version = s.version AND l.hash = s.hash AND l.at = s.at"
    " AND l.epoch = s.epoch AND l.status = s.status AND l.data = s.data)"
)
"""Whether the head in a row of sessions is the one that its newest commit repeats."""


_TAGS = msgspec.json.Decoder(dict[str, str])


class PostgreSQLDriver:
    """A `Driver` on one server."""

    lanes = 1
    batch_max = BATCH_MAX
    proves_heads = True

    def __init__(self, connections: Connections, namespace: str) -> None:
        self.connections = connections
        self._ns = f'"{namespace}"'
        self._channel = f"perdure.{namespace}"
        self.store_id, self.schema = "", SCHEMA_VERSION
        self._unsure_of_numbers = True
        """Until the first look of `feed` whether all records are of this server's transactions."""

    async def start(self, clock: Clock, *, create: bool = True) -> None:
        """Read what the server is, and make the schema where there is none; `NotFound` without `create`."""
        await self.connections.look()
        settings = dict(
            await self.connections.fetch(
                "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'synchronous_standby_names',"
                " 'server_version_num') UNION ALL SELECT 'recovery', pg_is_in_recovery()::text"
            )
        )
        if int(settings["server_version_num"]) < 130000:
            raise Unsupported(f"This is PostgreSQL {settings['server_version_num']}; Perdure needs 13 or newer.")
        if settings["recovery"] == "true":
            raise Unsupported(
                "This is a replica that takes no writes: name the primary, or add target_session_attrs=read-write to the URL."
            )
        header = await self._header(clock, create=create)
        self.store_id, self.schema = header.id, header.schema
        self._plan_durability(settings)
        self._queries = _named(self._ns, self._channel, self.schema)
        self._announcer = Announcer(self.connections, self._queries["announce"], self._channel)

    def _plan_durability(self, settings: dict[str, str]) -> None:
        """What each level asks of `synchronous_commit`, and what it then reaches. What cannot be seen counts as the weaker."""
        local = settings["synchronous_commit"] if settings["synchronous_commit"] != "off" else "local"
        replicated = bool(settings["synchronous_standby_names"].strip())
        best = _promised(settings["fsync"], settings["synchronous_standby_names"])
        waits = replicated and local in ("on", "remote_apply")
        self._levels = {
            Durability.buffered: ("off", Durability.buffered),
            Durability.local: (local, min(best, Durability.quorum if waits else Durability.local)),
            Durability.quorum: (local if waits else "on", best),
        }
        self.durability_read = min(best, Durability.local)
        self.capabilities = Capabilities(
            durability=best,
            linearizable_reads=True,
            failover_loss=Durability.local,
            atomic_batch=True,
            keys_remembered=None,
            notification=not self.connections.pooled,
            record_bytes_max=RECORD_BYTES_MAX,
            scan_orders=("id",) if self.schema < 2 else ("id", "due"),
        )

    async def _header(self, clock: Clock, *, create: bool) -> StoreHeader:
        found = await self._stored()
        if found is None and not create:
            raise no_store(self.connections.place, f"the schema {self._ns}")
        if found is None:
            id = new_store_id(clock)
            make = files(__package__).joinpath("schema.sql").read_text().replace("{ns}", self._ns)
            body = f"SET LOCAL synchronous_commit = on; CREATE SCHEMA IF NOT EXISTS {self._ns}; {make}"
            stored = f"('schema', '{SCHEMA_VERSION}'), ('min_writer', '{SCHEMA_VERSION}'), ('id', '{id}')"
            body += f"INSERT INTO {self._ns}.store (name, value) VALUES {stored};"
            await self.connections.fetch(
                f"DO $perdure$ BEGIN PERFORM pg_advisory_xact_lock({LOCK}); "
                f"IF to_regclass('{self._ns}.store') IS NULL THEN {body} END IF; "
                # Another made it while this one waited: which error that is depends on what this connection had looked up before.
                "EXCEPTION WHEN duplicate_table OR duplicate_schema OR unique_violation THEN NULL; END $perdure$"
            )
            found = await self._stored() or {}
        schema, least = found.get("schema", ""), found.get("min_writer")
        if not schema.isdecimal() or "id" not in found or not (least is None or least.isdecimal()):
            raise Corrupt(f"The schema {self._ns} was not made by Perdure, and nothing was changed in it: choose another namespace.")
        header = StoreHeader(int(schema), found["id"], None if least is None else int(least))
        check_schema(header.schema, SCHEMA_VERSION, header.min_writer)
        return header

    async def _stored(self) -> dict[str, str] | None:
        """What the table `store` says; `None` where there is none."""
        if not (await self.connections.fetch(f"SELECT to_regclass('{self._ns}.store')::text"))[0][0]:
            return None
        # A table of something else may have other columns: what it has under these names is none of ours then.
        asked = f"SELECT to_jsonb(s) ->> 'name', to_jsonb(s) ->> 'value' FROM {self._ns}.store AS s LIMIT 16"
        return {name: value or "" for name, value in await self.connections.fetch(asked)}

    async def write(self, attempts: Sequence[Attempt]) -> Sequence[Answer]:
        """See `remote.Driver.write`: one statement, one transaction, one round trip; two where all is too much for one."""
        values = pack(attempts)
        if len(attempts) == 1 or len(values["bytes"]) <= BATCH_BYTES:
            return await self._write(attempts, values)
        half, answers = len(attempts) // 2, list[Answer]()
        for part in (attempts[:half], attempts[half:]):
            try:
                answers += await self.write(part)
            except Error as error:
                answers += [error] * len(part)
        return answers

    async def _write(self, attempts: Sequence[Attempt], values: dict[str, Any]) -> Sequence[Answer]:
        level, reached = self._levels[
            max(Durability.buffered, *(min(attempt.durability, self.capabilities.durability) for attempt in attempts))
        ]
        rows = await self.connections.fetch(self._queries["append"], {**values, "level": level}, writes=True)
        if not rows:
            await self._check_writer()
        answers = [self._answer(attempt, row, reached) for attempt, row in zip(attempts, rows, strict=True)]
        self._announcer.stored(
            (attempt.session, attempt.records[-1].head.version)
            for attempt, answer in zip(attempts, answers, strict=True)
            if isinstance(answer, Stored)
        )
        unseen = [number for number, answer in enumerate(answers) if answer is None]
        if unseen:  # Another made the session while this statement ran: its head is for the next one to see.
            try:
                heads = await self.heads([attempts[number].session for number in unseen])
            except Error as error:  # of those that were not stored alone
                return [error if answer is None else answer for answer in answers]
            for number, head in zip(unseen, heads, strict=True):
                answers[number] = HeadMismatch(head)
        return answers  # type: ignore[return-value]

    async def _check_writer(self) -> None:
        """Raise `Unsupported` where a write did nothing because the store takes writers of this version no more."""
        found = await self._stored() or {}
        check_writer(self.connections.place, writer_version(self.schema), int(found.get("min_writer", 1)))

    def notices(self) -> AsyncGenerator[Notice, None]:
        """See `remote.listening.NotificationSource`."""
        return notices(self.connections, (self._queries["listen"], self._queries["known"]))

    def _answer(self, attempt: Attempt, row: Sequence[Any], reached: Durability) -> Answer | None:
        """What a row of `append` says; `None` when the head that won is not to be seen yet."""
        won, *head, key, version, request, proven, _, fsync, standbys = row
        if won:
            reached = min(reached, _promised(fsync, standbys))
            if reached < min(attempt.durability, self.capabilities.durability):
                return Unknown(
                    f"PostgreSQL wrote, and not as durably as it was set to when it was opened: {reached.name!r} is all it promises now."
                )
            return Stored(reached)
        if head[0] is None:
            return HeadMismatch(None) if attempt.expected is not None else None
        if key is not None:
            found = Known(version, request, _head(attempt.session, head, proven is not False))
            if key == attempt.key:
                return found
            return Corrupt(f"A record of session {attempt.session.id!r} has an idempotency key that was applied before: {key!r}.")
        return HeadMismatch(_head(attempt.session, head, proven is not False), proven is True)

    async def heads(self, sessions: Sequence[SessionKey]) -> list[Head | None]:
        """See `spi.Backend.heads`."""
        values = {"tenant": [session.tenant for session in sessions], "id": [session.id for session in sessions]}
        rows = await self.connections.fetch(self._queries["heads"], values)
        return [None if row[0] is None else _head(one, row[:6], row[6]) for one, row in zip(sessions, rows, strict=True)]

    async def load(self, session: SessionKey, at: int | None) -> Loaded | None:
        """See `spi.Backend.load`."""
        index: Row | None = None
        snapshot: Snapshot | None = None
        records = []
        for part, *row in await self.connections.fetch(self._queries["load"], {**session._asdict(), "at": at}):
            if part == 0:
                index = _index_row(session, row[7] == 1, *row[:6], row[8], *row[12:])
            elif part == 1:
                snapshot = Snapshot(row[0], row[1], row[11])
            else:
                records.append(_record(session, row[:12]))
        return None if index is None else Loaded(index, snapshot, records)

    async def read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> list[Record]:
        """See `spi.Backend.read`."""
        values = {
            **session._asdict(),
            "after": after,
            "before": _VERSION_END if before is None else before,
            "limit": limit,
            "bytes": PAGE_BYTES,
        }
        query = self._queries["read"].replace("{order}", "DESC" if reverse else "ASC")
        return [_record(session, row) for row in await self.connections.fetch(query, values)]

    async def find_key(self, session: SessionKey, key: str) -> Known | None:
        """See `spi.Backend.find_key`."""
        rows = await self.connections.fetch(self._queries["find_key"], {**session._asdict(), "key": key})
        return Known(rows[0][0], rows[0][1], _head(session, rows[0][2:8], rows[0][8])) if rows else None

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot, *, size_bytes: int | None = None) -> None:
        """See `spi.Indexed.put_snapshot`."""
        values = {"version": snapshot.version, "hash": snapshot.hash, "body": snapshot.body, "kept": SNAPSHOTS_KEPT}
        values["size"] = LEAVE if size_bytes is None else size_bytes
        if not await self.connections.fetch(self._queries["put_snapshot"], session._asdict() | values, writes=True):
            await self._check_writer()

    async def change_index(self, row: Row, index: Index) -> bool:
        """See `spi.Indexed.change_index`."""
        values = row.session._asdict() | {"version": row.head.version, "hash": row.head.hash, "was": row.due_at}
        values |= {"due": due(index), "size": size(index), "control": index.control, "level": self._levels[Durability.local][0]}
        if await self.connections.fetch(self._queries["change_index"], values, writes=True):
            return True
        await self._check_writer()
        return False

    async def scan(self, query: Query, cursor: str | None, limit: int) -> Page[Row]:
        """See `spi.Backend.scan`."""
        where, values = conditions(query, cursor)
        text = " AND ".join(where).replace("{proven}", _PROVEN.replace("{ns}", self._ns))
        statement = self._queries["due" if query.order == "due" else "scan"].replace("{where}", text)
        found = await self.connections.fetch(statement, {**values, "limit": limit})
        rows = [_index_row(SessionKey(tenant, id), *columns) for tenant, id, *columns in found]
        if len(rows) < limit:
            return Page(rows, None)
        last = rows[-1]
        return Page(rows, last.session.id if query.order == "id" else write_due_cursor(last.due_at or 0, last.session))

    async def feed(self, cursor: str | None, limit: int) -> Page[Change]:
        """See `spi.Backend.feed`. A transaction that stays open, anywhere in the database, holds it back. Raises `Unsupported` where
        records were restored from another server, whose transactions have larger numbers: they would be passed over."""
        if self._unsure_of_numbers:
            if (await self.connections.fetch(self._queries["ahead"]))[0][0]:
                raise Unsupported(f"{ahead(self._ns)}: {renumber(self._ns)}.", advice="")
            self._unsure_of_numbers = False
        xid, n, version = numbers_of(cursor or "0:0:0", 3)
        rows = await self.connections.fetch(self._queries["feed"], {"xid": str(xid), "n": n, "version": version, "limit": limit})
        changes = [Change(session := SessionKey(tenant, id), _record(session, row)) for _, _, tenant, id, *row in rows]
        return Page(changes, ":".join(map(str, (*rows[-1][:2], rows[-1][4]))) if rows else cursor or "0:0:0")

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:
        """See `spi.Indexed.truncate`."""
        values = session._asdict() | {"below": below, "anchor": anchor[0], "hash": anchor[1], "kind": int(Kind.anchor)}
        if not await self.connections.fetch(self._queries["truncate"], values | {"snapshot": snapshot}, writes=True):
            await self._check_writer()
            raise Invalid(f"Session {session.id!r} has no anchor commit at version {anchor[0]} with this hash, or {below} is above it.")

    async def purge(self, session: SessionKey) -> None:
        """See `spi.Backend.purge`."""
        values = session._asdict() | {"status": int(Status.deleted)}
        if not await self.connections.fetch(self._queries["purge"], values, writes=True):
            await self._check_writer()
            raise Invalid(f"Session {session.id!r} is not deleted: delete it before it is purged.")

    async def require_writer(self, version: int) -> None:
        """See `spi.Versioned.require_writer`."""
        await require_writer(self.connections, self._ns, version)

    async def migrate(self, from_version: int, progress: Progress) -> None:
        """See `spi.Versioned.migrate`: one transaction."""
        await migrate(self.connections, self._ns, from_version, progress)

    async def checkup(self) -> Checkup:
        """See `remote.Driver.checkup`."""
        found = await checkup(self.connections)
        if not (await self.connections.fetch(self._queries["ahead"]))[0][0]:
            return found
        return found._replace(findings=[*found.findings, Finding("bad", "unsupported", f"{ahead(self._ns)}.", renumber(self._ns))])

    async def close(self) -> None:
        """See `remote.Driver.close`."""
        await self._announcer.close()
        await self.connections.close()


def _named(ns: str, channel: str, schema: int) -> dict[str, str]:
    """The statements of queries.sql by their names, as a store of this schema has them."""
    text = files(__package__).joinpath("queries.sql").read_text()
    mine, others = ("2", "1") if schema >= 2 else ("1", "2")
    text = re.sub(rf"^.*--{others}\n", "", text, flags=re.MULTILINE).replace(f" --{mine}\n", "\n")
    values = {"ns": ns, "channel": f'"{channel}"', "listening": LISTENING, "batch": BATCH_MAX, "attempt": ATTEMPT, "record": RECORD}
    text = text.replace("{writes}", _WRITES).replace("{proven}", _PROVEN)
    for name, value in {**values, "leave": LEAVE, "remove": REMOVE, "writer": writer_version(schema)}.items():
        text = text.replace(f"{{{name}}}", str(value))
    parts = re.split(r"^-- (\w+) --\n", text, flags=re.MULTILINE)[1:]
    return {name: re.sub(r"^--.*\n", "", body, flags=re.MULTILINE).strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _head(session: SessionKey, columns: Sequence[Any], proven: bool) -> Head:
    """A head, and whether its newest commit repeats it. Raises `Corrupt`, as the next ones do."""
    if not proven:
        raise head_differs(session)
    with _reading(session):
        return make_head(*columns)


def _index_row(session: SessionKey, proven: bool, *columns: Any) -> Row:
    head = _head(session, columns[:6], proven)
    with _reading(session):
        tags = _TAGS.decode(columns[6])
        return Row(session, head, tags, columns[7], *make_cells(*columns[8:]))


def _record(session: SessionKey, row: Sequence[Any]) -> Record:
    with _reading(session):
        return make_record(make_head(*row[:6]), *row[6:])


def _reading(session: SessionKey) -> Reading:
    return Reading(lambda: f"What PostgreSQL holds of session {session.id!r}")


def _promised(fsync: str, standbys: str) -> Durability:
    """The most that a server with these settings promises. They may change while it runs, and with a failover."""
    return Durability.buffered if fsync == "off" else Durability.quorum if standbys.strip() else Durability.local
