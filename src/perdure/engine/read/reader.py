"""From records to states: load a snapshot and its tail, check the chain, fold; and read through a fork to its parent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from perdure.backends.spi import Backend, Head, Loaded, Record, Settling
from perdure.codec.codec import Codec
from perdure.engine.read.anchors import anchor_of
from perdure.engine.read.cache import Cache, CachedState
from perdure.errors import Corrupt, Invalid, NotFound, Rewound, Truncated
from perdure.lru import LruMap
from perdure.model.commit import GENESIS, Commit, DerivedStatus, Kind, Status, derive_status
from perdure.model.control import decode_control
from perdure.model.epoch import raised
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.model.state import Fold, TestFailed
from perdure.model.values import ROOM

INCARNATIONS_MAX = 4_096
"""Sessions with earlier lives of which it is remembered where the last one ended."""
PAGE = 256
"""Records in one read."""
TAIL_PAGE = 16
"""Records in the first read from the end, which is often the only one: each next read takes twice as many, up to `PAGE`."""
FORKED = "forked"
"""The event of a fork's first commit: data {session, version, hash} name the parent's commit that it goes on from."""


class Reader:
    """Reads sessions of any tenant. States it returns are shared and read-only."""

    def __init__(self, backend: Backend, codec: Codec, cache: Cache) -> None:
        self._backend = backend
        self._codec = codec
        self._cache = cache
        self._doubtful: set[SessionKey] = set()
        self._incarnations = LruMap[tuple[SessionKey, int], int](INCARNATIONS_MAX)

    def doubt(self, session: SessionKey) -> None:
        """A write of this session was cancelled while it was in progress: the next read waits for it to end."""
        self._doubtful.add(session)

    async def settled(self, session: SessionKey) -> None:
        """Wait for cancelled writes of the session. Raises `Unknown` when one has not ended within the engine's time-out."""
        if not self._doubtful or session not in self._doubtful or not isinstance(self._backend, Settling):
            return
        self._doubtful.discard(session)
        try:
            await self._backend.settled(session)
        except BaseException:
            self._doubtful.add(session)
            raise

    async def incarnation_start(self, session: SessionKey, head: Head) -> int:
        """The version of the tombstone that the life of this head began after; 0 for a first life. A deleted head's is its own.

        A tombstone raises the epoch, so a session that was never deleted costs nothing, and another one a bisection, once.
        """
        if head.status == Status.deleted:
            return head.version
        grant = raised(head.epoch, 0)
        if not grant:
            return 0
        known = self._incarnations.get((session, grant))
        if known is None:
            known = await self._last_tombstone(session, head.version, grant)
            self._incarnations.put((session, grant), known)
        return known

    async def _last_tombstone(self, session: SessionKey, high: int, grant: int) -> int:
        """The newest tombstone up to version `high`, which has this grant: only a commit that raised it can be one."""
        while grant:
            low = 0
            while high - low > 1:
                middle = (low + high) // 2
                commit = await self._commit_or_none(session, middle)
                if commit is None or raised(commit.epoch, 0) < grant:
                    low = middle
                else:
                    high = middle
            raising, before = await self._commit_or_none(session, high), await self._commit_or_none(session, high - 1)
            if raising is not None and raising.kind is Kind.tombstone:
                return high
            if before is None and high > 1:
                return await self._anchored_incarnation(session)
            grant, high = 0 if before is None else raised(before.epoch, 0), high - 1
        return 0

    async def _anchored_incarnation(self, session: SessionKey) -> int:
        """Where the life began whose first commits were dropped: the anchor says it."""
        current = await self.cached(session)
        anchor = None if current is None else anchor_of(current.control)
        return 0 if anchor is None else anchor.life

    async def _commit_or_none(self, session: SessionKey, version: int) -> Commit | None:
        try:
            return await self.commit(session, version) if version else None
        except (NotFound, Truncated):
            return None

    async def commit(self, session: SessionKey, version: int) -> Commit | None:
        """One commit, through forks to their parents; `None` above the head. Raises `NotFound`, `Truncated`."""
        async with aclosing(self.commits(session, after=version - 1, before=version + 1)) as commits:
            async for commit in commits:
                return commit
        return None

    async def cached(self, session: SessionKey, *, head: Head | None = None) -> CachedState | None:
        """The newest state known, from memory if it is there; at least as new as `head`, when given. `None`: no such session."""
        cached = self._cache.get(session)
        if cached is not None and head is not None and cached.head.hash != head.hash:
            cached = await self._advance(session, cached, head)
        if cached is None:
            loaded = await self._backend.load(session)
            if loaded is None:
                return None
            cached = await self._state_of(session, loaded)
            self._cache.put(session, cached)
        return cached

    async def read_head(self, session: SessionKey) -> CachedState | None:
        """The newest state: the head is read from the engine, and what is missing is loaded."""
        if self._doubtful:
            await self.settled(session)
        known = self._cache.get(session)
        return await self.cached(session) if known is None else await self._newest(session, known)

    async def _newest(self, session: SessionKey, known: CachedState) -> CachedState | None:
        head = (await self._backend.heads((session,)))[0]
        if head is None:
            self._cache.drop(session)
            return None
        return known if head.hash == known.head.hash else await self.cached(session, head=head)

    async def load_uncached(self, session: SessionKey) -> tuple[CachedState | None, bool]:
        """As `read_head`, for a caller that only reads; and whether the state is the caller's own, because it is not cached."""
        if self._doubtful:
            await self.settled(session)
        known = self._cache.get(session)
        if known is not None:
            return await self._newest(session, known), False
        if self._cache.second_hit(session):
            return await self.cached(session), False
        loaded = await self._backend.load(session)
        return (None if loaded is None else await self._state_of(session, loaded)), True

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
        self, session: SessionKey, *, after: int = 0, before: int | None = None, newest_first: bool = False
    ) -> AsyncGenerator[Commit, None]:
        """Commits with `after < version < before`, each checked against its neighbour, a page at a time, through forks."""
        if newest_first:
            async for commit in self._backwards(session, after, before):
                yield commit
            return
        # A fork goes on from its parent, which may be a fork: each chain's part with its first page, the youngest first.
        parts: list[tuple[SessionKey, Sequence[Record], int | None, bytes | None]] = []
        child: int | None = None
        while True:
            records = await self._backend.read(session, after=after, before=before, limit=PAGE)
            first = records[0] if records else await self._first_or_none(session)
            if first is None or first.head.version <= after + 1 or (before is not None and before <= after + 1):
                parts.append((session, records, before, GENESIS if after == 0 else None))
                break
            parent, prev = await self._base(session, first, after + 1, child)
            parts.append((session, records, before, prev))
            session, child = parent, first.head.version
            before = child if before is None else min(before, child)
        while parts:
            async for commit in self._part(*parts.pop()):
                yield commit

    async def between(self, session: SessionKey, after: int, upto: int) -> list[Commit]:
        """The commits with `after < version <= upto`, oldest first."""
        async with aclosing(self.commits(session, after=after, before=upto + 1)) as commits:
            return [commit async for commit in commits]

    async def _part(
        self, session: SessionKey, records: Sequence[Record], before: int | None, prev: bytes | None
    ) -> AsyncGenerator[Commit, None]:
        while records:
            for record in records:
                commit = self._codec.open_record(session, record, prev)
                prev = commit.hash
                yield commit
            records = await self._backend.read(session, after=records[-1].head.version, before=before, limit=PAGE)

    async def _backwards(self, session: SessionKey, after: int, before: int | None) -> AsyncGenerator[Commit, None]:
        while True:
            first: Record | None = None
            expected: bytes | None = None
            page = TAIL_PAGE
            records = await self._backend.read(session, after=after, before=before, limit=page, reverse=True)
            while records:
                for record in records:
                    commit = self._codec.open_record(session, record)
                    if expected is not None and commit.hash != expected:
                        raise Corrupt(f"Version {commit.version} of session {session.id!r} is not the one that the next commit follows.")
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
        """The first commit of this very chain: for a fork, the one that names its parent."""
        first = await self._first_or_none(session)
        return None if first is None else self._codec.open_record(session, first)

    async def root(self, session: SessionKey) -> Commit | None:
        """The first commit that is left of what this chain goes on from, through forks to their parents."""
        first = await self.own_first(session)
        while first is not None and is_forked(first):
            origin = first.events[0].data
            parent = await self.own_first(SessionKey(session.tenant, origin["session"]))
            if parent is not None and parent.version > origin["version"]:
                return first  # Its parent has dropped what it goes on from.
            first = parent
        return first

    async def own(self, session: SessionKey) -> AsyncGenerator[Commit, None]:
        """The commits of this very chain, whatever came before it."""
        first = await self._first_or_none(session)
        if first is not None:
            async for commit in self.commits(session, after=first.head.version - 1):
                yield commit

    async def _first_or_none(self, session: SessionKey) -> Record | None:
        records = await self._backend.read(session, limit=1)
        return records[0] if records else None

    async def _first(self, session: SessionKey) -> Record:
        first = await self._first_or_none(session)
        if first is None:
            raise NotFound(f"There is no session {session.id!r}.", session=session.id)
        return first

    async def _base(self, session: SessionKey, first: Record, wanted: int, child: int | None = None) -> tuple[SessionKey, bytes]:
        """The parent of a fork and the hash it goes on from, by the fork's first record. Raises `Truncated` if it is no fork.

        `child`: the first version of a fork for which this chain is read: the first that is left may be its own.
        """
        commit = self._codec.open_record(session, first)
        if not is_forked(commit):
            left = commit.version if child is None else min(commit.version, child)
            raise Truncated(
                f"Version {wanted} of session {session.id!r} was truncated; the first that is left is {left}.",
                session=session.id,
                first=left,
            )
        origin = commit.events[0].data
        return SessionKey(session.tenant, origin["session"]), bytes.fromhex(origin["hash"])

    async def _advance(self, session: SessionKey, cached: CachedState, head: Head) -> CachedState | None:
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
        if not records or self._codec.prev(records[0]) != cached.head.hash:
            self._cache.drop(session)
            return None
        with ROOM:
            advanced = self._fold(session, cached, cached.head.hash, (cached.head.status, cached.head.data), records)
        self._cache.put(session, advanced)
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
        cached = self._folded(*chains.pop(), None)
        while chains:
            session, loaded = chains.pop()
            if cached.head.hash != hashes.pop():
                raise Rewound(f"Session {session.id!r} was forked from a commit that its parent no longer holds.")
            cached = self._folded(session, loaded, cached)
        return cached

    def _folded(self, session: SessionKey, loaded: Loaded, base: CachedState | None) -> CachedState:
        """What was loaded of one chain, which goes on from `base` if it is a fork's."""
        row, snapshot, records = loaded.row, loaded.snapshot, loaded.records
        state: Any = {}
        prev: bytes | None = GENESIS
        stand: DerivedStatus | None = None
        log_bytes = snapshot_bytes = 0
        if base is not None:
            state, prev, log_bytes = base.state, base.head.hash, base.log_bytes + base.snapshot_bytes
        elif snapshot is not None:
            state = self._codec.decode_snapshot(session, snapshot)
            prev, snapshot_bytes = snapshot.hash, len(snapshot.body)
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
        control = decode_control(row.control)
        start = CachedState(row.head, state, log_bytes, snapshot_bytes, row.tags, row.created_at, row.size_bytes, control)
        with ROOM:
            folded = self._fold(session, start, prev, stand, records)
        if folded.head == loaded.row.head:  # The row says more than its commits: what sweepers saw is written without one.
            folded = msgspec.structs.replace(folded, control=control)
        return folded

    def _fold(
        self, session: SessionKey, start: CachedState, prev: bytes | None, stand: DerivedStatus | None, records: Sequence[Record]
    ) -> CachedState:
        """What `start` becomes with these records, which follow the commit whose hash is `prev`."""
        tags, log_bytes, control = start.tags, start.log_bytes, start.control
        fold = Fold(start.state)
        for record in records:
            commit = self._codec.open_record(session, record, prev)
            prev = commit.hash
            log_bytes += record.stored_bytes
            stand = derive_status(record.kind, record.head.version, stand)
            stand = check_standing(session, record.head, stand)
            if commit.kind is Kind.data:
                apply_events(session, fold, commit)
            else:
                control = control.after_commit(commit)
                if commit.kind is Kind.tombstone:
                    fold, tags = Fold({}), {}
                elif commit.kind is Kind.configure:
                    tags = configured(commit.events).get("tags", tags)
        head = records[-1].head if records else start.head
        return msgspec.structs.replace(start, head=head, state=fold.state, log_bytes=log_bytes, tags=tags, control=control)


