"""`fork` and `purge`. A fork is a pin on the parent, and a chain that continues from it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from perdure.backends.spi import Head, Index, indexed, served
from perdure.codec.records import Base
from perdure.engine.calls.read import read_live
from perdure.engine.context import Context
from perdure.engine.core import Core
from perdure.engine.options import VERSION_MAX, Options, check_options
from perdure.engine.read.bodies import Need
from perdure.engine.read.cache import CachedState
from perdure.engine.read.chains import FORKED
from perdure.engine.read.reader import Reader
from perdure.engine.views import Receipt
from perdure.engine.write.once import KeyAppliedError, Keyed, look_up
from perdure.engine.write.request import check_incarnation
from perdure.engine.write.starting import begin_index
from perdure.errors import AlreadyExists, Busy, Invalid, NotFound, Truncated
from perdure.model.anchor import PREPARED, PURGING, Purging, anchor_of, purging_of
from perdure.model.commit import Commit, Kind, Status
from perdure.model.control import CONTROL, Control, decode_control
from perdure.model.epoch import raised
from perdure.model.events import Event
from perdure.model.ids import SessionKey, uuid_text
from perdure.model.lifecycle import Begin, policy_of, policy_sections
from perdure.model.state import MISSING

BEGIN_TRIES = 16
"""How often a purge tries to say that it begins, while the row is changed by others."""
PINNED = "pinned"
"""The event on the parent: data {fork, version}."""


async def fork(context: Context, session: str, at: int | None, id: str | None, key: str | None, actor: str | None) -> str:
    """See `Store.fork`."""
    core = context.opened()
    parent, child = context.key(session), context.key(uuid_text(core.committer.new_id()) if id is None else id)
    check_options(Options(key=key, actor=actor))
    asked = Event(PINNED, {"at": at, "id": id})
    with core.telemetry.span("fork", *parent):
        await core.settled(parent, child)
        found = None if key is None else await look_up(core.keys, parent, key, asked, core.durability)
        if isinstance(found, Receipt):
            return await _repeated(core, parent, found.version, id, actor, context.begin)
        now = await read_live(core, parent)
        head = now.head
        version = head.version if at is None else at
        if type(version) is not int or not 1 <= version <= VERSION_MAX:
            raise Invalid(f"at must be a version from 1, not {at!r}.")
        if child == parent or (await core.backend.heads([child]))[0] is not None:
            raise _taken(child)
        check_incarnation(parent, await core.reader.incarnation_start(parent, head), version)
        try:
            await _start(core, parent, now, version, child, actor, context.begin, found)
        except KeyAppliedError:
            return await fork(context, session, at, id, key, actor)
    return child.id


def _taken(child: SessionKey) -> AlreadyExists:
    return AlreadyExists(f"Session {child.id!r} is there already.", session=child.id)


async def _repeated(core: Core, parent: SessionKey, pinned: int, id: str | None, actor: str | None, begin: Begin | None) -> str:
    """The fork of the call that used the key first, by its pin. It is started where that call was cut off. Raises `Truncated`."""
    pin = await core.reader.commit(parent, pinned)
    if pin is None or not pin.events:
        if id is not None:
            return id
        raise Truncated(f"The commit that names the fork, version {pinned} of session {parent.id!r}, was dropped.", session=parent.id)
    child, at = SessionKey(parent.tenant, pin.events[0].data["fork"]), pin.events[0].data["version"]
    if (await core.backend.heads([child]))[0] is None:
        now = await read_live(core, parent)
        try:
            state = await _state_to_keep(core, parent, now, at)
            await _start_child(core, parent, await _commit_at(core.reader, parent, at), child, actor, begin, state)
        except AlreadyExists:  # The call that used the key first was not cut off, only slow.
            pass
    first = await core.reader.own_first(child)
    if first is not None and not _goes_on(first, parent):
        raise _taken(child)
    return child.id


def _goes_on(first: Commit, parent: SessionKey) -> bool:
    """Whether a chain that begins with this commit is a fork of this session, or was purged."""
    event = first.events[0] if first.events else None
    return event is None or (event.type == FORKED and event.data["session"] == parent.id)


async def _start(
    core: Core,
    session: SessionKey,
    now: CachedState,
    at: int,
    child: SessionKey,
    actor: str | None,
    begin: Begin | None,
    keyed: Keyed | None,
) -> None:
    """Pin the parent at `at`, in the life of `now`, then start the child. A crash in between leaves only a pin, which is harmless."""
    parent = await _commit_at(core.reader, session, at)
    state = await _state_to_keep(core, session, now, at)
    pinned = Event(PINNED, {"fork": child.id, "version": at})
    await core.controls.write(session, Kind.pin, pinned, actor=actor, durability=core.durability, seen=now.head, keyed=keyed)
    await _start_child(core, session, parent, child, actor, begin, state)


async def _start_child(
    core: Core, session: SessionKey, parent: Commit, child: SessionKey, actor: str | None, begin: Begin | None, state: Any
) -> None:
    """Write the first commit of a fork that goes on from this commit of its parent, which is pinned.

    Where commits of the parent go, or went, the child gets a snapshot of its own at once: `state`, unless that is `MISSING`.
    """
    at, controls, durability = parent.version, core.controls, core.durability
    said: dict[str, Any] = {"session": session.id, "version": at, "hash": parent.hash.hex()}
    index = None
    if (policy := await core.prefixes.begins(child, begin)) is not None:
        index, _ = begin_index(policy, core.clock.now())
        said[CONTROL] = policy_sections(policy)
    base = Base(at, parent.hash, parent.at, parent.epoch)
    dropped = await _require_left(core, session, at)
    event = Event(FORKED, said)
    started = await controls.write(child, Kind.configure, event, index=index, actor=actor, durability=durability, base=base)
    if state is not MISSING:
        await core.backend.put_snapshot(child, core.codec.encode_snapshot(child, started.version, started.hash, state))
    elif dropped:
        await _keep_snapshot(core, child)


async def _state_to_keep(core: Core, session: SessionKey, now: CachedState, at: int) -> Any:
    """The state that a fork at this version keeps a snapshot of; `MISSING` where its parent keeps all commits. Raises `Truncated`."""
    policy, anchor = policy_of(now.control), anchor_of(now.control)
    if (policy is None or not policy.drop) and (anchor is None or not anchor.dropped):
        return MISSING
    return now.state if at == now.head.version else (await core.reader.at(session, at))[0].state


async def _require_left(core: Core, session: SessionKey, at: int) -> bool:
    """Judge the pin again: commits may have been dropped after the version was looked at and before the pin, which they then did not see.

    Whether the parent's chain has lost commits. Raises `Truncated`.
    """
    anchor = anchor_of((await read_live(core, session)).control)
    if anchor is None:
        return False
    if not anchor.dropped:
        return await core.chains.dropped_below(session) is not None
    if at <= anchor.version:
        first = anchor.version + 1
        message = f"Version {at} of session {session.id!r} was dropped; the first that is left is {first}."
        raise Truncated(message, session=session.id, first=first)
    return True


async def _keep_snapshot(core: Core, child: SessionKey) -> None:
    """Give a fork a snapshot of its own: the one that its parent's states are folded from does not stay for ever."""
    state = await read_live(core, child)
    await core.backend.put_snapshot(child, core.codec.encode_snapshot(child, state.head.version, state.head.hash, state.state))


