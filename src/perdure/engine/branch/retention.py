"""Retention inside a session: what lies below an anchor is dropped for good.

anchor      a control commit that names the newest commit to be dropped, with its hash, and the digest of the snapshot that stands for what
            goes. It carries what only the dropped commits said: tags, policy, where a fork came from, where the session's life began
order       snapshot, anchor, truncation. What a crash leaves undone the next call does: the anchor says what may go
forks       one that reads its past here stops truncation, until it is purged or has a snapshot of its own. A fork that is about to start
            has its pin here first: a pin that came since the last look may still get its fork
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any

import msgspec

from perdure.backends.spi import Row, Snapshot
from perdure.engine.core import Core
from perdure.engine.read.anchors import ANCHOR, ANCHORED, Anchor, anchor_of
from perdure.engine.read.bodies import nothing
from perdure.engine.read.cache import CachedState
from perdure.engine.read.reader import is_forked
from perdure.engine.write.controls import Basis, ControlChange, ControlCommit
from perdure.errors import NotFound, Truncated
from perdure.model.commit import Commit, Kind, Status
from perdure.model.control import CONTROL, decode_control
from perdure.model.epoch import is_exclusive
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.model.lifecycle import LOOK, Look, Policy, policy_of

TRIES = 8
"""How often an anchor is decided again, where other commits come first."""
SLACK_PARTS = 10
"""Where a number of commits is kept: a tenth of them more, and at least one, may be there before the older ones go, so that few anchors are
written, and none because of the one before."""
ANCHORS_ONLY = 8
"""So few commits are read before they are dropped: where they are anchors alone, they stay until more has come."""


class Trimmed(msgspec.Struct, frozen=True):
    """What came of it. `dropped`: how many commits went; `anchored`: whether an anchor was written; `forks`: those that stopped it;
    `overtaken`: others wrote first."""

    dropped: int = 0
    anchored: bool = False
    forks: tuple[str, ...] = ()
    overtaken: bool = False


class _Trim(msgspec.Struct, frozen=True):
    """One call: the session as it was scanned, what the sweeper saw before and sees now, and when it looks again."""

    core: Core
    row: Row
    policy: Policy
    last: Look | None
    look: Look
    due_at: int
    actor: str

    @property
    def session(self) -> SessionKey:
        return self.row.session


async def trim(core: Core, row: Row, policy: Policy, last: Look | None, look: Look, due_at: int, actor: str) -> Trimmed:
    """Drop the commits that the policy does not keep. Pins that came since the look before, `last`, stop it.

    With the anchor the index row gets `look` and `due_at`. The state, and those of the versions that a snapshot stands before, stay
    readable. Raises `Error`; then nothing was dropped, or what an anchor in the chain names.
    """
    work = _Trim(core, row, policy, last, look, due_at, actor)
    first = await core.reader.own_first(row.session)
    if first is None:
        return Trimmed()
    anchor = anchor_of(decode_control(row.control))
    dropped = 0
    if anchor is not None and first.version <= anchor.version:
        await _truncate(core, row.session, anchor, await _hash_at(core, row.session, anchor.at))
        dropped = anchor.version + 1 - first.version
    version = await last_to_drop(core, row, policy, look.at)
    if not version:
        return Trimmed(dropped)
    trimmed = await _drop(work, version)
    return msgspec.structs.replace(trimmed, dropped=dropped + trimmed.dropped)


async def last_to_drop(core: Core, row: Row, policy: Policy, now: int) -> int:
    """The newest version that the policy does not keep, at this time in nanoseconds; 0 where it keeps all, or hardly more would go."""
    session, head, version = row.session, row.head, 0
    first = await core.reader.own_first(session)
    if first is None:
        return 0
    if policy.keep_commits is not None:
        version = head.version - policy.keep_commits
        return version if version - first.version + 1 > max(1, policy.keep_commits // SLACK_PARTS) else 0
    if policy.keep_for is not None and first.at <= now - policy.keep_for:
        version = await core.reader.at_time(session, head, now - policy.keep_for, first.version - 1)
    if version < first.version + ANCHORS_ONLY:
        commits = [commit async for commit in core.reader.commits(session, after=first.version - 1, before=version + 1, need=nothing)]
        return 0 if all(commit.kind is Kind.anchor for commit in commits) else version
    return version


async def _drop(work: _Trim, version: int) -> Trimmed:
    """Write the anchor and truncate, unless a fork needs what would go."""
    core, session = work.core, work.session
    snapshot = await _standing_snapshot(core, session, version)
    first = await core.reader.own_first(session)
    if first is None:
        return Trimmed()
    before = anchor_of(decode_control(work.row.control))
    life = await core.reader.incarnation_start(session, work.row.head)
    hash = (await _hash_at(core, session, version)).hex()
    digest = hashlib.sha256(snapshot.body).hexdigest()
    scanned = first.version - 1 if before is None else before.at
    for _ in range(TRIES):
        seen = await core.reader.read_head(session)
        if seen is None or seen.head.version < scanned or _decided_otherwise(work, seen, version):
            break
        if forks := await _forks_between(work, scanned, seen.head.version):
            return Trimmed(forks=forks)
        scanned = seen.head.version
        anchor = Anchor(seen.head.version + 1, version, hash, digest, life, None if before is None else before.version)
        decide = _decision(work, seen, anchor, _origin(first))
        basis = Basis(seen.head, seen.control, life, None)
        outcome = await core.controls.change(session, decide, actor=work.actor, durability=core.durability, basis=basis)
        if outcome is not None:
            await _truncate(core, session, anchor, outcome.head.hash)
            return Trimmed(dropped=version + 1 - first.version, anchored=True)
    return Trimmed(overtaken=True)


def _decided_otherwise(work: _Trim, seen: CachedState, version: int) -> bool:
    """Whether the policy was changed meanwhile, or another sweeper has anchored this version."""
    anchor = anchor_of(seen.control)
    return policy_of(seen.control) != work.policy or (anchor is not None and anchor.version >= version)


async def _forks_between(work: _Trim, after: int, upto: int) -> tuple[str, ...]:
    """The forks that need their parent's commits, of those that these versions pin."""
    forks: list[str] = []
    young = 0 if work.last is None else work.last.version
    async with aclosing(work.core.reader.commits(work.session, after=after, before=upto + 1, need=nothing)) as commits:
        async for commit in commits:
            pinned = [event.data["fork"] for event in commit.events] if commit.kind is Kind.pin else []
            forks += [fork for fork in pinned if await _needs_parent(work.core, work.session, fork, in_progress=commit.version > young)]
    return tuple(forks)