def is_forked(commit: Commit) -> bool:
    """Whether this is the first commit of a fork."""
    return commit.kind is Kind.configure and bool(commit.events) and commit.events[0].type == FORKED


def check_standing(session: SessionKey, head: Head, stand: DerivedStatus | None) -> DerivedStatus:
    """The standing of a head, if it is the one that its commits give (`None`: that is not known). Raises `Corrupt`."""
    if stand is not None and stand != (head.status, head.data):
        raise Corrupt(
            f"Version {head.version} of session {session.id!r} has another status or data version than its commits give.",
            session=session.id,
        )
    return head.status, head.data


def apply_events(session: SessionKey, fold: Fold, commit: Commit) -> None:
    """Fold one commit. Operations were validated when they were written, so one that does not fit is `Corrupt`."""
    for event in commit.events:
        if event.ops:
            try:
                fold.apply(event.ops)
            except (Invalid, TestFailed) as error:
                raise Corrupt(f"Version {commit.version} of session {session.id!r} does not fit the state before it: {error}") from error


def configured(events: Iterable[Event]) -> dict[str, Any]:
    """What the events of a configure commit set."""
    settings: dict[str, Any] = {}
    for event in events:
        if event.type == "configured" and isinstance(event.data, dict):
            settings |= event.data
    return settings
