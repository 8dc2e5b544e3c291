"""The driver: many sessions' appends in one commit, each on its header's version; snapshots, truncation, purge."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from secrets import token_hex

import msgspec

from perdure.backends.common.pages import SNAPSHOTS_KEPT
from perdure.backends.common.pieces import cut, piece_name, pieces_of
from perdure.backends.common.refusals import check_anchor, check_deleted, check_snapshot_size, no_anchor, not_deleted
from perdure.backends.common.store_header import StoreHeader, open_header
from perdure.backends.google import layout
from perdure.backends.google.checkup import Ask, checkup
from perdure.backends.google.entities import ABSENT, Entities, Entity, Fields, Path, Refused, Write
from perdure.backends.google.feed import Feed
from perdure.backends.google.layout import SessionHeader
from perdure.backends.google.reader import Reader, pieces_name
from perdure.backends.remote import Answer, Attempt, HeadMismatch, Stored
from perdure.backends.remote.loop import gather_all
from perdure.backends.spi import Capabilities, Change, Checkup, Durability, Known, Page, Record, Snapshot
from perdure.clock import Clock
from perdure.errors import Error, Unavailable, Unknown, Unsupported
from perdure.model.ids import SessionKey

RECORD_BYTES_MAX = 16 << 20
WHOLE_BYTES = 640 << 10
"""Bytes of a commit's meta and body, or of a snapshot, that lie in one entity; larger ones are cut. An entity takes 1 MiB."""
PIECE_BYTES = 960 << 10
COMMIT_BYTES = 3 << 20
"""About how many bytes go in one commit: services take 10 MiB, an emulator 4."""
COMMIT_WRITES = 400
"""Entities in one commit; a service takes 500."""
TRIES = 12
"""How often a commit is made again because others were writing to the same sessions."""
WAIT = 0.01
"""Seconds before the second of these; each time twice as long, up to half a second."""


