"""The driver: an engine whose client is another Perdure. Attempts go to a node in batches, and the node's engine decides."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Hashable, Sequence
from itertools import chain

import msgspec

from perdure.backends import spi
from perdure.backends.http.calls import Calls, Resource, known_error
from perdure.backends.http.discovery import Discovery
from perdure.backends.http.notices import Interest, notices
from perdure.backends.http.pool import Member
from perdure.backends.remote import Answer, Attempt, HeadMismatch, Notice, Stored, gather_all
from perdure.backends.spi import Capabilities, Checkup, Durability, Head, Index, Known, Progress, Query, Record, Row, Snapshot
from perdure.errors import Error, Unauthorized, Unavailable, Unknown, Unsupported
from perdure.lru import LruMap
from perdure.model.ids import SessionKey
from perdure.wire import BATCH_ATTEMPTS_MAX, BATCH_BYTES_MAX, LONG_SECONDS
from perdure.wire import records as wire
from perdure.wire.paths import segment

ATTEMPT_BYTES = 256
"""About what an attempt weighs besides its bodies."""
LOST_MAX = 4_096
"""Sessions of which it is remembered which node lost an attempt."""
_Way = tuple[Member | None, str | None]
"""The node that is asked first, and the URL of one that is passed by."""
_AT_THE_NODE = "A client of a service does not {}: its nodes do it."
_OFFLINE = (
    "A store is upgraded while nothing uses it, and the nodes of this service do: stop the nodes, then run `perdure upgrade` on the URL of"
    " the engine that they serve."
)


class HttpDriver:
    """A `Driver` on the nodes of one service."""

    lanes = 4
    batch_max = BATCH_ATTEMPTS_MAX

    def __init__(self, calls: Calls, discovery: Discovery | None = None) -> None:
        """`discovery`: what keeps the nodes of `calls` as they are listed; `None`: they stay as they are."""
        self.calls, self._discovery = calls, discovery
        self._interest = Interest()
        self._lost = LruMap[SessionKey, str](LOST_MAX)
        """The node that lost the last attempt of a session."""
        self.store_id = ""
        self.schema = 0

    async def start(self) -> None:
        """Ask a node what engine it serves. Raises `Unavailable`, `Unauthorized`, `Unsupported`."""
        if self._discovery is not None:
            await self._discovery.start()
        about = await self.calls.about()
        self.about = about
        self.store_id, self.schema = about.store_id, about.schema
        try:
            self.capabilities = msgspec.convert(about.capabilities, Capabilities)
        except msgspec.ValidationError as error:
            raise Unsupported(f"The engine that these nodes serve is one that this client does not know: {error}.") from error
        proves = self.capabilities.read_proves
        self.durability_read = self.capabilities.durability if proves is None else proves

    async def write(self, attempts: Sequence[Attempt]) -> Sequence[Answer]:
        """See `remote.Driver.write`. Each session's attempt goes to the node where it is at home, or past the one that lost the last: one
        request for each of these nodes, and for each `BATCH_BYTES_MAX`. Several nodes are the exception: `server_of` has changed."""
        groups: dict[_Way, list[int]] = {}
        for number, attempt in enumerate(attempts):
            groups.setdefault(self._way(attempt.session), []).append(number)
        if len(groups) == 1:
            return await self._write(attempts, next(iter(groups)))
        parts = await gather_all(*[self._write([attempts[number] for number in numbers], way) for way, numbers in groups.items()])
        answers = dict(zip(chain.from_iterable(groups.values()), chain.from_iterable(parts), strict=True))
        return [answers[number] for number in range(len(attempts))]

    def server_of(self, session: SessionKey) -> Hashable:
        """See `spi.Spread.server_of`."""
        return self._way(session)

    def _way(self, session: SessionKey) -> _Way:
        lost = self._lost.get(session)
        return (self.calls.home(session, writes=True), None) if lost is None else (None, lost)

    async def _write(self, attempts: Sequence[Attempt], way: _Way) -> list[Answer]:
        answers: list[Answer] = []
        while len(answers) < len(attempts):
            batch: list[wire.Attempt] = []
            size = 0
            for attempt in attempts[len(answers) :]:
                weight = ATTEMPT_BYTES + sum(len(record.body) + len(record.meta) for record in attempt.records)
                if batch and size + weight > BATCH_BYTES_MAX:
                    break
                batch.append(_message(attempt))
                size += weight
            try:
                found = await self._send(batch, way)
            except Error as error:
                found = [error] * len(batch)
            for sent, answer in zip(batch, found, strict=True):
                self._note(sent.session, answer, way)
            answers += found
        return answers

    def _note(self, session: SessionKey, answer: Answer, way: _Way) -> None:
        """Remember which node lost an attempt, until the session has an answer."""
        if isinstance(answer, Unknown):
            node = answer.facts.get("node") or (way[0] and way[0].url)
            if node is not None:
                self._lost.put(session, str(node))
        elif session in self._lost:
            self._lost.pop(session)

    async def _send(self, batch: Sequence[wire.Attempt], way: _Way) -> list[Answer]:
        home, avoid = way
        answered = await self.calls.ask(wire.APPEND, wire.Append(tuple(batch)), wire.Appended, home=home, avoid=avoid, writes=True)
        if len(answered.answers) != len(batch):
            raise Unknown(f"A node gave {len(answered.answers)} answers to {len(batch)} attempts.")
        return [_answer(entry) for entry in answered.answers]

    async def heads(self, sessions: Sequence[SessionKey]) -> Sequence[Head | None]:
        """See `spi.Backend.heads`."""
        found: list[Head | None] = []
        for start in range(0, len(sessions), wire.HEADS_MAX):
            part = tuple(sessions[start : start + wire.HEADS_MAX])
            heads = (await self.calls.ask(wire.HEADS, wire.Heads(part), wire.HeadsFound)).heads
            if len(heads) != len(part):
                raise Unavailable(f"A node gave {len(heads)} heads for {len(part)} sessions.")
            found += heads
        return found

    async def load(self, session: SessionKey, at: int | None) -> spi.Loaded | None:
        """See `spi.Backend.load`."""
        found = await self.calls.ask(wire.LOAD, wire.Load(session, at), wire.Loaded, home=self.calls.home(session))
        return None if found.row is None else spi.Loaded(_row(found.row), found.snapshot, found.records)

    async def read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> Sequence[Record]:
        """See `spi.Backend.read`."""
        return (await self.calls.ask(wire.READ, wire.Read(session, after, before, limit, reverse), wire.RecordsFound)).records

    async def first_held(self, session: SessionKey) -> int | None:
        """See `spi.Served.first_held`."""
        records = (await self.calls.ask(wire.READ, wire.Read(session, limit=1, held=True), wire.RecordsFound)).records
        return records[0].head.version if records else None

    async def find_key(self, session: SessionKey, key: str) -> Known | None:
        """See `spi.Backend.find_key`."""
        known = (await self.calls.ask(wire.FIND_KEY, wire.FindKey(session, key), wire.KeyFound)).known
        return None if known is None else Known(known.version, known.request, known.head)

    async def scan(self, query: Query, cursor: str | None, limit: int) -> spi.Page[Row]:
        """See `spi.Backend.scan`."""
        asked = wire.Scan(query.tenant, query.prefix, query.tags, query.status, query.order, query.due_before, cursor, limit)
        found = await self.calls.ask(wire.SCAN, asked, wire.RowsFound)
        return spi.Page([_row(row) for row in found.rows], found.cursor)

    async def feed(self, cursor: str | None, limit: int) -> spi.Page[spi.Change]:
        """See `spi.Backend.feed`: the changes that the credentials reach."""
        while True:
            found = await self.calls.ask(wire.FEED, wire.Feed(cursor, limit), wire.ChangesFound)
            if found.changes or not found.more:
                return spi.Page([spi.Change(change.session, change.record) for change in found.changes], found.cursor)
            cursor = found.cursor

    def notices(self) -> AsyncGenerator[Notice, None]:
        """See `remote.NotificationSource`."""
        return notices(self.calls, self._interest)

    def attend(self, what: SessionKey | str, *, watched: bool) -> None:
        """See `spi.Attentive`."""
        self._interest.change(what, watched=watched)

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot, *, size_bytes: int | None = None) -> None:
        """Nothing: nodes make the snapshots."""

    async def change_index(self, row: Row, index: Index) -> bool:  # noqa: ARG002 - what it takes is the protocol's
        """See `spi.Indexed.change_index`. Raises `Unsupported`: nodes do a sweeper's rounds."""
        raise Unsupported(_AT_THE_NODE.format("change index rows"), advice="")

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:  # noqa: ARG002
        """See `spi.Indexed.truncate`. Raises `Unsupported`."""
        raise Unsupported(_AT_THE_NODE.format("remove records"), advice="")

    async def purge(self, session: SessionKey) -> None:
        """See `spi.Backend.purge`: the node's resource route decides and does it."""
        self.check_tenant(session.tenant)
        await self.calls.resource(Resource("POST", f"/v1/sessions/{segment(session.id)}/purge", seconds=LONG_SECONDS, repeatable=True))

    def check_tenant(self, tenant: str) -> None:
        """Raise `Unauthorized` for another tenant than the one whose sessions the credentials reach: no resource route takes one."""
        if self.about.tenant is not None and tenant != self.about.tenant:
            raise Unauthorized(f"These credentials reach sessions of the tenant {self.about.tenant!r}, not of {tenant!r}.")

    async def require_writer(self, version: int) -> None:  # noqa: ARG002 - as above
        """See `spi.Versioned.require_writer`. Raises `Unsupported`."""
        raise Unsupported(_OFFLINE, advice="")

    async def migrate(self, from_version: int, progress: Progress) -> None:  # noqa: ARG002 - as above
        """See `spi.Versioned.migrate`. Raises `Unsupported`."""
        raise Unsupported(_OFFLINE, advice="")

    async def checkup(self) -> Checkup:
        """See `remote.Driver.checkup`: what the node says of itself."""
        about = await self.calls.about()
        facts = {
            "server": "Perdure service",
            "wire": ", ".join(map(str, about.wire)),
            "schema": str(about.schema),
            "durability": Durability(self.capabilities.durability).name,
            "tenant": about.tenant or "any",
        }
        return Checkup(facts, [])

    async def close(self) -> None:
        """See `remote.Driver.close`."""
        if self._discovery is not None:
            await self._discovery.close()
        await self.calls.close()


def _message(attempt: Attempt) -> wire.Attempt:
    expected, cells = attempt.expected, attempt.index
    return wire.Attempt(
        attempt.session,
        None if expected is None else (expected.version, expected.hash),
        tuple(attempt.records),
        attempt.key,
        None if cells is None else wire.IndexCells(cells.tags, cells.due_at, cells.control, cells.size_bytes),
        int(attempt.durability),
    )


def _answer(entry: wire.Answer) -> Answer:
    match entry:
        case wire.Stored():
            return Stored(Durability(entry.durability))
        case wire.Mismatch():
            return HeadMismatch(entry.head, proven=True)
        case wire.KeyApplied():
            return Known(entry.version, entry.request, entry.head)
        case wire.Refusal():
            status = entry.problem.get("status")
            return known_error(wire.refused(entry), status if isinstance(status, int) else 0)


def _row(row: wire.Row) -> Row:
    return Row(row.session, row.head, row.tags, row.created_at, row.due_at, row.control, row.size_bytes)
