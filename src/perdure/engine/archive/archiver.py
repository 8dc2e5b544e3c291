"""Moves records to segments, whole sessions too, and brings sessions back.

prepare   an anchor commit names a segment that does not exist yet
store     the segment is put, read back and proven
anchor    an anchor commit names the segment, only while `prepare` stands
truncate  the engine lets the records go

An archiver that finds a `prepare` that stands goes on with it. One that does not fit any more is voided by a commit, and then its object is
removed. A name is used once. So an archiver that stops between two of these steps, and goes on later, anchors nothing that was removed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing, suppress
from enum import Enum
from typing import Any

import msgspec

from perdure.backends.spi import Appended, Backend, Durability, indexed
from perdure.clock import Clock
from perdure.codec.codec import Codec
from perdure.engine.archive.making import TooLongError, make_segment, prove_segment
from perdure.engine.archive.unread import Unread
from perdure.engine.options import Options
from perdure.engine.read.bodies import Bodies, nothing
from perdure.engine.read.cache import CachedState
from perdure.engine.read.chains import FORKED, Chains
from perdure.engine.read.reader import Reader
from perdure.engine.read.segments import Segments
from perdure.engine.views import Archived
from perdure.engine.write.controls import Basis, ControlChange, ControlCommit, ControlCommits
from perdure.engine.write.request import check_head
from perdure.engine.write.snapshots import Snapshots
from perdure.errors import Busy, Corrupt, Error, Invalid, NotFound, TooLarge, Truncated
from perdure.model.anchor import (
    ANCHOR,
    ARCHIVED,
    COMPACTED,
    PREPARED,
    PREPARING,
    RESTORED,
    VOIDED,
    Anchor,
    Preparing,
    anchor_of,
    anchored,
    preparing_of,
)
from perdure.model.commit import Kind, Status
from perdure.model.control import CONTROL
from perdure.model.epoch import is_exclusive, is_held
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.model.lifecycle import LOOK, first_due, policy_of
from perdure.telemetry import Telemetry

Wanted = Callable[[CachedState], bool]

ROUNDS = 64
"""How often a step is decided again because other commits came first."""
_LIVE = Options(create=False)
_ARCHIVED = int(Status.archived)


class _Fate(Enum):
    """What became of a segment that was prepared."""

    pending = "pending"
    """An anchor may follow."""
    anchored = "anchored"
    """One did: it is needed."""
    void = "void"
    """None will ever follow."""


class Archiver:
    """Archives sessions of one connection."""

    def __init__(
        self,
        backend: Backend,
        codec: Codec,
        reader: Reader,
        chains: Chains,
        segments: Segments,
        controls: ControlCommits,
        snapshots: Snapshots,
        clock: Clock,
        durability: Durability,
        bodies: Bodies,
        unread: Unread,
        telemetry: Telemetry,
    ) -> None:
        self._backend, self._codec, self._reader, self._chains, self._segments = backend, codec, reader, chains, segments
        self._controls, self._snapshots, self._clock, self._durability = controls, snapshots, clock, durability
        self._bodies, self._unread, self._telemetry = bodies, unread, telemetry

    async def archive(self, session: SessionKey, actor: str | None, is_wanted: Wanted | None = None) -> Archived:
        """See `Store.archive`. `is_wanted` is asked of the state that the first commit of a move follows: `Busy` where it denies it."""
        self._segments.place(session, "cannot go to an archive")
        began = 0
        for _ in range(ROUNDS):
            state = await self.live(session)
            began = began or state.head.version
            if state.head.status == _ARCHIVED:
                return await self._finished(session, state, began)
            await self._unread.require_none(session, state.head.version)
            preparing = await self.prepare(session, None, actor, is_wanted)
            if preparing is not None:
                await self.move(session, preparing, actor)
        raise self._overtaken(session)

    async def _finished(self, session: SessionKey, state: CachedState, began: int) -> Archived:
        """An archived session: a truncation that is still to come is made, and segments that nothing names are removed."""
        anchor = anchor_of(state.control)
        if anchor is None:
            raise Corrupt(f"Session {session.id!r} is archived, and its index row names no segment.", session=session.id)
        await self.finish_truncation(session, anchor, whole=True)
        await self.collect(session)
        moved = anchor.version - anchor.first + 1 if began <= anchor.version else 0
        return Archived(session.id, state.head.version, moved, anchor.size if moved else 0)

    async def restore(self, session: SessionKey, actor: str | None = None) -> bool:
        """Make an archived session live again: its snapshot is put, then a commit says so. Whether it was archived. Raises `Corrupt`."""
        for _ in range(ROUNDS):
            state = await self.live(session)
            if state.head.status != _ARCHIVED:
                return False
            head = state.head
            with suppress(TooLarge):  # Then reads go on from the segment's.
                await self._backend.put_snapshot(session, self._codec.encode_snapshot(session, head.version, head.hash, state.state))
            due_at = first_due(policy_of(state.control), self._clock.now())  # Sweepers had no more to do here.
            if await self.commit(session, state, Event(RESTORED), actor, status=Status.active, due_at=due_at) is not None:
                return True
        raise self._overtaken(session)

    async def live(self, session: SessionKey) -> CachedState:
        """The newest state. Raises `NotFound`, `Deleted`, `Moved`."""
        await self._reader.settled(session)
        state = await self._reader.read_head(session)
        check_head(session, None if state is None else state.head, _LIVE)
        if state is None:
            raise NotFound(f"There is no session {session.id!r}.", session=session.id)
        return state

    async def prepare(self, session: SessionKey, last: int | None, actor: str | None, is_wanted: Wanted | None = None) -> Preparing | None:
        """Say which segment is about to be made: of the records up to `last`; without it, of the whole session. One that is being made
        already is gone on with. `None`: there is nothing to move. Raises `Busy` where a lease forbids it, or `is_wanted` denies it."""
        for _ in range(ROUNDS):
            state = await self.live(session)
            head, pending = state.head, preparing_of(state.control)
            if head.status == _ARCHIVED:
                return None
            if is_wanted is not None and not is_wanted(state):
                raise self._written(session)
            self.check_lease(session, head.epoch, whole=last is None)
            if pending is not None and (not pending.whole or pending.last == head.version):
                return pending
            first = await self._first_left(session, state)
            upto = head.version + 1 if last is None else last
            if upto < first:
                return None
            chosen = Preparing(f"{first}-{upto}-{self._clock.bits(64):016x}", first, upto, whole=last is None)
            event = Event(PREPARED, {CONTROL: {PREPARING: msgspec.to_builtins(chosen)}})
            if await self.commit(session, state, event, actor) is None:
                continue
            if pending is not None:  # The commit has voided it.
                await self._segments.remove(session, [pending.segment])
            return chosen
        raise self._overtaken(session)

    async def _first_left(self, session: SessionKey, state: CachedState) -> int:
        """The first version that no anchor covers."""
        before = await self._chains.newest_anchor(session, anchor_of(state.control))
        if before is not None:
            return before.version + 1
        records = await self._backend.read(session, limit=1)
        return records[0].head.version if records else 1

    async def move(self, session: SessionKey, preparing: Preparing, actor: str | None) -> None:
        """Make the segment, anchor it, and let its records go; or nothing, where another archiver has done so or voided it.

        Raises `Busy`, `Corrupt`, `Unavailable`: then it was voided.
        """
        try:
            anchor = await self._anchor(session, preparing, await self._store(session, preparing), actor)
        except TooLongError as error:
            await self.void(session, preparing, actor)
            shorter = await self.prepare(session, error.version, actor)
            if shorter is not None:
                await self.move(session, shorter, actor)
            return
        except Error:
            if await self._fate(session, preparing) is not _Fate.pending:
                await self.void(session, preparing, actor)
                return  # Whatever went wrong, it did because others were faster: the caller looks again.
            with suppress(Error):  # What went wrong first is said. What is left is voided by the next archiver.
                await self.void(session, preparing, actor)
            raise
        if anchor is None:
            await self.void(session, preparing, actor)
        else:
            await self.finish_truncation(session, anchor, whole=preparing.whole)

    async def _fate(self, session: SessionKey, preparing: Preparing) -> _Fate:
        """What became of a segment that was prepared, by the commits since."""
        stands = True
        with suppress(Truncated):
            async with aclosing(self._reader.commits(session, newest_first=True, need=nothing)) as commits:
                async for commit in commits:
                    event = commit.events[0] if commit.events else Event("")
                    said = event.data.get(CONTROL) if isinstance(event.data, dict) and commit.kind is Kind.anchor else None
                    if (found := anchored(event)) is not None and found.segment == preparing.segment:
                        return _Fate.anchored
                    if said is not None and PREPARING in said:
                        if said[PREPARING] == msgspec.to_builtins(preparing):
                            return _Fate.pending if stands else _Fate.void
                        stands = False
                    elif commit.kind is Kind.tombstone:
                        stands = False
        return _Fate.void

    async def _store(self, session: SessionKey, preparing: Preparing) -> Anchor:
        """Put the segment if it is not there, read it back and prove it: the anchor that may follow."""
        state = await self.live(session)
        before = await self._chains.newest_anchor(session, anchor_of(state.control))
        if preparing.whole:
            if state.head.version != preparing.last:
                raise self._written(session)
        else:
            state, _ = await self._reader.at(session, preparing.last)
        head = state.head
        snapshot = self._codec.encode_snapshot(session, head.version, head.hash, state.state)
        data = await make_segment(self._backend, self._codec, session, preparing, before, snapshot)
        place, name = self._segments.place(session), self._segments.name(session, preparing.segment)
        await place.put(name, data)
        del data
        stored = await place.get(name)
        if stored is None:
            raise self._overtaken(session)  # It was voided and removed.
        try:
            return await prove_segment(self._codec, session, preparing, before, snapshot, stored)
        except Corrupt as error:
            raise self._segments.damaged(session, preparing.segment, error) from error

    async def _anchor(self, session: SessionKey, preparing: Preparing, anchor: Anchor, actor: str | None) -> Anchor | None:
        """Anchor the segment while its `preparing` stands. `None`: it stands no more, and no other archiver has anchored it."""
        for _ in range(ROUNDS):
            state = await self.live(session)
            if preparing_of(state.control) != preparing:
                return anchor if await self._fate(session, preparing) is _Fate.anchored else None
            if preparing.whole and state.head.version != preparing.last:
                raise self._written(session)
            self.check_lease(session, state.head.epoch, whole=preparing.whole)
            if not preparing.whole:
                await self._keep_snapshot(session, state, anchor)
            if await self.commit_anchor(session, state, anchor, actor, whole=preparing.whole) is not None:
                self._telemetry.archived(anchor.size, anchor.version - anchor.first + 1)
                return anchor
        raise self._overtaken(session)

    async def _keep_snapshot(self, session: SessionKey, state: CachedState, anchor: Anchor) -> None:
        """Store a snapshot where the engine has none from the anchor's version on: the head is then read without the archive."""
        loaded = await self._backend.load(session)
        if loaded is None or loaded.snapshot is None or loaded.snapshot.version < anchor.version:
            await self._snapshots.store(session, state)

    async def commit_anchor(
        self, session: SessionKey, state: CachedState, anchor: Anchor, actor: str | None, *, whole: bool
    ) -> Appended | None:
        """Write an anchor after the very head of `state`; `None` where another commit came first.

        It repeats all that is said of the session, so that the commits which said it may go.
        """
        life = await self._reader.incarnation_start(session, state.head)
        sections: dict[str, Any] = {**state.control.sections, ANCHOR: msgspec.to_builtins(msgspec.structs.replace(anchor, life=life))}
        sections.pop(LOOK, None)  # No commit has said it, and the index row may know a newer one.
        if PREPARING in sections:
            sections[PREPARING] = None
        data: dict[str, Any] = {CONTROL: sections, "tags": dict(state.tags)}
        first = await self._reader.own_first(session)
        if first is not None and first.kind is Kind.configure and first.events and first.events[0].type == FORKED:
            data["origin"] = first.events[0].data
        event = Event(ARCHIVED if whole else COMPACTED, data)
        return await self.commit(session, state, event, actor, status=Status.archived if whole else None)

    async def commit(
        self,
        session: SessionKey,
        state: CachedState,
        event: Event,
        actor: str | None,
        status: Status | None = None,
        due_at: int | None = None,
    ) -> Appended | None:
        """Write an anchor commit after the head of `state`; `None` where another commit came first."""
        plan = ControlChange((ControlCommit(kind=Kind.anchor, event=event, status=status),), due_at)
        # The plan is made: only the head and the cell are compared.
        basis = await self._controls.with_look(session, Basis(state.head, state.control, 0, None))
        return await self._controls.attempt(session, basis, plan, actor=actor, durability=self._durability)

    async def void(self, session: SessionKey, preparing: Preparing, actor: str | None) -> None:
        """Take back that a segment is being made, if that still stands and nothing came of it; then remove the segment."""
        for _ in range(ROUNDS):
            fate = await self._fate(session, preparing)
            if fate is _Fate.anchored:
                return
            if fate is _Fate.void:
                break
            state = await self.live(session)
            if preparing_of(state.control) == preparing:
                await self.commit(session, state, Event(VOIDED, {CONTROL: {PREPARING: None}}), actor)
        else:
            raise self._overtaken(session)
        await self._segments.remove(session, [preparing.segment])

    async def finish_truncation(self, session: SessionKey, anchor: Anchor, *, whole: bool) -> None:
        """Let go of the records that an anchor covers, if the engine still holds some, and of the snapshots of a whole session."""
        with suppress(Truncated):  # The commit itself has gone, and so has what it covers.
            async with aclosing(self._reader.commits(session, after=anchor.version, newest_first=True, need=nothing)) as commits:
                async for commit in commits:
                    found = anchored(commit.events[0]) if commit.kind is Kind.anchor and commit.events else None
                    if found is not None and found.version == anchor.version:
                        await self._truncate(session, commit.version, commit.hash, anchor, whole=whole)
                        return

    async def _truncate(self, session: SessionKey, version: int, hash: bytes, anchor: Anchor, *, whole: bool) -> None:
        backend = indexed(self._backend)
        if anchor.dropped:
            await self._drop_bodies(session, anchor.version)
        with suppress(Invalid):  # The anchor is gone: another archiver has anchored more, or the session was purged.
            if whole and backend is not None:
                await backend.truncate(session, version, (version, hash), snapshot=True)
            else:
                await self._backend.truncate(session, anchor.version + 1, (version, hash))

    async def _drop_bodies(self, session: SessionKey, last: int) -> None:
        """Remove what lies out of line of the records up to a version, which are about to go. Doing it again changes nothing."""
        after = 0
        while records := await self._backend.read(session, after=after, before=last + 1):
            await self._bodies.drop(session, records)
            after = records[-1].head.version

    async def collect(self, session: SessionKey) -> None:
        """Remove segments that nothing names: an archiver stopped after it was voided, or their records were dropped."""
        if not self._segments.has_place:
            return
        names = await self._segments.list(session)  # First these, then the head: what is prepared later is not among them.
        state = await self.live(session)
        pending = preparing_of(state.control)
        try:
            anchors = await self._chains.anchors(session, anchor_of(state.control))
        except Corrupt:
            return  # What a damaged segment names is not known, so nothing is removed.
        known = {anchor.segment for anchor in anchors}
        if pending is not None:
            known.add(pending.segment)
        await self._segments.remove(session, [name for name in names if name not in known])

    def check_lease(self, session: SessionKey, epoch: int, *, whole: bool) -> None:
        """Raise `Busy` where somebody holds a lease that forbids this."""
        if is_held(epoch) if whole else is_exclusive(epoch):
            raise Busy(f"Session {session.id!r} is leased; nothing was archived.", session=session.id, advice=_LEASED)

    def _written(self, session: SessionKey) -> Busy:
        return Busy(f"Session {session.id!r} was written to while it was archived; it stays as it is.", session=session.id, advice=_AGAIN)

    def _overtaken(self, session: SessionKey) -> Busy:
        return Busy(f"Other archivers of session {session.id!r} were faster; nothing was lost.", session=session.id, advice=_AGAIN)


_LEASED = "Archive it when its holder has released it."
_AGAIN = "Archive it again later."
