"""Retention inside a session: its newest commits stay in the engine, older ones go to a segment, or go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import NamedTuple

from perdure.backends.spi import Backend
from perdure.clock import Clock
from perdure.codec.codec import Codec
from perdure.codec.records import state_digest
from perdure.engine.archive.archiver import ROUNDS, Archiver
from perdure.engine.archive.unread import Unread
from perdure.engine.options import VERSION_MAX
from perdure.engine.read.bodies import Bodies
from perdure.engine.read.cache import CachedState
from perdure.engine.read.chains import FORKED, Chains
from perdure.engine.read.reader import Reader
from perdure.engine.read.segments import Segments
from perdure.engine.views import Archived
from perdure.errors import Busy, Error, Invalid, Unavailable
from perdure.model.anchor import ARCHIVED, Anchor, anchor_of, preparing_of
from perdure.model.commit import Commit, Kind, Status
from perdure.model.control import Control
from perdure.model.ids import SessionKey
from perdure.redaction import shown_value

KEEP_MAX = timedelta(days=36_500)
"""Longest time that commits can be kept for: a hundred years."""


FORK_TIME = 600 * 1_000_000_000
"""A pin that is younger than this, in nanoseconds, stops a drop while its fork is not there: it may be about to start."""


class _Seen(NamedTuple):
    """What a chain says up to a head of what reads through it."""

    version: int
    forks: Sequence[str]
    """Forks that need it: they are not purged, and have no snapshot of their own."""
    archived: int
    """The version of the last commit that archived it as a whole; 0: none."""


def check_keep(keep: object) -> int | timedelta:
    """What `compact` keeps. Raises `Invalid` for anything but a number of commits and a time."""
    if isinstance(keep, timedelta):
        if timedelta(0) <= keep <= KEEP_MAX:
            return keep
        raise Invalid(f"keep must be from zero to {KEEP_MAX.days:,} days, not {keep.total_seconds():g} seconds.")
    if type(keep) is not int:
        raise Invalid(f"keep must be a number of commits or a timedelta, not {shown_value(keep)}.")
    if not 0 <= keep <= VERSION_MAX:
        raise Invalid(f"keep must be 0 or more commits, not {shown_value(keep)}.")
    return keep


class Retention:
    """Compacts sessions of one connection."""

    def __init__(
        self,
        backend: Backend,
        codec: Codec,
        reader: Reader,
        chains: Chains,
        segments: Segments,
        archiver: Archiver,
        clock: Clock,
        bodies: Bodies,
        unread: Unread,
    ) -> None:
        self._backend, self._codec, self._reader, self._chains, self._segments = backend, codec, reader, chains, segments
        self._archiver, self._clock, self._bodies, self._unread = archiver, clock, bodies, unread

    async def compact(
        self,
        session: SessionKey,
        keep: int | timedelta,
        actor: str | None,
        *,
        drop: bool,
        is_wanted: Callable[[Control], bool] | None = None,
        upto: int = VERSION_MAX,
        settled: int | None = None,
    ) -> Archived:
        """See `Store.compact`. Nothing is dropped once `is_wanted` denies it, which is asked of each head that is written after.

        `upto`: no later version goes. `settled`: forks that pins up to this version are for have started, or never will; without it, a
        pin's time says so (`FORK_TIME`).
        """
        if not drop:
            self._segments.place(session, "cannot go to an archive")
        state = await self._archiver.live(session)
        anchor = anchor_of(state.control)
        began, last = anchor.version if anchor else 0, await self._cut(session, state, keep, upto)
        for _ in range(ROUNDS):
            state = await self._archiver.live(session)
            anchor = anchor_of(state.control)
            if anchor is not None and anchor.version >= last:
                await self._archiver.finish_truncation(session, anchor, whole=state.head.status == Status.archived)
                await self._archiver.collect(session)
                return Archived(session.id, state.head.version, anchor.version - began, 0 if anchor.version == began else anchor.size)
            unwanted = is_wanted is not None and not is_wanted(state.control)
            if state.head.status == Status.archived or last < 1 or unwanted:
                return Archived(session.id, state.head.version, 0, 0)
            if not drop:
                await self._unread.require_none(session, last)
                await self._move(session, last, actor)
                continue
            try:
                await self._drop(session, state, last, actor, settled)
            except Error as error:
                if "consumers" in error.facts or (await self._archiver.live(session)).head == state.head:
                    raise
        raise Busy(f"Session {session.id!r} was written to again and again while it was compacted; nothing was lost.", session=session.id)

    async def _cut(self, session: SessionKey, state: CachedState, keep: int | timedelta, upto: int) -> int:
        """The last version that is not kept; 0 where all are."""
        head, anchor = state.head, anchor_of(state.control)
        if isinstance(keep, int):
            last = head.version - keep
        else:
            limit = self._clock.now() - int(keep.total_seconds() * 1_000_000_000)
            last = await self._reader.at_time(session, head, limit, anchor.version if anchor else 0)
        last = min(last, upto)
        while last > (anchor.version if anchor else 0):
            # An engine takes a chain that begins with a configure commit for a fork's: such a commit does not become the first.
            following = await self._backend.read(session, after=last, before=last + 2, limit=1)
            if not following or following[0].kind != Kind.configure:
                first = await self._backend.read(session, limit=1)
                return last if first and first[0].head.version <= last else 0
            last -= 1
        return max(0, last)

    async def _drop(self, session: SessionKey, state: CachedState, last: int, actor: str | None, settled: int | None) -> None:
        """Let records go for good. The state stays readable from a snapshot, which is proven to be there before and after."""
        self._archiver.check_lease(session, state.head.epoch, whole=False)
        seen = await self._look(session, state, settled)
        if seen.forks:
            names = ", ".join(map(repr, seen.forks))
            message = f"Session {session.id!r} has forks that read their past from it: {names}."
            advice = "Purge them first, or leave drop out: then its commits go to an archive."
            raise Invalid(f"{message} {advice}", session=session.id, forks=tuple(seen.forks))
        await self._unread.require_none(session, last)
        if seen.archived:  # Who archived it may still be about to remove all snapshots: not while that commit is gone.
            await self._move_past(session, seen.archived, actor)
            state = await self._archiver.live(session)
            if (newest := anchor_of(state.control)) is not None and newest.version >= last:
                return
        then, hash = await self._reader.at(session, last)
        await self._require_snapshot(session, then, state, last)
        before = await self._chains.newest_anchor(session, anchor_of(state.control))
        anchor = Anchor(
            version=last, hash=hash.hex(), digest=state_digest(then.state).hex(), before=0 if before is None else before.version
        )
        pending = preparing_of(state.control)
        if await self._archiver.commit_anchor(session, state, anchor, actor, whole=False) is None:
            return
        if pending is not None:
            await self._segments.remove(session, [pending.segment])
        await self._archiver.finish_truncation(session, anchor, whole=False)

    async def _move_past(self, session: SessionKey, version: int, actor: str | None) -> None:
        """Move what lies at or below a version to a segment."""
        self._segments.place(session, "were archived before, and go there again first")
        await self._move(session, version, actor)

    async def _move(self, session: SessionKey, last: int, actor: str | None) -> None:
        preparing = await self._archiver.prepare(session, last, actor)
        if preparing is not None:
            await self._archiver.move(session, preparing, actor)

    async def _require_snapshot(self, session: SessionKey, then: CachedState, state: CachedState, last: int) -> None:
        """See that the engine has a snapshot from which the head can be read without what goes."""
        for each in (then, state):
            snapshot = self._codec.encode_snapshot(session, each.head.version, each.head.hash, each.state)
            await self._backend.put_snapshot(session, snapshot)
        loaded = await self._backend.load(session)
        if loaded is None or loaded.snapshot is None or loaded.snapshot.version < last:
            raise Unavailable(f"The engine keeps no snapshot of session {session.id!r}, so nothing of it may go.", session=session.id)

    async def _look(self, session: SessionKey, state: CachedState, settled: int | None) -> _Seen:
        """Which forks read through a session, and when it was last archived, by its own commits that the engine holds."""
        forks: list[str] = []
        archived = 0
        recent = self._clock.now() - FORK_TIME
        anchor = anchor_of(state.control)
        async for commit in self._reader.own(session, self._bodies.refuse_unreachable):
            if commit.kind is Kind.pin:
                starting = commit.at > recent if settled is None else commit.version > settled
                forks += [name for name in _forks(commit) if await self._reads_through(session, name, starting=starting)]
            elif commit.kind is Kind.anchor and commit.events and commit.events[0].type == ARCHIVED:
                archived = commit.version if anchor is None or commit.version > anchor.version else archived
        return _Seen(state.head.version, forks, archived)

    async def _reads_through(self, session: SessionKey, name: str, *, starting: bool) -> bool:
        """Whether a fork needs what its parent has: it was not purged, and no snapshot of its own has its state. `starting`: where it is
        not there, it may be about to be."""
        child = SessionKey(session.tenant, name)
        first = await self._reader.own_first(child)
        if first is None:
            return starting and (await self._backend.heads([child]))[0] is None
        if first.kind is not Kind.configure or not first.events or first.events[0].type != FORKED:
            return False
        if first.events[0].data["session"] != session.id:
            return False
        loaded = await self._chains.load(child)
        return loaded is not None and loaded.snapshot is None


def _forks(commit: Commit) -> Sequence[str]:
    """The forks that a pin is for."""
    return [event.data["fork"] for event in commit.events if isinstance(event.data, dict) and "fork" in event.data]