class GoogleDriver(Reader):
    """A `Driver` on one database."""

    lanes = 4
    batch_max = 64

    def __init__(self, entities: Entities, place: str, ask: Ask) -> None:
        """`ask` asks what the database is set to."""
        super().__init__(entities)
        self._ask = ask
        self._place = place
        self.store_id = ""
        self._unproven: Entity | None = None
        self.durability_read = durability = Durability.quorum if entities.is_production else Durability.buffered
        self._feed = Feed(self)
        self.capabilities = Capabilities(
            durability=durability,
            linearizable_reads=True,
            failover_loss=None,
            atomic_batch=False,
            keys_remembered=None,
            notification=False,
            record_bytes_max=RECORD_BYTES_MAX,
        )

    async def start(self, clock: Clock, *, create: bool = True) -> None:
        """Read the store's id; make the store where there is none, or without `create` raise `NotFound`: nothing is then sent to be written
        before the first write. Raises `Corrupt`, `Unsupported` too."""

        async def read() -> Entity | None:
            (self._unproven,) = await self.entities.get([layout.META])
            return self._unproven

        async def make(id: str) -> None:
            with suppress(Refused):  # Another process was first.
                await self.entities.commit([Write(layout.META, {"layout": layout.LAYOUT, "store": id}, ABSENT)])

        what = f"the entity {'/'.join(layout.META)!r}"
        header = await open_header(read, make, _header, place=self._place, what=what, known=layout.LAYOUT, clock=clock, create=create)
        self.store_id = header.id
        if create:
            await self._prove()

    async def _prove(self) -> None:
        """See that a service refuses what it should: a write that it applies here would be a commit that it loses later."""
        entity = self._unproven
        if entity is None:
            return
        try:
            await self.entities.commit([Write(entity.path, entity.fields, ABSENT)])
        except Refused:
            self._unproven = None
            return
        except Unknown as error:  # No commit was sent yet.
            raise Unavailable(f"{self._place} did not answer when its conditions were tried.") from error
        raise Unsupported(f"{self._place} ignores the condition of a write: commits would be lost.")

    async def write(self, attempts: Sequence[Attempt]) -> Sequence[Answer]:
        """See `Driver`: one request for all, and one before it where a header is not known; larger ones in groups, at once."""
        await self._prove()
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
        writes: list[Write] = []
        afters: list[tuple[SessionKey, SessionHeader, int]] = []
        for attempt in attempts.values():
            before = self._headers.get(attempt.session)
            after = _after(attempt, before)
            afters.append((attempt.session, after, len(writes)))
            on = ABSENT if before is None else before.version
            writes.append(Write(layout.session(attempt.session), layout.encode_header(after, unlogged=True), on))
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

    async def _cut(self, session: SessionKey, name: str, payload: bytes) -> int:
        """Store the pieces, one a request; how many they are."""
        pieces = cut(payload, PIECE_BYTES)
        for number, piece in enumerate(pieces):
            path = (*layout.session(session), "piece", piece_name(name, number))
            await self.entities.commit([Write(path, {"bytes": piece})])
        return len(pieces)

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot) -> None:
        """See `Driver`. Together with the header, which names it: a purge that comes between is not undone."""
        check_snapshot_size(snapshot, RECORD_BYTES_MAX, "this service")
        name, pieces, body = f"{layout.number(snapshot.version)}-snapshot-{token_hex(8)}", 0, snapshot.body
        for _ in range(TRIES):
            found = await self.read(session, snapshot.version - 1, snapshot.version + 1, 1, reverse=False)
            header = self._headers.get(session)
            if not found or found[0].head.hash != snapshot.hash or header is None:
                break
            if snapshot.version in header.snapshots or snapshot.version < header.first:
                break
            if len(body) > WHOLE_BYTES:
                pieces, body = await self._cut(session, name, body), b""
            kept = sorted((*header.snapshots, snapshot.version))[-SNAPSHOTS_KEPT:]
            fields: Fields = {"hash": snapshot.hash, "body": body, "name": name, "pieces": pieces}
            writes = [Write(layout.snapshot(session, snapshot.version), fields)]
            if await self._set(session, header, msgspec.structs.replace(header, snapshots=kept), writes):
                await self._forget_snapshots(session, [version for version in header.snapshots if version not in kept])
                return
        await self._delete([(*layout.session(session), "piece", piece_name(name, place)) for place in range(pieces)])

    async def _set(self, session: SessionKey, header: SessionHeader, changed: SessionHeader, beside: Sequence[Write]) -> bool:
        """Change a header that is still as it was read, and others with it; whether it was."""
        self._headers.pop(session)
        fields = layout.encode_header(changed, unlogged=changed.logged < changed.head.version)
        try:
            await self.entities.commit([Write(layout.session(session), fields, header.version), *beside])
        except Refused:
            return False
        return True

    async def _forget_snapshots(self, session: SessionKey, versions: Sequence[int]) -> None:
        found = await self.entities.get([layout.snapshot(session, version) for version in versions]) if versions else []
        for entity in found:
            if entity is not None:
                *_, name, pieces = layout.decode_snapshot(entity)
                gone = [(*layout.session(session), "piece", piece_name(name, place)) for place in range(pieces)]
                await self._delete([*gone, entity.path])

    async def _delete(self, paths: Sequence[Path]) -> None:
        for start in range(0, len(paths), COMMIT_WRITES):
            await self.entities.commit([Write(path, None) for path in paths[start : start + COMMIT_WRITES]])

    async def feed(self, cursor: str | None, limit: int) -> Page[Change]:
        """See `Driver`. Writes the log that it reads, at its end."""
        return await self._feed.page(cursor, limit)

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes]) -> None:
        """See `Driver`. The first version in the header is what counts; what lies below goes afterwards, also what an earlier truncation
        that was interrupted has left."""
        await self._prove()
        for _ in range(TRIES):
            found = await self.read(session, anchor[0] - 1, anchor[0] + 1, 1, reverse=False)
            header = self._headers.get(session)
            if not found or header is None:
                raise no_anchor(session, below, anchor)
            check_anchor(session, found[0], below, anchor)
            first = max(below, header.first)
            gone = [version for version in header.snapshots if version < first - 1]
            kept = [version for version in header.snapshots if version >= first - 1]
            if first == header.first or await self._set(session, header, msgspec.structs.replace(header, first=first, snapshots=kept), []):
                await self._forget_snapshots(session, gone)
                await self._drop(session, first)
                await self._feed.sweep(first - header.first)
                return
        raise Unavailable(f"Session {session.id!r} is written to all the time: truncate it again.")

    async def _drop(self, session: SessionKey, below: int) -> None:
        """Remove the records below a version, with their pieces."""
        for kind in ("record", "piece"):
            await self._remove(session, kind, "", layout.number(below))

    async def _remove(self, session: SessionKey, kind: str, low: str, high: str) -> None:
        above, most = layout.session(session), COMMIT_WRITES if kind == "key" else 4
        while found := await self.entities.query(above, kind, low, high, most):
            await self._delete([entity.path for entity in found])

    async def purge(self, session: SessionKey) -> None:
        """See `Driver`. The header becomes the stub first; the rest goes afterwards, also what a purge that was cut short has left."""
        await self._prove()
        for _ in range(TRIES):
            header = await self.header(session)
            if header is None:
                raise not_deleted(session)
            last = check_deleted(session, header.head).version
            if (header.purged and header.first == last) or await self._become_stub(session, header):
                await self._drop(session, last)
                await self._remove(session, "piece", "", layout.number(last + 1))
                await self._remove(session, "snapshot", "", layout.number(last + 1))
                await self._forget_keys(session, last)
                await self._feed.sweep(last - header.first)
                return
        raise Unavailable(f"Session {session.id!r} is written to all the time: purge it again.")

    async def _become_stub(self, session: SessionKey, header: SessionHeader) -> bool:
        """Leave of a session its last record without a body, and no tags."""
        found = await self.read(session, header.head.version - 1, header.head.version + 1, 1, reverse=False)
        if not found or found[0].head != header.head:
            return False
        blank = layout.encode_record(msgspec.structs.replace(found[0], body=b""), 0)
        stub = msgspec.structs.replace(header, first=header.head.version, tags={}, purged=True, snapshots=())
        return await self._set(session, header, stub, [Write(layout.record(session, header.head.version), blank)])

    async def _forget_keys(self, session: SessionKey, upto: int) -> None:
        """Remove the keys of a life that has ended; those of a next one stay."""
        low = ""
        while found := await self.entities.query(layout.session(session), "key", low, layout.END, COMMIT_WRITES):
            await self._delete([entity.path for entity in found if layout.decode_key(entity)[0] <= upto])
            low = found[-1].path[-1] + " "

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
    tags = None if attempt.index is None else attempt.index.tags
    if before is None:
        return SessionHeader(head, first.version, first.at, dict(tags or {}))
    return msgspec.structs.replace(before, head=head, tags=before.tags if tags is None else dict(tags))


def _header(entity: Entity) -> StoreHeader:
    schema, store = entity.fields["layout"], entity.fields["store"]
    if type(schema) is not int or type(store) is not str:
        raise TypeError(f"{schema!r}, {store!r}")
    return StoreHeader(schema, store)
