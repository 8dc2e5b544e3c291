"""From commits to states: load a snapshot and its tail, check the chain, fold; and read through a fork to its parent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from perdure.backends.spi import Head, Loaded, Record
from perdure.codec.codec import Codec
from perdure.codec.envelope import payload_bytes
from perdure.engine.read.bodies import Bodies, operations
from perdure.engine.read.cache import NEVER, Cache, CachedState
from perdure.engine.read.chains import PAGE, Chains
from perdure.engine.read.commits import CommitReader
from perdure.engine.read.folding import apply_events, check_standing, configured, event_of
from perdure.engine.read.loads import Loads, StateSource
from perdure.errors import Corrupt, NotFound, Rewound, Truncated
from perdure.model.commit import GENESIS, DerivedStatus, Kind, Status, derive_status
from perdure.model.control import decode_control
from perdure.model.ids import SessionKey
from perdure.model.lease import life_said
from perdure.model.lifecycle import with_look_of
from perdure.model.state import Fold
from perdure.model.values import ROOM


class Reader(CommitReader):
    """Reads commits and states of sessions of any tenant. States it returns are shared and read-only."""

    def __init__(self, backend: Chains, codec: Codec, cache: Cache, bodies: Bodies) -> None:
        super().__init__(backend, codec, bodies)
        self._cache = cache
        self._loads = Loads()
        self._shared: StateSource | None = None
        self._doubtful: set[SessionKey] = set()

    def share(self, shared: StateSource) -> None:
        """Look for states of sessions that are only read in a shared cache first, from now on."""
        self._shared = shared

    def doubt(self, session: SessionKey) -> None:
        """A write of this session was cancelled while it was in progress: the next read waits for it to end."""
        self._doubtful.add(session)

    async def settled(self, session: SessionKey) -> None:
        """Wait for cancelled writes of the session. Raises `Unknown` when one has not ended within the engine's time-out."""
        if not self._doubtful or session not in self._doubtful:
            return
        self._doubtful.discard(session)
        try:
            await self._backend.settled(session)
        except BaseException:
            self._doubtful.add(session)
            raise

    async def cached(self, session: SessionKey, *, head: Head | None = None, head_at: float = NEVER) -> CachedState | None:
        """The newest state known, from memory if it is there; at least as new as `head`, when given, which was the head at the moment
        `head_at` of the cache's clock. `None`: no such session. Fit to be the base of an edit."""
        cached = await self._in_memory(session, self._cache.base)
        if cached is not None and head is not None and cached.head.hash != head.hash:
            cached = await self._advance(session, cached, head, head_at)
        if cached is not None:
            self._cache.hit()
            return cached
        return (await self._load(session, keep=True))[0]

    async def _in_memory(self, session: SessionKey, get: Callable[[SessionKey], CachedState | None]) -> CachedState | None:
        """What is in memory, or will be when another caller's load has ended. It may be older than this call."""
        known = get(session)
        if known is None and await self._loads.wait(session):
            known = get(session)
        return known

    async def read_head(self, session: SessionKey) -> CachedState | None:
        """The newest state: the head is read from the engine, and what is missing is loaded. Fit to be the base of an edit."""
        if self._doubtful:
            await self.settled(session)
        known = await self._in_memory(session, self._cache.base)
        return (await self._load(session, keep=True))[0] if known is None else await self._newest(session, known)

    async def _newest(self, session: SessionKey, known: CachedState) -> CachedState | None:
        head_at = self._cache.now()
        head = (await self._backend.heads((session,)))[0]
        if head is None:
            self._cache.drop(session)
            self._cache.put_absent(session, head_at)
            return None
        if head.hash != known.head.hash:
            return await self.cached(session, head=head, head_at=head_at)
        self._cache.confirm(session, head.hash, head_at)
        self._cache.hit()
        return known

    async def load_uncached(self, session: SessionKey) -> tuple[CachedState | None, bool]:
        """As `read_head`, for a caller that only reads; and whether the state is the caller's own, because it is not cached."""
        if self._doubtful:
            await self.settled(session)
        known = await self._in_memory(session, self._cache.get)
        if known is not None:
            return await self._newest(session, known), False
        return await self._load(session, keep=self._cache.second_hit(session), shared=self._shared)

    async def eventual(self, session: SessionKey, max_staleness: float) -> CachedState | None:
        """For a caller that only reads: the state in memory if it is fresh, else the newest one, which is kept in memory."""
        known = self._cache.fresh(session, max_staleness)
        if known is not None:
            self._cache.hit()
            return known
        if self._cache.is_absent(session, max_staleness):
            return None
        if self._doubtful:
            await self.settled(session)
        known = await self._in_memory(session, self._cache.get)
        if known is None:
            return (await self._load(session, keep=True, shared=self._shared))[0]
        return self._cache.fresh(session, max_staleness) or await self._newest(session, known)

    async def _load(self, session: SessionKey, *, keep: bool, shared: StateSource | None = None) -> tuple[CachedState | None, bool]:
        """Load a session that is not in memory, and whether the state is the caller's own: it is cached if it is to be kept, or if others
        wait for it. For a caller that only reads, `shared` may have it."""
        self._cache.miss()
        load = self._loads.begin(session)
        try:
            found = None if shared is None else await shared.load(session)
            if found is not None:
                self._cache.put(session, *found)
                return found[0], False
            head_at = self._cache.now()
            loaded = await self._backend.load(session)
            if loaded is None:
                self._cache.put_absent(session, head_at)
                return None, True
            cached = await self._state_of(session, loaded)
            offered = shared is not None and shared.offer(session, cached)
            if keep or offered or load.waiting:
                self._cache.put(session, cached, head_at)
                return cached, False
            self._cache.saw(session, cached.head.version)
            return cached, True
        finally:
            self._loads.end(session, load)

    def saw(self, session: SessionKey, version: int) -> None:
        """A version was acknowledged or shown to a caller: no eventual read may answer with an older one."""
        self._cache.saw(session, version)

    async def at(self, session: SessionKey, version: int) -> tuple[CachedState, bytes]:
        """The state as of `version` and the hash of that commit. Raises `NotFound`, `Truncated`."""
        cached = await self._state_of(*await self._load_at(session, version))
        return cached, cached.head.hash

    async def _load_at(self, session: SessionKey, version: int) -> tuple[SessionKey, Loaded]:
        """What an engine holds up to `version`, and of which chain: a fork's older versions are its parent's."""
        while True:
            loaded = await self._backend.load(session, version)
            if loaded is None:
                raise NotFound(f"There is no session {session.id!r}.", session=session.id)
            if version > loaded.row.head.version:
                raise NotFound(
                    f"Session {session.id!r} has no version {version} yet; its head is {loaded.row.head.version}.", session=session.id
                )
            if loaded.records or loaded.snapshot is not None:
                return session, loaded
            session, _ = await self._base(session, await self._first(session), version)

    async def _advance(self, session: SessionKey, cached: CachedState, head: Head, head_at: float) -> CachedState | None:
        """Fold what came after `cached`; `None` if it is no longer on the chain (the caller loads it again)."""
        records: list[Record] = []
        after = cached.head.version
        if head.version <= after:
            self._cache.drop(session)
            return None
        while page := await self._backend.read(session, after=after, limit=PAGE):
            records += page
            after = page[-1].head.version
            if after >= head.version:
                break
        if not records or records[0].is_stub or self._codec.prev(records[0]) != cached.head.hash:  # A stub: it was purged meanwhile.
            self._cache.drop(session)
            return None
        bodies = await self._bodies.fetch(session, records, operations)
        with ROOM:
            advanced = self._fold(session, cached, cached.head.hash, (cached.head.status, cached.head.data), records, bodies)
        self._cache.put(session, advanced, head_at)
        return advanced

    async def _state_of(self, session: SessionKey, loaded: Loaded) -> CachedState:
        # A fork goes on from its parent, which may be a fork: what was loaded is folded from the oldest chain on.
        chains = [(session, loaded)]
        hashes: list[bytes] = []
        while loaded.snapshot is None and loaded.records and loaded.records[0].head.version > 1 and not loaded.records[0].is_stub:
            try:
                parent, prev = await self._base(session, loaded.records[0], 1)
            except Truncated:
                since = _since_deleted(loaded)
                if since is None:
                    raise
                chains[-1] = session, since
                break
            hashes.append(prev)
            session, loaded = await self._load_at(parent, loaded.records[0].head.version - 1)
            chains.append((session, loaded))
        session, loaded = chains.pop()
        cached = self._folded(session, loaded, None, await self._bodies.fetch(session, loaded.records, operations))
        while chains:
            session, loaded = chains.pop()
            if cached.head.hash != hashes.pop():
                raise Rewound(f"Session {session.id!r} was forked from a commit that its parent no longer holds.")
            cached = self._folded(session, loaded, cached, await self._bodies.fetch(session, loaded.records, operations))
        return cached

    def _folded(self, session: SessionKey, loaded: Loaded, base: CachedState | None, bodies: Mapping[int, bytes]) -> CachedState:
        """What was loaded of one chain, which goes on from `base` if it is a fork's."""
        row, snapshot, records = loaded.row, loaded.snapshot, loaded.records
        start = CachedState(row.head, {}, 0, 0, row.tags, row.created_at)
        prev: bytes | None = GENESIS
        stand: DerivedStatus | None = None
        if base is not None:
            log_bytes, prev = base.log_bytes + base.snapshot_bytes, base.head.hash
            start = msgspec.structs.replace(start, state=base.state, log_bytes=log_bytes, state_bytes=base.state_bytes)
        elif snapshot is not None:
            state, size = self._codec.decode_snapshot(session, snapshot), payload_bytes(snapshot.body)
            start = msgspec.structs.replace(start, state=state, snapshot_bytes=len(snapshot.body), state_bytes=size)
            prev = snapshot.hash
            if not records and snapshot.version == row.head.version and snapshot.hash != row.head.hash:
                raise Rewound(f"The snapshot of session {session.id!r} belongs to a commit that the chain no longer holds.")
        elif records and (records[0].is_stub or records[0].kind == Kind.tombstone):
            prev = None
        if snapshot is None and records and prev is not None:
            stand = int(Status.active), records[0].head.version - 1
        if records:
            if records[-1].head.version == row.head.version and records[-1].head != row.head:
                raise Corrupt(f"The index row of session {session.id!r} is not that of its newest commit.", session=session.id)
            row = msgspec.structs.replace(row, head=records[-1].head)
        elif snapshot is not None and snapshot.version != row.head.version:
            head = row.head
            row = msgspec.structs.replace(row, head=Head(snapshot.version, snapshot.hash, head.at, head.epoch, head.status, head.data))
        start = msgspec.structs.replace(start, head=row.head, size_bytes=row.size_bytes, control=decode_control(row.control))
        with ROOM:
            folded = self._fold(session, start, prev, stand, records, bodies)
        if folded.head == loaded.row.head:
            folded = msgspec.structs.replace(folded, control=with_look_of(start.control, folded.control))
        return folded

    def _fold(
        self,
        session: SessionKey,
        start: CachedState,
        prev: bytes | None,
        stand: DerivedStatus | None,
        records: Sequence[Record],
        bodies: Mapping[int, bytes],
    ) -> CachedState:
        """What `start` becomes with these records, which follow the commit whose hash is `prev`."""
        tags, log_bytes, state_bytes, control = start.tags, start.log_bytes, start.state_bytes, start.control
        began: int | None = None
        fold = Fold(start.state)
        for record in records:
            body = bodies.get(record.head.version, b"")
            commit = self._codec.open_record(session, record, prev, body=body or None, partial=True)
            prev = commit.hash
            log_bytes += record.stored_bytes + len(body)
            stand = derive_status(record.kind, record.head.version, stand, event_of(commit))
            stand = check_standing(session, record.head, stand)
            if commit.kind is Kind.data:
                if apply_events(session, fold, commit):
                    state_bytes += payload_bytes(body or record.body)
            else:
                control = control.after_commit(commit)
                said = life_said(commit)
                began = began if said is None else said
                if commit.kind is Kind.tombstone:
                    fold, tags, state_bytes = Fold({}), {}, 0
                elif commit.kind is Kind.configure:
                    tags = configured(commit.events).get("tags", tags)
        head = records[-1].head if records else start.head
        self.note_start(session, head, control, began)
        return msgspec.structs.replace(
            start, head=head, state=fold.state, log_bytes=log_bytes, tags=tags, state_bytes=state_bytes, control=control
        )


def _since_deleted(loaded: Loaded) -> Loaded | None:
    """What was loaded, from the last tombstone on: nothing before it counts. `None` where there is none."""
    ends = [number for number, record in enumerate(loaded.records) if record.kind == Kind.tombstone]
    return msgspec.structs.replace(loaded, records=loaded.records[ends[-1] :]) if ends else None
