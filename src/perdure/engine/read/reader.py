"""From records to states: load a snapshot and its tail, check the chain, fold; and read through a fork to its parent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing

import msgspec

from perdure.backends.spi import Head, Loaded, Record
from perdure.codec.codec import Codec
from perdure.codec.envelope import payload_bytes
from perdure.engine.read.bodies import Bodies, Need, everything, nothing, operations
from perdure.engine.read.cache import NEVER, Cache, CachedState
from perdure.engine.read.chains import FORKED, PAGE, Chains
from perdure.engine.read.folding import apply_events, check_standing, configured, event_of
from perdure.engine.read.loads import Loads, StateSource
from perdure.errors import Corrupt, NotFound, Rewound, Truncated
from perdure.lru import LruMap
from perdure.model.commit import GENESIS, Commit, DerivedStatus, Kind, Status, derive_status
from perdure.model.control import Control, decode_control
from perdure.model.epoch import is_held, raised
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.model.lease import LeaseSection, holder, holder_said, life_of, life_said
from perdure.model.lifecycle import with_look_of
from perdure.model.state import Fold
from perdure.model.values import ROOM

INCARNATIONS_MAX = 4_096
"""Sessions with earlier lives of which it is remembered where the last one ended."""
TAIL_PAGE = 16
"""Records in the first read from the end, which is often the only one: each next read takes twice as many, up to `PAGE`."""


class Reader:
    """Reads sessions of any tenant. States it returns are shared and read-only."""

    def __init__(self, backend: Chains, codec: Codec, cache: Cache, bodies: Bodies) -> None:
        self._backend = backend
        self._codec = codec
        self._cache = cache
        self._loads = Loads()
        self._shared: StateSource | None = None
        self._bodies = bodies
        self._doubtful: set[SessionKey] = set()
        self._incarnations = LruMap[tuple[SessionKey, int], int](INCARNATIONS_MAX)

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

    async def incarnation_start(self, session: SessionKey, head: Head) -> int:
        """The version of the tombstone that the life of this head began after; 0 for a first life. A deleted head's is its own.

        A session that was never deleted and never leased costs nothing, and one whose state was read since its grant rose neither. Another
        one costs a bisection, once: the commit that raised the grant says it; where that has gone, the anchor below which it lay.
        """
        if head.status == Status.deleted:
            return head.version
        grant = raised(head.epoch, 0)
        if not grant:
            return 0
        known = self._incarnations.get((session, grant))
        if known is None:
            known = await self._search_start(session, head.version, grant)
            self._incarnations.put((session, grant), known)
        return known

    def note_start(self, session: SessionKey, head: Head, control: Control, began: int | None = None) -> None:
        """Remember the life of a head whose control cell, or whose last commits (`began`), say it."""
        began = life_of(control, head.epoch) if began is None else began
        if began is not None and head.epoch:
            self._incarnations.put((session, raised(head.epoch, 0)), began)

    async def _search_start(self, session: SessionKey, high: int, grant: int) -> int:
        """As `incarnation_start`, for a head of this grant at version `high`."""
        anchor = await self._backend.lowest_anchor(session)
        floor = 0 if anchor is None else anchor.version
        while grant:
            high = await self._raised_at(session, high, grant, floor)
            raising = await self._commit_or_none(session, high)
            if raising is not None and (began := life_said(raising)) is not None:
                return began
            if anchor is not None and high == floor + 1:  # No tombstone lies between the anchor's version and its commit.
                return anchor.life
            before = await self._commit_or_none(session, high - 1)
            grant, high = 0 if before is None else raised(before.epoch, 0), high - 1
        return 0

    async def _raised_at(self, session: SessionKey, high: int, grant: int, low: int = 0) -> int:
        """The version of the commit with which the grant of version `high` began, or the one after `low`, if that has it too."""
        while high - low > 1:
            middle = (low + high) // 2
            commit = await self._commit_or_none(session, middle)
            if commit is None or raised(commit.epoch, 0) < grant:
                low = middle
            else:
                high = middle
        return high

    async def holder(self, session: SessionKey, current: CachedState) -> LeaseSection | None:
        """Who holds the session at its head; `None`: nobody. The control cell says it; where an engine has lost a write of the cell, the
        take itself is looked for. Raises `Corrupt`."""
        epoch = current.head.epoch
        if not is_held(epoch):
            return None
        found = holder(current.control, epoch)
        if found is None:
            taken = await self._commit_or_none(session, await self._raised_at(session, current.head.version, raised(epoch, 0)))
            found = None if taken is None else holder_said(taken)
        if found is None:
            raise Corrupt(f"Session {session.id!r} is held, and nothing says by whom.", session=session.id)
        return found

    async def _commit_or_none(self, session: SessionKey, version: int) -> Commit | None:
        try:
            return await self.commit(session, version) if version else None
        except (NotFound, Truncated):
            return None

    async def commit(self, session: SessionKey, version: int) -> Commit | None:
        """One commit, through forks to their parents; `None` above the head. One whose body lies elsewhere comes without events.

        Raises `NotFound`, `Truncated`.
        """
        async with aclosing(self.commits(session, after=version - 1, before=version + 1, need=nothing)) as commits:
            async for commit in commits:
                return commit
        return None

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

    async def at_time(self, session: SessionKey, head: Head, limit: int, after: int = 0) -> int:
        """The last version above `after` whose time is not later than `limit` (ns), else `after`: time rises along a chain."""
        low, high = after, head.version
        while low < high:
            middle = (low + high + 1) // 2
            commit = await self.commit(session, middle)
            if commit is not None and commit.at <= limit:
                low = middle
            else:
                high = middle - 1
        return low

    async def commits(
        self,
        session: SessionKey,
        *,
        after: int = 0,
        before: int | None = None,
        newest_first: bool = False,
        need: Need = everything,
    ) -> AsyncGenerator[Commit, None]:
        """Commits with `after < version < before`, each checked against its neighbour, a page at a time, through forks.

        One whose body lies elsewhere and is not needed comes without events.
        """
        if newest_first:
            async for commit in self._backwards(session, after, before, need):
                yield commit
            return
        # A fork goes on from its parent, which may be a fork: each chain's part with its first page, the youngest first.
        parts: list[tuple[SessionKey, Sequence[Record], int | None, bytes | None]] = []
        while True:
            records = await self._backend.read(session, after=after, before=before, limit=PAGE)
            first = records[0] if records else await self._first_or_none(session)
            if first is None or first.head.version <= after + 1 or (before is not None and before <= after + 1):
                parts.append((session, records, before, GENESIS if after == 0 else None))
                break
            parent, prev = await self._base(session, first, after + 1)
            parts.append((session, records, before, prev))
            session, before = parent, first.head.version if before is None else min(before, first.head.version)
        while parts:
            async for commit in self._part(*parts.pop(), need):
                yield commit

    async def between(self, session: SessionKey, after: int, upto: int) -> list[Commit]:
        """The commits with `after < version <= upto`, oldest first. One without operations may come without events."""
        async with aclosing(self.commits(session, after=after, before=upto + 1, need=operations)) as commits:
            return [commit async for commit in commits]

    async def _part(
        self, session: SessionKey, records: Sequence[Record], before: int | None, prev: bytes | None, need: Need
    ) -> AsyncGenerator[Commit, None]:
        while records:
            async with aclosing(self._bodies.windows(session, records, need)) as windows:
                async for window, bodies in windows:
                    for record in window:
                        commit = self._codec.open_record(session, record, prev, body=bodies.get(record.head.version), partial=True)
                        prev = commit.hash
                        yield commit
            records = await self._backend.read(session, after=records[-1].head.version, before=before, limit=PAGE)

    async def _backwards(self, session: SessionKey, after: int, before: int | None, need: Need) -> AsyncGenerator[Commit, None]:
        while True:
            first: Record | None = None
            expected: bytes | None = None
            page = TAIL_PAGE
            records = await self._backend.read(session, after=after, before=before, limit=page, reverse=True)
            while records:
                async with aclosing(self._bodies.windows(session, records, need)) as windows:
                    async for window, bodies in windows:
                        for record in window:
                            commit = self._codec.open_record(session, record, body=bodies.get(record.head.version), partial=True)
                            if expected is not None and commit.hash != expected:
                                message = f"Version {commit.version} of session {session.id!r} is not the one that the next commit follows."
                                raise Corrupt(message)
                            expected, first = commit.prev, record
                            yield commit
                page = min(2 * page, PAGE)
                records = await self._backend.read(session, after=after, before=records[-1].head.version, limit=page, reverse=True)
            first = first or await self._first_or_none(session)
            if first is None or first.head.version <= after + 1:
                return
            session, _ = await self._base(session, first, after + 1)
            before = first.head.version if before is None else min(before, first.head.version)

    async def record(self, session: SessionKey, version: int) -> Record | None:
        """One record of this very chain, checked; `None` if it was truncated. Raises `Corrupt` if it should be there."""
        records = await self._backend.read(session, after=version - 1, before=version + 1, limit=1)
        if not records:
            first = await self._first(session)
            if first.head.version <= version:
                raise Corrupt(f"Version {version} of session {session.id!r} is not there.", session=session.id)
            return None
        self._codec.check_record(session, records[0])
        return records[0]

    async def own_first(self, session: SessionKey) -> Commit | None:
        """The first commit of this very chain: for a fork, the one that names its parent. One with a body elsewhere has no events."""
        first = await self._first_or_none(session)
        return None if first is None else self._codec.open_record(session, first, partial=True)

    async def own(self, session: SessionKey, need: Need) -> AsyncGenerator[Commit, None]:
        """The commits of this very chain, whatever came before it. One whose body lies elsewhere and is not needed comes without events."""
        first = await self._first_or_none(session)
        if first is not None:
            async for commit in self.commits(session, after=first.head.version - 1, need=need):
                yield commit

    async def _first_or_none(self, session: SessionKey) -> Record | None:
        records = await self._backend.read(session, limit=1)
        return records[0] if records else None

    async def _first(self, session: SessionKey) -> Record:
        first = await self._first_or_none(session)
        if first is None:
            raise NotFound(f"There is no session {session.id!r}.", session=session.id)
        return first

    async def _base(self, session: SessionKey, first: Record, wanted: int) -> tuple[SessionKey, bytes]:
        """The parent of a fork and the hash it goes on from, by the fork's first record. Raises `Truncated` if it is no fork."""
        commit = self._codec.open_record(session, first, partial=True)
        event = commit.events[0] if commit.events else Event("")
        if commit.kind is not Kind.configure or event.type != FORKED:
            raise Truncated(
                f"Version {wanted} of session {session.id!r} was truncated; the first that is left is {commit.version}.",
                session=session.id,
                first=commit.version,
            )
        return SessionKey(session.tenant, event.data["session"]), bytes.fromhex(event.data["hash"])

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
            parent, prev = await self._base(session, loaded.records[0], 1)
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
        elif records and records[0].is_stub:
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