def _origin(first: Commit) -> dict[str, Any] | None:
    """Where a fork came from, by its first commit."""
    return {name: first.events[0].data[name] for name in ("session", "version", "hash")} if is_forked(first) else None


def _decision(work: _Trim, seen: CachedState, anchor: Anchor, origin: dict[str, Any] | None) -> Callable[[Basis], ControlChange | None]:
    """The anchor for the very head whose pins were looked at, and for no other."""
    tags = dict(seen.tags)

    def decide(basis: Basis) -> ControlChange | None:
        if basis.head.hash != seen.head.hash or is_exclusive(basis.head.epoch) or basis.head.status != Status.active:
            return None
        sections = {**basis.control.sections, ANCHOR: msgspec.to_builtins(anchor), LOOK: msgspec.to_builtins(work.look)}
        event = Event(ANCHORED, {"tags": tags, "origin": origin, CONTROL: sections})
        return ControlChange((ControlCommit(kind=Kind.anchor, event=event),), due_at=work.due_at, exact=True)

    return decide


async def _hash_at(core: Core, session: SessionKey, version: int) -> bytes:
    commit = await core.reader.commit(session, version)
    if commit is None:
        raise NotFound(f"Session {session.id!r} has no version {version}.", session=session.id)
    return commit.hash


async def _standing_snapshot(core: Core, session: SessionKey, version: int) -> Snapshot:
    """The snapshot that stands for what is dropped up to a version; one at that version is made, where that state can still be read.

    Raises `Truncated` where there is none: then nothing may be dropped.
    """
    with suppress(Truncated):
        state, hash = await core.reader.at(session, version)
        await core.backend.put_snapshot(session, core.codec.encode_snapshot(session, version, hash, state.state))
    loaded = await core.backend.load(session)
    if loaded is None or loaded.snapshot is None or loaded.snapshot.version < version:
        message = f"Session {session.id!r} has no snapshot at version {version} or later: nothing was dropped."
        raise Truncated(message, session=session.id, first=version, advice="")
    core.codec.decode_snapshot(session, loaded.snapshot)
    return loaded.snapshot


async def _truncate(core: Core, session: SessionKey, anchor: Anchor, hash: bytes) -> None:
    """Drop what the anchor names, if a snapshot stands for it: bodies out of line, then records. Doing it again changes nothing."""
    await _standing_snapshot(core, session, anchor.version)
    after = 0
    while records := await core.backend.read(session, after=after, before=anchor.version + 1):
        await core.bodies.drop(session, records)
        after = records[-1].head.version
    await core.backend.truncate(session, anchor.version + 1, (anchor.at, hash))


async def _needs_parent(core: Core, session: SessionKey, fork: str, *, in_progress: bool) -> bool:
    """Whether a fork reads its past from its parent's commits. `in_progress`: its pin is so young that it may not have started yet."""
    child = SessionKey(session.tenant, fork)
    loaded = await core.backend.load(child)
    if loaded is None:
        return in_progress
    if loaded.snapshot is not None or not loaded.records or loaded.records[0].is_stub:
        return False
    origin = core.codec.open_record(child, loaded.records[0], partial=True)
    return is_forked(origin) and bool(origin.events[0].data["session"] == session.id)
