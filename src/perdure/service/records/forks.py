"""A fork that a client starts: whether its parent has the commit that it goes on from, and a pin for it; and its own snapshot."""

from __future__ import annotations

from contextlib import aclosing

from perdure.codec.records import Base
from perdure.engine.branch.fork import PINNED
from perdure.engine.core import Core
from perdure.engine.read.bodies import nothing
from perdure.errors import Deleted, Error, Invalid, NotFound
from perdure.model.anchor import anchor_of
from perdure.model.commit import Commit, Kind, Status
from perdure.model.ids import SessionKey
from perdure.model.lifecycle import policy_of
from perdure.service.records.rules import Origin

PINS_MAX = 10_000
"""How many commits of the parent are looked at for the pin, from the newest."""


async def base(core: Core, session: SessionKey, origin: Origin, first: Commit) -> Base:
    """The parent's commit that a fork goes on from. Raises `Invalid`, `NotFound`, `Deleted`, `Truncated`."""
    parent = SessionKey(session.tenant, origin.session)
    current = await core.reader.read_head(parent)
    if current is None:
        raise NotFound(f"There is no session {parent.id!r} to fork.", session=parent.id)
    if current.head.status == Status.deleted or origin.version <= await core.reader.incarnation_start(parent, current.head):
        raise Deleted(f"Version {origin.version} of session {parent.id!r} was deleted: nothing is forked from it.", session=parent.id)
    commit = await core.reader.commit(parent, origin.version)
    if commit is None or commit.hash != first.prev:
        raise Invalid(f"Session {parent.id!r} has no commit of version {origin.version} with the hash that the fork {session.id!r} names.")
    async with aclosing(core.reader.commits(parent, after=origin.version, newest_first=True, need=nothing)) as commits:
        seen = 0
        async for found in commits:
            if found.kind is Kind.pin and any(_is_pin(event.type, event.data, session.id, origin.version) for event in found.events):
                return Base(commit.version, commit.hash, commit.at, commit.epoch)
            seen += 1
            if seen == PINS_MAX:
                break
    raise Invalid(f"Session {parent.id!r} has no pin for the fork {session.id!r} at version {origin.version}.")


def _is_pin(type: str, data: object, fork: str, version: int) -> bool:
    return type == PINNED and data == {"fork": fork, "version": version}


async def keep_snapshot(core: Core, session: SessionKey, origin: Origin) -> None:
    """Give a fork a snapshot of its own where commits of its parent go, or went."""
    try:
        parent = await core.reader.read_head(SessionKey(session.tenant, origin.session))
        policy = None if parent is None else policy_of(parent.control)
        anchor = None if parent is None else anchor_of(parent.control)
        if (policy is None or not policy.drop) and (anchor is None or not anchor.dropped):
            return
        child = await core.reader.read_head(session)
        if child is not None:
            await core.backend.put_snapshot(session, core.codec.encode_snapshot(session, child.head.version, child.head.hash, child.state))
    except Error:
        return  # It is made again from the parent's snapshots as long as those are there.
