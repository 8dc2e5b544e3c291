"""`verify`: every link of a session's chain, and every snapshot against the fold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from perdure.backends.spi import Head, Proving, Row, Snapshot, served
from perdure.codec.codec import Codec
from perdure.codec.records import state_digest
from perdure.engine.calls import nodes
from perdure.engine.context import Context
from perdure.engine.core import Core
from perdure.engine.read.chains import FORKED, Chains
from perdure.engine.read.folding import apply_events, check_standing, configured, event_of
from perdure.engine.views import Verified
from perdure.errors import Corrupt, NotFound
from perdure.model.anchor import anchor_of
from perdure.model.commit import GENESIS, Commit, DerivedStatus, Kind, Status, derive_status
from perdure.model.control import decode_control
from perdure.model.ids import SessionKey
from perdure.model.state import Fold
from perdure.model.values import same


async def verify(context: Context, session: str) -> Verified:
    """See `Store.verify`."""
    core, target = context.opened(), context.key(session)
    with core.telemetry.span("verify", *target):
        return await _prove(core, target)


class _Start(NamedTuple):
    """The commit that a proof goes on from: what came before it is no more."""

    version: int
    hash: bytes
    at: int = 0
    lost: bool = False
    """Whether its state can be known by a snapshot only."""


async def _start(core: Core, session: SessionKey) -> _Start:
    """Where the proof of a session begins: before the first commit of the chain that it goes on from, unless a purge or a drop came."""
    reader = core.reader
    first = await reader.own_first(session)
    while first is not None and first.kind is Kind.configure and first.events[0].type == FORKED:
        parent = SessionKey(session.tenant, first.events[0].data["session"])
        dropped = await core.chains.dropped_below(parent)
        if dropped is not None and dropped.version >= first.version - 1:
            return _Start(first.version - 1, first.prev, lost=True)  # It has a snapshot of its own.
        session, first = parent, await reader.own_first(parent)
    if first is not None and first.kind is Kind.tombstone:  # What a purge left: the chain goes on from it.
        return _Start(first.version, first.hash, first.at)
    if first is not None and first.version > 1 and await core.chains.dropped_below(session) is not None:
        return _Start(first.version - 1, first.prev, lost=True)
    return _Start(0, GENESIS)


class _Folding:
    """The state and the tags along a chain. While its start is lost, there is no state until a snapshot gives it."""

    def __init__(self, codec: Codec, session: SessionKey, snapshots: Mapping[int, Snapshot], digests: Mapping[int, str]) -> None:
        self._codec, self._session, self._snapshots, self._digests = codec, session, snapshots, digests
        self.fold: Fold | None = Fold({})
        self.tags: dict[str, str] = {}

    def apply(self, commit: Commit) -> None:
        """Raises `Corrupt` if the commit does not fit."""
        if commit.kind is Kind.data:
            if self.fold is not None:
                apply_events(self._session, self.fold, commit)
        elif commit.kind is Kind.tombstone:
            self.fold, self.tags = Fold({}), {}
        elif commit.kind is Kind.configure:
            fork = any(event.type == FORKED for event in commit.events)  # It has none of its parent's tags.
            self.tags = configured(commit.events).get("tags", {} if fork else self.tags)
        elif commit.kind is Kind.anchor and commit.events and isinstance(commit.events[0].data, dict):
            self.tags = commit.events[0].data.get("tags", self.tags)

    def compare(self, version: int, hash: bytes) -> None:
        """Compare the state with what snapshots and anchors say of this version. Raises `Corrupt`."""
        found = self._snapshots.get(version)
        if found is not None:
            state = self._codec.decode_snapshot(self._session, found)
            if found.hash != hash or (self.fold is not None and not same(state, self.fold.state)):
                raise Corrupt(f"The snapshot of session {self._session.id!r} at version {version} is not what its commits give.")
            self.fold = self.fold or Fold(state)
        digest = self._digests.get(version)
        if digest is not None and self.fold is not None and state_digest(self.fold.state).hex() != digest:
            raise Corrupt(f"The state of session {self._session.id!r} at version {version} is not the one that its anchor names.")


async def _prove(core: Core, session: SessionKey) -> Verified:
    """Read the whole chain and fold it. Raises `Corrupt` at the first thing that is not as it was written, `NotFound`."""
    backend, reader = core.backend, core.reader
    loaded = await core.chains.load(session)
    if loaded is None:
        raise NotFound(f"There is no session {session.id!r}.", session=session.id)
    head = loaded.row.head
    snapshots = await _snapshots(core.chains, session, loaded.snapshot)
    folding = _Folding(core.codec, session, snapshots, await _check_archive(core, session, loaded.row))
    count, (version, prev, at, lost) = 0, await _start(core, session)
    if lost:
        folding.fold = None
        folding.compare(version, prev)
    async for commit in reader.commits(session, after=version, before=head.version + 1):
        if commit.version != version + 1 or commit.prev != prev or commit.at <= at:
            raise Corrupt(f"Version {commit.version} of session {session.id!r} does not follow version {version}.", session=session.id)
        count, version, prev, at = count + 1, commit.version, commit.hash, commit.at
        folding.apply(commit)
        folding.compare(version, prev)
    if isinstance(backend, Proving):
        await backend.copies(session)
    last = await _check_columns(core, session, head.version)
    if (version, prev) != (head.version, head.hash):
        raise Corrupt(f"Session {session.id!r} has version {version} where its head says {head.version}.", session=session.id)
    if last is not None and head != last:
        raise Corrupt(f"The index row of session {session.id!r} has another status or place than its commits give.", session=session.id)
    if dict(loaded.row.tags) != folding.tags:
        raise Corrupt(f"The index row of session {session.id!r} has other tags than its commits give.", session=session.id)
    own = await reader.own_first(session)
    whole = own is not None and (own.version == 1 or own.kind is Kind.configure)
    if own is not None and (loaded.row.created_at > own.at or (whole and loaded.row.created_at != own.at)):
        raise Corrupt(f"The index row of session {session.id!r} says another time of its first commit.", session=session.id)
    return Verified(session.id, version, prev, count, len(snapshots))


async def _snapshots(chains: Chains, session: SessionKey, snapshot: Snapshot | None) -> Mapping[int, Snapshot]:
    """All snapshots of a session, the engine's and those of segments, from the newest one on."""
    found: dict[int, Snapshot] = {}
    while snapshot is not None:
        found[snapshot.version] = snapshot
        earlier = await chains.load(session, snapshot.version - 1) if snapshot.version > 1 else None
        snapshot = earlier.snapshot if earlier is not None else None
    return found