async def _commit_at(reader: Reader, session: SessionKey, version: int) -> Commit:
    if (commit := await reader.commit(session, version)) is not None:
        return commit
    raise NotFound(f"Session {session.id!r} has no version {version}.", session=session.id)


async def purge(context: Context, session: str) -> None:
    """See `Store.purge`."""
    core, target = context.opened(), context.key(session)
    with core.telemetry.span("purge", *target):
        await core.settled(target)
        await purge_deleted(core, target)


async def purge_deleted(core: Core, session: SessionKey) -> None:
    """Remove a deleted session's bytes. See `Store.purge`."""
    if served(core.backend) is not None:  # A node does all of it: only nodes reach segments and bodies out of line.
        await core.backend.purge(session)
        core.cache.drop(session)
        return
    head = await _check_purge(core, session)
    if core.segments.has_place and (segments := await core.segments.list(session)):
        await _begin_purge(core, session, head)
        await core.segments.begin_purge(session, head.version)
        await core.segments.remove(session, segments)  # First these: a row that is left names them, an object is named by nothing else.
    await core.backend.purge(session)
    core.cache.drop(session)
    if core.shared is not None:
        core.shared.forget(session)
    await core.bodies.purge(session, raised(head.epoch, 0))
    if core.segments.has_place:
        await core.segments.end_purge(session, head.version)


async def _check_purge(core: Core, session: SessionKey) -> Head:
    """The tombstone's head. Raise `NotFound`, and `Invalid` while the session is alive, or a fork reads through it."""
    (head,) = await core.backend.heads([session])
    if head is None:
        raise NotFound(f"There is no session {session.id!r}.", session=session.id)
    if head.status != Status.deleted:
        raise Invalid(f"Session {session.id!r} is not deleted: delete it before it is purged.", session=session.id)
    judged = await core.segments.purged(session) if core.segments.has_place else 0
    if judged == head.version:
        return head
    if forks := [name async for name in _forks(core, session, core.bodies.refuse_unreachable, after=judged)]:
        raise Invalid(
            f"Session {session.id!r} has forks that read their past from it: delete and purge {', '.join(map(repr, forks))} first.",
            session=session.id,
            forks=tuple(forks),
        )
    return head


async def _begin_purge(core: Core, session: SessionKey, head: Head) -> None:
    """Say in the index row that segments are removed from now on: proof that the segments listed before are of no later life."""
    backend = indexed(core.backend)
    for _ in range(BEGIN_TRIES):
        loaded = await core.backend.load(session)
        if backend is None or loaded is None or loaded.row.head != head:
            break
        control = decode_control(loaded.row.control)
        if purging_of(control) == Purging(head.version):
            return
        cell = Control({**control.sections, PURGING: msgspec.to_builtins(Purging(head.version))}).encode()
        if await backend.change_index(loaded.row, Index(control=cell)):
            return
    raise Busy(f"Session {session.id!r} was written to while its purge began; nothing was removed.", session=session.id)


async def _forks(core: Core, session: SessionKey, need: Need, *, after: int) -> AsyncGenerator[str, None]:
    """The forks of a session that still read through it, by pins after a version: those that were not purged, and go on from it in their
    first record.

    Raises `Unsupported` for a session that may have segments, where there is no place for them.
    """
    reader = core.reader
    async for commit in reader.commits(session, after=after, need=need) if after else reader.own(session, need):
        if commit.kind is Kind.anchor and any(event.type == PREPARED for event in commit.events):
            core.segments.place(session)
        for event in commit.events if commit.kind is Kind.pin else ():
            child = SessionKey(session.tenant, event.data["fork"])
            first = await reader.own_first(child)
            origin = first.events[0] if first is not None and first.kind is Kind.configure else Event("")
            if origin.type == FORKED and origin.data["session"] == session.id:
                yield child.id
