"""The driver: many sessions' appends in one commit, each on its top's version; snapshots, truncation, purge."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from secrets import token_hex

import msgspec

from perdure.backends.common.refusals import no_store
from perdure.backends.google import layout
from perdure.backends.google.checkup import Ask, checkup
from perdure.backends.google.entities import ABSENT, Entities, Entity, Fields, Path, Refused, Write
from perdure.backends.google.feed import Feed
from perdure.backends.google.layout import Top
from perdure.backends.google.reader import Reader, piece, pieces_of
from perdure.backends.remote import Answer, Attempt, HeadMismatch, Stored
from perdure.backends.remote.loop import gather_all
from perdure.backends.spi import Capabilities, Change, Checkup, Durability, Known, Page, Record, Snapshot
from perdure.clock import Clock
from perdure.errors import Corrupt, Error, Invalid, TooLarge, Unavailable, Unknown, Unsupported
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey, uuid7

RECORD_BYTES_MAX = 16 << 20
WHOLE_BYTES = 640 << 10
"""Bytes of a commit's meta and body, or of a snapshot, that lie in one entity; larger ones are cut. An entity takes 1 MiB."""
PIECE_BYTES = 960 << 10
COMMIT_BYTES = 3 << 20
"""About how many bytes go in one commit: services take 10 MiB, an emulator 4."""
COMMIT_WRITES = 400
"""Entities in one commit; a service takes 500."""
SNAPSHOTS_KEPT = 2
TRIES = 12
"""How often a commit is made anew because others were writing to the same sessions."""
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
        self.durability_read = durability = Durability.quorum if entities.own else Durability.buffered
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
        (entity,) = await self.entities.get([layout.META])
        if entity is None and not create:
            raise no_store(self._place, f"the entity {'/'.join(layout.META)!r}")
        if entity is None:
            made = Write(layout.META, {"layout": layout.LAYOUT, "store": uuid7(clock.now(), clock.bits(74)).hex()}, ABSENT)
            with suppress(Refused):  # Another process was first.
                await self.entities.commit([made])
            (entity,) = await self.entities.get([layout.META])
        if entity is None:
            raise Unavailable(f"{self._place} took a write and does not give it back: open it again.")
        known, store = entity.fields.get("layout"), entity.fields.get("store")
        if type(known) is not int or type(store) is not str:
            raise Corrupt(f"The entity {layout.META!r} of {self._place} was not written by Perdure: choose another namespace.")
        if known > layout.LAYOUT:
            raise Unsupported(f"This store has the layout {known}; this version of Perdure knows {layout.LAYOUT}: upgrade perdure.")
        self.store_id = store
        self._unproven = entity
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
        """See `Driver`: one request for all, and one before it where a top is not known; larger ones in groups, at once."""
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
            await self._judge(left, answers, anew=False)
            for tries in range(TRIES):
                if not left:
                    return
                if await self._commit(left):
                    answers |= dict.fromkeys(left, Stored(self.durability_read))
                    return
                if tries:
                    await asyncio.sleep(min(0.5, WAIT * 2**tries))
                await self._judge(left, answers, anew=True)
            error: Error = Unavailable(f"Others were writing to the same sessions of {self._place} {TRIES} times over: do it again.")
        except Error as raised:
            error = raised
        for place, attempt in left.items():
            self._tops.pop(attempt.session)
            answers[place] = error

    async def _judge(self, left: dict[int, Attempt], answers: dict[int, Answer], *, anew: bool) -> None:
        """Take out those whose head or key is not as they expect, by what the service has now; with `anew` not, where what is remembered
        says that they are good."""
        doubtful = [place for place, attempt in left.items() if anew or not self._good(attempt)]
        if not doubtful:
            return
        paths: list[Path] = []
        for place in doubtful:
            attempt = left[place]
            paths.append(layout.session(attempt.session))
            paths += [layout.idempotency(attempt.session, key) for key in _keys(attempt)]
        found = {path: entity for path, entity in zip(paths, await self.entities.get(paths), strict=True) if entity is not None}
        for place in doubtful:
            attempt = left[place]
            entity = found.get(layout.session(attempt.session))
            top = None if entity is None else layout.decode_top(entity)
            self._tops.pop(attempt.session)
            if top is not None:
                self.remember(attempt.session, top)
            known = next((found[path] for key in _keys(attempt) if (path := layout.idempotency(attempt.session, key)) in found), None)
            if known is not None and top is not None:
                answers[place] = Known(*layout.decode_key(known), top.head)
                del left[place]
            elif (None if top is None else top.head) != attempt.expected:
                answers[place] = HeadMismatch(None if top is None else top.head)
                del left[place]

    def _good(self, attempt: Attempt) -> bool:
        """Whether a write may be tried on what is remembered. A key that no record brings has to be looked for."""
        top = self._tops.get(attempt.session)
        return (None if top is None else top.head) == attempt.expected and {*_keys(attempt)} == {
            record.key for record in attempt.records if record.key is not None
        }

    async def _commit(self, attempts: Mapping[int, Attempt]) -> bool:
        """Whether all were applied; none were where one was refused."""
        writes: list[Write] = []
        afters: list[tuple[SessionKey, Top, int]] = []
        for attempt in attempts.values():
            before = self._tops.get(attempt.session)
            after = _after(attempt, before)
            afters.append((attempt.session, after, len(writes)))
            on = ABSENT if before is None else before.version
            writes.append(Write(layout.session(attempt.session), layout.encode_top(after, news=True), on))
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
                await self._cut(attempt.session, pieces_of(record), record.meta + record.body)

    async def _cut(self, session: SessionKey, name: str, payload: bytes) -> int:
        """Store the pieces, one a request; how many they are."""
        starts = range(0, len(payload), PIECE_BYTES)
        for place, start in enumerate(starts):
            path = (*layout.session(session), "piece", piece(name, place))
            await self.entities.commit([Write(path, {"bytes": payload[start : start + PIECE_BYTES]})])
        return len(starts)

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot) -> None:
        """See `Driver`. Together with the top, which names it: a purge that comes between is not undone."""
        if len(snapshot.body) > RECORD_BYTES_MAX:
            raise TooLarge(f"A snapshot of {len(snapshot.body):,} bytes; here {RECORD_BYTES_MAX:,} are taken.")
        name, pieces, body = f"{layout.number(snapshot.version)}-snapshot-{token_hex(8)}", 0, snapshot.body
        for _ in range(TRIES):
            found = await self.read(session, snapshot.version - 1, snapshot.version + 1, 1, reverse=False)
            top = self._tops.get(session)
            if not found or found[0].head.hash != snapshot.hash or top is None:
                break
            if snapshot.version in top.snapshots or snapshot.version < top.first:
                break
            if len(body) > WHOLE_BYTES:
                pieces, body = await self._cut(session, name, body), b""
            kept = sorted((*top.snapshots, snapshot.version))[-SNAPSHOTS_KEPT:]
            fields: Fields = {"hash": snapshot.hash, "body": body, "name": name, "pieces": pieces}
            writes = [Write(layout.snapshot(session, snapshot.version), fields)]
            if await self._set(session, top, msgspec.structs.replace(top, snapshots=kept), writes):
                await self._forget_snapshots(session, [version for version in top.snapshots if version not in kept])
                return
        await self._delete([(*layout.session(session), "piece", piece(name, place)) for place in range(pieces)])

    async def _set(self, session: SessionKey, top: Top, changed: Top, beside: Sequence[Write]) -> bool:
        """Change a top that is still as it was read, and others with it; whether it was."""
        self._tops.pop(session)
        news = changed.logged < changed.head.version
        try:
            await self.entities.commit([Write(layout.session(session), layout.encode_top(changed, news=news), top.version), *beside])
        except Refused:
            return False
        return True

    async def _forget_snapshots(self, session: SessionKey, versions: Sequence[int]) -> None:
        found = await self.entities.get([layout.snapshot(session, version) for version in versions]) if versions else []
        for entity in found:
            if entity is not None:
                *_, name, pieces = layout.decode_snapshot(entity)
                gone = [(*layout.session(session), "piece", piece(name, place)) for place in range(pieces)]
                await self._delete([*gone, entity.path])

    async def _delete(self, paths: Sequence[Path]) -> None:
        for start in range(0, len(paths), COMMIT_WRITES):
            await self.entities.commit([Write(path, None) for path in paths[start : start + COMMIT_WRITES]])

    async def feed(self, cursor: str | None, limit: int) -> Page[Change]:
        """See `Driver`. Writes the log that it reads, at its end."""
        return await self._feed.page(cursor, limit)

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes]) -> None:
        """See `Driver`. The first version in the top is what counts; what lies below goes afterwards, also what a truncation that was cut
        short has left."""
        await self._prove()
        refused = Invalid(f"Session {session.id!r} has no anchor commit at version {anchor[0]} with this hash, or {below} is above it.")
        for _ in range(TRIES):
            found = await self.read(session, anchor[0] - 1, anchor[0] + 1, 1, reverse=False)
            top = self._tops.get(session)
            if not found or (found[0].head.hash, found[0].kind) != (anchor[1], Kind.anchor) or below > anchor[0] or top is None:
                raise refused
            first = max(below, top.first)
            gone = [version for version in top.snapshots if version < first - 1]
            kept = [version for version in top.snapshots if version >= first - 1]
            if first == top.first or await self._set(session, top, msgspec.structs.replace(top, first=first, snapshots=kept), []):
                await self._forget_snapshots(session, gone)
                await self._drop(session, first)
                await self._feed.sweep(first - top.first)
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
        """See `Driver`. The top becomes the stub first; the rest goes afterwards, also what a purge that was cut short has left."""
        await self._prove()
        for _ in range(TRIES):
            top = await self.top(session)
            if top is None or top.head.status != Status.deleted:
                raise Invalid(f"Session {session.id!r} is not deleted: delete it before it is purged.")
            last = top.head.version
            if (top.purged and top.first == last) or await self._become_stub(session, top):
                await self._drop(session, last)
                await self._remove(session, "piece", "", layout.number(last + 1))
                await self._remove(session, "snapshot", "", layout.number(last + 1))
                await self._forget_keys(session, last)
                await self._feed.sweep(last - top.first)
                return
        raise Unavailable(f"Session {session.id!r} is written to all the time: purge it again.")

    async def _become_stub(self, session: SessionKey, top: Top) -> bool:
        """Leave of a session its last record without a body, and no tags."""
        found = await self.read(session, top.head.version - 1, top.head.version + 1, 1, reverse=False)
        if not found or found[0].head != top.head:
            return False
        blank = layout.encode_record(msgspec.structs.replace(found[0], body=b""), 0)
        stub = msgspec.structs.replace(top, first=top.head.version, tags={}, purged=True, snapshots=())
        return await self._set(session, top, stub, [Write(layout.record(session, top.head.version), blank)])

    async def _forget_keys(self, session: SessionKey, upto: int) -> None:
        """Remove the keys of a life that has ended; those of a next one stay."""
        low = ""
        while found := await self.entities.query(layout.session(session), "key", low, layout.END, COMMIT_WRITES):
            await self._delete([entity.path for entity in found if layout.decode_key(entity)[0] <= upto])
            low = found[-1].path[-1] + " "

    async def checkup(self) -> Checkup:
        """See `Driver`."""
        return await checkup(self.entities.server, self._place, self._ask, own=self.entities.own)

    async def close(self) -> None:
        """See `Driver`."""
        await self.entities.close()


def _keys(attempt: Attempt) -> list[str]:
    return [*dict.fromkeys(key for key in (attempt.key, *[record.key for record in attempt.records]) if key is not None)]


def _pieces(record: Record) -> int:
    size = len(record.meta) + len(record.body)
    return -(-size // PIECE_BYTES) if size > WHOLE_BYTES else 0


def _after(attempt: Attempt, before: Top | None) -> Top:
    first, head = attempt.records[0].head, attempt.records[-1].head
    tags = None if attempt.index is None else attempt.index.tags
    if before is None:
        return Top(head, first.version, first.at, dict(tags or {}))
    return msgspec.structs.replace(before, head=head, tags=before.tags if tags is None else dict(tags))