async def _check_archive(core: Core, session: SessionKey, row: Row) -> Mapping[int, str]:
    """Compare each segment with its SHA-256; the digests of states that anchors name, by version. Raises `Corrupt`, `Unsupported`.

    A client of a service has no segments, so a node proves the session too.
    """
    service = served(core.backend)
    if service is not None:
        if service.archives:
            await nodes.prove(service, session)
        return {}
    anchors = await core.chains.anchors(session, anchor_of(decode_control(row.control)))
    for anchor in anchors:
        if not anchor.dropped:
            await core.segments.check(await core.segments.open(session, anchor))
    return {anchor.version: anchor.digest for anchor in anchors}


async def _check_columns(core: Core, session: SessionKey, newest: int) -> Head | None:
    """The columns that no hash covers, because they follow from the commits before: a head's standing and its last data version.
    The head that the record of the version `newest` made, which the index row repeats."""
    stand: DerivedStatus | None = None
    last: Head | None = None
    version = 0
    while records := await core.chains.read(session, after=version):
        for record in records:
            head, first, version = record.head, not version, record.head.version
            if version == newest:
                last = head
            if first and not record.is_stub and core.chains.is_start(session, record):
                stand = int(Status.active), version - 1
            event = event_of(core.codec.open_record(session, record, partial=True)) if record.kind == Kind.anchor else ""
            stand = check_standing(session, head, derive_status(record.kind, version, stand, event))
    return last
