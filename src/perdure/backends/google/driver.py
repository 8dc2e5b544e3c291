"""The driver: many sessions' appends in one commit, each on its header's version."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from perdure.backends.common import schema
from perdure.backends.common.pieces import pieces_of
from perdure.backends.common.store_header import open_header
from perdure.backends.common.upgrade import SchemaState
from perdure.backends.google import layout, upgrade
from perdure.backends.google.changes import COMMIT_WRITES, PIECE_BYTES, RECORD_BYTES_MAX, TRIES, WHOLE_BYTES, Changes
from perdure.backends.google.checkup import Ask, checkup
from perdure.backends.google.entities import ABSENT, Entities, Entity, Fields, Path, Refused, Write
from perdure.backends.google.gate import WriteGate
from perdure.backends.google.layout import SessionHeader
from perdure.backends.google.reader import pieces_name
from perdure.backends.remote import Answer, Attempt, HeadMismatch, Stored
from perdure.backends.remote.loop import gather_all
from perdure.backends.spi import SCHEMA_VERSION, Capabilities, Change, Checkup, Durability, Index, Known, Page, Progress, Record
from perdure.clock import Clock
from perdure.errors import Error, Unavailable
from perdure.model.ids import SessionKey

COMMIT_BYTES = 3 << 20
"""About how many bytes go in one commit: services take 10 MiB, an emulator 4."""
WAIT = 0.01
"""Seconds before the second of these; each time twice as long, up to half a second."""


class GoogleDriver(Changes):
    """A `Driver` on one database."""

    lanes = 4
    batch_max = 64
    proves_heads = False

    def __init__(self, entities: Entities, place: str, ask: Ask) -> None:
        """`ask` asks what the database is set to."""
        super().__init__(entities, place)
        self._ask = ask
        self.store_id, self.schema = "", SCHEMA_VERSION
        self.durability_read = durability = Durability.quorum if entities.is_production else Durability.buffered
        self.capabilities = Capabilities(
            durability=durability,
            linearizable_reads=True,
            failover_loss=None,
            atomic_batch=False,
            keys_remembered=None,
            notification=False,
            record_bytes_max=RECORD_BYTES_MAX,
            min_writer_seconds=schema.MIN_WRITER_SECONDS,
        )

    async def start(self, clock: Clock, *, create: bool = True) -> None:
        """Read the store's id; make the store where there is none, or without `create` raise `NotFound`: nothing is then sent to be written
        before the first write. Raises `Corrupt`, `Unsupported` too."""

        seen: list[Entity] = []

        async def read() -> Entity | None:
            (entity,) = await self.entities.get([layout.META])
            seen[:] = [] if entity is None else [entity]
            return entity

        async def make(id: str) -> None:
            fields = layout.encode_meta({"store": id}, SchemaState(SCHEMA_VERSION, SCHEMA_VERSION))
            with suppress(Refused):  # Another process was first.
                await self.entities.commit([Write(layout.META, fields, ABSENT)])

        what, parse = f"the entity {'/'.join(layout.META)!r}", layout.parse_meta
        header = await open_header(read, make, parse, place=self._place, what=what, known=SCHEMA_VERSION, clock=clock, create=create)
        self.store_id, self.schema = header.id, header.schema
        if self.schema >= 2:
            self.capabilities = msgspec.structs.replace(self.capabilities, scan_orders=("id", "due"))
        self.gate = WriteGate(self.entities, self._place, clock, seen[0], header)
        if create:
            await self.gate.prove()

    async def write(self, attempts: Sequence[Attempt]) -> Sequence[Answer]:
        """See `Driver`: one request for all, and one before it where a header is not known; larger ones in groups, at once."""
        await self.gate.check()
        groups: list[list[int]] = []
        size = writes = COMMIT_BYTES
        for place, attempt in enumerate(attempts):
            weight = sum(min(record.stored_bytes, WHOLE_BYTES) for record in attempt.records)
            count = 1 + 2 * len(attempt.records)
            if size + weight > COMMIT_BYTES or writes + count > COMMIT_WRITES:
                groups.append([])
                size = writes = 0
            groups[-1].append(place)
            size, writes = size + weight, writes + count
        answers: dict[int, Answer] = {}
        await gather_all(*[self._write({place: attempts[place] for place in group}, answers) for group in groups])
        return [answers[place] for place in range(len(attempts))]

    async def _write(self, group: Mapping[int, Attempt], answers: dict[int, Answer]) -> None:
        left = dict(group)
        try:
            for attempt in left.values():
                await self._cut_records(attempt)
            await self._judge(left, answers, again=False)
            for tries in range(TRIES):
                if not left:
                    return
                if await self._commit(left):
                    answers |= dict.fromkeys(left, Stored(self.durability_read))
                    return
                if tries:
                    await asyncio.sleep(min(0.5, WAIT * 2**tries))
                await self._judge(left, answers, again=True)
            error: Error = Unavailable(f"Others were writing to the same sessions of {self._place} {TRIES} times over: do it again.")
        except Error as raised:
            error = raised
        for place, attempt in left.items():
            self._headers.pop(attempt.session)
            answers[place] = error

    async def _judge(self, left: dict[int, Attempt], answers: dict[int, Answer], *, again: bool) -> None:
        """Take out those whose head or key is not as they expect, by what the service has now; with `again` not, where what is remembered
        says that they are good."""
        unverified = [place for place, attempt in left.items() if again or not self._good(attempt)]
        if not unverified:
            return
        paths: list[Path] = []
        for place in unverified:
            attempt = left[place]
            paths.append(layout.session(attempt.session))
            paths += [layout.idempotency(attempt.session, key) for key in _keys(attempt)]
        found = {path: entity for path, entity in zip(paths, await self.entities.get(paths), strict=True) if entity is not None}
        for place in unverified:
            attempt = left[place]
            entity = found.get(layout.session(attempt.session))
            header = None if entity is None else layout.decode_header(entity)
            self._headers.pop(attempt.session)
            if header is not None:
                self.remember(attempt.session, header)
            known = next((found[path] for key in _keys(attempt) if (path := layout.idempotency(attempt.session, key)) in found), None)
            if known is not None and header is not None:
                answers[place] = Known(*layout.decode_key(known), header.head)
                del left[place]
            elif (None if header is None else header.head) != attempt.expected:
                answers[place] = HeadMismatch(None if header is None else header.head)
                del left[place]

    def _good(self, attempt: Attempt) -> bool:
        """Whether a write may be tried on what is remembered. A key that no record brings has to be looked for."""
        header = self._headers.get(attempt.session)
        return (None if header is None else header.head) == attempt.expected and {*_keys(attempt)} == {
            record.key for record in attempt.records if record.key is not None
        }

    async def _commit(self, attempts: Mapping[int, Attempt]) -> bool:
        """Whether all were applied; none were where one was refused."""
        await self.gate.check()
        writes: list[Write] = []
        afters: list[tuple[SessionKey, SessionHeader, int]] = []
        for attempt in attempts.values():
            before = self._headers.get(attempt.session)
            after = _after(attempt, before)
            afters.append((attempt.session, after, len(writes)))
            on = ABSENT if before is None else before.version
            writes.append(Write(layout.session(attempt.session), layout.encode_header(attempt.session, after, unlogged=True), on))
            for record in attempt.records:
                fields = layout.encode_record(record, _pieces(record))
                writes.append(Write(layout.record(attempt.session, record.head.version), fields, ABSENT))
                if record.key is not None:
                    key: Fields = {"version": record.head.version, "request": record.request}
                    writes.append(Write(layout.idempotency(attempt.session, record.key), key, ABSENT))
        try:
            versions = await self.entities.commit(writes)
        except Refused:
            return False
        for session, after, place in afters:
            self.remember(session, msgspec.structs.replace(after, version=versions[place]))
        return True

    async def _cut_records(self, attempt: Attempt) -> None:
        """Store the pieces of what is too large for an entity. Nothing refers to them before the commit does, and they stay when it
        fails: the same attempt may have been stored by a write whose answer was lost."""
        for record in attempt.records:
            if _pieces(record):
                await self._cut(attempt.session, pieces_name(record), record.meta + record.body)

    async def feed(self, cursor: str | None, limit: int) -> Page[Change]:
        """See `Driver`. Writes the log that it reads, at its end."""
        return await self._feed.page(cursor, limit)

    async def require_writer(self, version: int) -> None:
        """See `spi.Versioned`."""
        await upgrade.require_writer(self.entities, self._place, version)
        self.gate.writers.forget()

    async def migrate(self, from_version: int, progress: Progress) -> None:
        """See `spi.Versioned`."""
        await self.gate.prove()
        self.gate.writers.forget()
        await upgrade.migrate(self.entities, self._place, from_version, progress)

    async def checkup(self) -> Checkup:
        """See `Driver`."""
        return await checkup(self.entities.server, self._place, self._ask, is_production=self.entities.is_production)

    async def close(self) -> None:
        """See `Driver`."""
        await self.entities.close()


def _keys(attempt: Attempt) -> list[str]:
    return [*dict.fromkeys(key for key in (attempt.key, *[record.key for record in attempt.records]) if key is not None)]


def _pieces(record: Record) -> int:
    size = len(record.meta) + len(record.body)
    return pieces_of(size, PIECE_BYTES) if size > WHOLE_BYTES else 0


def _after(attempt: Attempt, before: SessionHeader | None) -> SessionHeader:
    first, head = attempt.records[0].head, attempt.records[-1].head
    header = SessionHeader(head, first.version, first.at, {}) if before is None else msgspec.structs.replace(before, head=head)
    return header.changed(attempt.index or Index())
