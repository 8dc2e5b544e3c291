"""The commits of a session: read page by page, each checked against its neighbour, and through a fork to its parent.

They say in which life a session is, and who holds it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from perdure.backends.spi import Head, Record
from perdure.codec.codec import Codec
from perdure.engine.read.bodies import Bodies, Need, everything, nothing, operations
from perdure.engine.read.cache import CachedState
from perdure.engine.read.chains import FORKED, PAGE, Chains
from perdure.errors import Corrupt, NotFound, Truncated
from perdure.lru import LruMap
from perdure.model.commit import GENESIS, Commit, Kind, Status
from perdure.model.control import Control
from perdure.model.epoch import is_held, raised
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.model.lease import LeaseSection, holder, holder_said, life_of, life_said

INCARNATIONS_MAX = 4_096
"""Sessions with earlier lives of which it is remembered where the last one ended."""
TAIL_PAGE = 16
"""Records in the first read from the end, which is often the only one: each next read takes twice as many, up to `PAGE`."""


class CommitReader:
    """Reads the commits of sessions of any tenant."""

    def __init__(self, backend: Chains, codec: Codec, bodies: Bodies) -> None:
        self._backend, self._codec, self._bodies = backend, codec, bodies
        self._incarnations = LruMap[tuple[SessionKey, int], int](INCARNATIONS_MAX)

    async def commit(self, session: SessionKey, version: int) -> Commit | None:
        """One commit, through forks to their parents; `None` above the head. One whose body lies elsewhere comes without events.

        Raises `NotFound`, `Truncated`.
        """
        async with aclosing(self.commits(session, after=version - 1, before=version + 1, need=nothing)) as commits:
            async for commit in commits:
                return commit
        return None

    async def _commit_or_none(self, session: SessionKey, version: int) -> Commit | None:
        try:
            return await self.commit(session, version) if version else None
        except (NotFound, Truncated):
            return None

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
