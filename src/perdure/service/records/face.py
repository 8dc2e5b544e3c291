"""The record face of one engine: messages in, messages out. What a write has to pass is the subclass's: `verified`, or none in `relay`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import msgspec

from perdure.backends import spi
from perdure.backends.spi import Backend, Hear, Notifying, Versioned
from perdure.codec import out_of_line
from perdure.engine.read.bodies import Need, everything, operations
from perdure.errors import Error, Invalid
from perdure.model.ids import SessionKey
from perdure.service.hooks import Credential
from perdure.service.records.notices import NoticeHub
from perdure.wire import BATCH_ATTEMPTS_MAX, BODY_BYTES_MAX, WIRE_VERSION
from perdure.wire import records as wire

ENVELOPE_BYTES = 64 << 10
"""What a request may have besides one record."""
BODIES_BYTES = 4 << 20
"""About how many bytes of bodies that lie elsewhere go in one answer."""
_MISMATCHED = "An answer of the engine has no place in the record face."


class Face(ABC):
    """Answers the messages of `wire.records`, but for what a route has to do with HTTP."""

    def __init__(self, backend: Backend, body_max: int = BODY_BYTES_MAX) -> None:
        """`body_max`: the largest request, in bytes."""
        self.backend, self._body_max = backend, body_max
        self.hub = NoticeHub(self._listen)

    async def _listen(self, hear: Hear) -> None:
        if self.backend.capabilities.notification and isinstance(self.backend, Notifying):
            await self.backend.listen(hear)

    @property
    def record_bytes_max(self) -> int:
        """Largest record that is taken."""
        return min(self.backend.capabilities.record_bytes_max, self._body_max - ENVELOPE_BYTES)

    def check_read(self, caller: Credential | None, session: SessionKey) -> None:
        """Raise `Error` unless this caller may read the session."""
        self.check_tenant(caller, session.tenant)

    @abstractmethod
    def check_tenant(self, caller: Credential | None, tenant: str | None) -> None:
        """Raise `Error` unless this caller may read and list the sessions of the tenant; `None`: of all."""

    def sees(self, caller: Credential | None, session: SessionKey) -> bool:  # noqa: ARG002 - a subclass goes by it
        """Whether the caller may see this session's commits."""
        return True

    def about(self, caller: Credential | None) -> wire.About:
        """See `wire.records.About`."""
        engine = self.backend.capabilities
        capabilities = msgspec.structs.replace(engine, record_bytes_max=self.record_bytes_max, atomic_batch=False, shared=True)
        schema = self.backend.schema if isinstance(self.backend, Versioned) else 0
        return wire.About(
            wire=(WIRE_VERSION,),
            store_id=self.backend.store_id,
            schema=schema,
            capabilities=msgspec.to_builtins(capabilities),
            tenant=None if caller is None else caller.tenant,
        )

    @abstractmethod
    async def append(self, caller: Credential | None, asked: wire.Append) -> wire.Appended:
        """Try these attempts. Raises only what is true of all."""

    async def heads(self, caller: Credential | None, asked: wire.Heads) -> wire.HeadsFound:
        """See `spi.Backend.heads`."""
        if len(asked.sessions) > wire.HEADS_MAX:
            raise Invalid(f"One request takes at most {wire.HEADS_MAX:,} sessions, not {len(asked.sessions):,}.")
        for session in asked.sessions:
            self.check_read(caller, session)
        return wire.HeadsFound(tuple(await self.backend.heads(asked.sessions) if asked.sessions else ()))

    async def load(self, caller: Credential | None, asked: wire.Load) -> wire.Loaded:
        """See `spi.Backend.load`."""
        self.check_read(caller, asked.session)
        loaded = await self._load(asked.session, asked.at)
        if loaded is None:
            return wire.Loaded()
        records = await self._whole(asked.session, loaded.records, operations)
        return wire.Loaded(_row(loaded.row), loaded.snapshot, tuple(records))

    async def read(self, caller: Credential | None, asked: wire.Read) -> wire.RecordsFound:
        """See `spi.Backend.read`."""
        self.check_read(caller, asked.session)
        limit = _limit(asked.limit)
        read = self._held if asked.held else self._read
        records = await read(asked.session, asked.after, asked.before, limit, reverse=asked.reverse)
        return wire.RecordsFound(tuple(await self._whole(asked.session, _fitting(records))))

    async def find_key(self, caller: Credential | None, asked: wire.FindKey) -> wire.KeyFound:
        """See `spi.Backend.find_key`."""
        self.check_read(caller, asked.session)
        known = await self.backend.find_key(asked.session, asked.key)
        return wire.KeyFound(None if known is None else wire.KeyApplied(known.version, known.request, known.head))

    async def scan(self, caller: Credential | None, asked: wire.Scan) -> wire.RowsFound:
        """See `spi.Backend.scan`."""
        self.check_tenant(caller, asked.tenant)
        query = spi.Query(asked.tenant, asked.prefix, asked.tags, asked.status, asked.order, asked.due_before)
        page = await self.backend.scan(query, cursor=asked.cursor, limit=_limit(asked.limit))
        return wire.RowsFound(tuple(map(_row, page.items)), page.cursor)

    async def feed(self, caller: Credential | None, asked: wire.Feed) -> wire.ChangesFound:
        """See `spi.Backend.feed`: what others wrote is left out."""
        limit = _limit(asked.limit)
        page = await self.backend.feed(asked.cursor, limit)
        while len(page.items) > 1 and len(_fitting([change.record for change in page.items])) < len(page.items):
            limit = max(1, min(limit, len(page.items)) // 4)
            page = await self.backend.feed(asked.cursor, limit)
        changes = []
        for change in page.items:
            if self.sees(caller, change.session):
                (record,) = await self._whole(change.session, (change.record,), everything)
                changes.append(wire.Change(change.session, record))
        return wire.ChangesFound(tuple(changes), page.cursor, more=bool(page.items))

    def notices(self, caller: Credential | None, asked: wire.Notices, heartbeat: float) -> AsyncGenerator[wire.Moved, None]:
        """Moved of what was asked for, as it comes; after `heartbeat` seconds without any, a message that says nothing."""
        for session in asked.sessions or ():
            self.check_read(caller, session)
        for tenant in asked.tenants:
            self.check_tenant(caller, tenant)
        if max(len(asked.sessions or ()), len(asked.fresh)) > wire.WATCHED_MAX:
            raise Invalid(f"One client watches at most {wire.WATCHED_MAX:,} sessions by name.")
        if not {*asked.fresh} <= {*(asked.sessions or ())}:
            raise Invalid("Of a session that is not watched nothing is said.")
        sessions, tenants = (None if asked.sessions is None else frozenset(asked.sessions)), frozenset(asked.tenants)

        def wanted(session: SessionKey) -> bool:
            return (sessions is None or session in sessions or session.tenant in tenants) and self.sees(caller, session)

        return self.hub.notices(wanted, heartbeat, lambda: self._versions(asked.fresh))

    async def _versions(self, sessions: Sequence[SessionKey]) -> wire.Moved:
        """How far these sessions are."""
        found: list[tuple[SessionKey, int]] = []
        for start in range(0, len(sessions), wire.HEADS_MAX):
            part = sessions[start : start + wire.HEADS_MAX]
            heads = await self.backend.heads(part)
            found += [(session, head.version) for session, head in zip(part, heads, strict=True) if head is not None]
        return wire.Moved(tuple(found))

    async def _load(self, session: SessionKey, at: int | None) -> spi.Loaded | None:
        return await self.backend.load(session, at)

    async def _held(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> Sequence[spi.Record]:
        """What the engine itself holds."""
        return await self.backend.read(session, after=after, before=before, limit=limit, reverse=reverse)

    async def _read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> Sequence[spi.Record]:
        return await self.backend.read(session, after=after, before=before, limit=limit, reverse=reverse)

    async def _whole(
        self,
        session: SessionKey,  # noqa: ARG002 - as above
        records: Sequence[spi.Record],
        need: Need = everything,  # noqa: ARG002 - as above
    ) -> Sequence[spi.Record]:
        """The records with their bodies, where those lie elsewhere and are needed."""
        return records


Answering = Callable[[Face, Credential | None, Any], Awaitable[wire.Message]]
MESSAGES: dict[str, tuple[type[wire.Message], Answering]] = {
    wire.APPEND: (wire.Append, lambda face, caller, asked: face.append(caller, asked)),
    wire.HEADS: (wire.Heads, lambda face, caller, asked: face.heads(caller, asked)),
    wire.LOAD: (wire.Load, lambda face, caller, asked: face.load(caller, asked)),
    wire.READ: (wire.Read, lambda face, caller, asked: face.read(caller, asked)),
    wire.FIND_KEY: (wire.FindKey, lambda face, caller, asked: face.find_key(caller, asked)),
    wire.SCAN: (wire.Scan, lambda face, caller, asked: face.scan(caller, asked)),
    wire.FEED: (wire.Feed, lambda face, caller, asked: face.feed(caller, asked)),
}
"""What is posted to which path, and what answers it. `notices` answers with a stream."""


def check_batch(asked: wire.Append) -> None:
    """Raise `Invalid` unless it has a fair number of attempts, each of another session."""
    count = len(asked.attempts)
    if not 1 <= count <= BATCH_ATTEMPTS_MAX:
        raise Invalid(f"One request takes 1 to {BATCH_ATTEMPTS_MAX} attempts, not {count:,}.")
    if len({attempt.session for attempt in asked.attempts}) < count:
        raise Invalid("One request has at most one attempt for each session.")


def entry_of(outcome: spi.Outcome | BaseException) -> wire.Answer:
    """What the engine made of an attempt, as an entry of the answer."""
    match outcome:
        case spi.Appended():
            return wire.Stored(int(outcome.durability))
        case spi.Refused():
            return wire.Mismatch(outcome.head)
        case spi.Known():
            return wire.KeyApplied(outcome.version, outcome.request, outcome.head)
        case Error():
            return wire.refusal(outcome)
        case BaseException():
            raise outcome
    raise TypeError(_MISMATCHED)


def _fitting(records: Sequence[spi.Record]) -> Sequence[spi.Record]:
    """As many of these, at least one, as fit in an answer with the bodies that lie elsewhere."""
    size = 0
    for number, record in enumerate(records):
        if out_of_line.is_reference(record.body):
            size += out_of_line.unwrap_reference(record.body).size
            if number and size > BODIES_BYTES:
                return records[:number]
    return records


def _row(row: spi.Row) -> wire.Row:
    return wire.Row(row.session, row.head, row.tags, row.created_at, row.due_at, row.control, row.size_bytes)


def _limit(limit: int) -> int:
    if limit < 1:
        raise Invalid(f"A page has at least one item, not {limit}.")
    return min(limit, wire.PAGE_MAX)
