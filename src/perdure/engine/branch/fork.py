"""Forks: a pin on the parent and a chain that goes on from it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from perdure.backends.spi import Backend, Durability, Head
from perdure.codec.records import Base
from perdure.engine.read.reader import FORKED, Reader
from perdure.engine.write.committer import Committer
from perdure.errors import Invalid, NotFound
from perdure.model.commit import Commit, Kind, Status
from perdure.model.events import Event
from perdure.model.ids import SessionKey

PINNED = "pinned"
"""The event on the parent: data {fork, version}."""


async def fork(
    committer: Committer,
    reader: Reader,
    session: SessionKey,
    head: Head,
    at: int,
    child: SessionKey,
    actor: str | None,
    durability: Durability,
) -> None:
    """Pin the parent at `at`, in the life of `head`, then start the child. A crash in between leaves a pin alone: harmless."""
    parent = await _commit_at(reader, session, at)
    pinned = Event(PINNED, {"fork": child.id, "version": at})
    await committer.control(session, Kind.pin, pinned, actor=actor, durability=durability, seen=head)
    event = Event(FORKED, {"session": session.id, "version": at, "hash": parent.hash.hex()})
    base = Base(at, parent.hash, parent.at, parent.epoch)
    await committer.control(child, Kind.configure, event, actor=actor, durability=durability, base=base)


async def _commit_at(reader: Reader, session: SessionKey, version: int) -> Commit:
    if (commit := await reader.commit(session, version)) is not None:
        return commit
    raise NotFound(f"Session {session.id!r} has no version {version}.", session=session.id)


async def purge(backend: Backend, reader: Reader, session: SessionKey) -> None:
    """Drop all of a deleted session but its stub. Raises `NotFound`, and `Invalid` while it is alive, or a fork needs it."""
    (head,) = await backend.heads([session])
    if head is None:
        raise NotFound(f"There is no session {session.id!r}.", session=session.id)
    if head.status != Status.deleted:
        raise Invalid(f"Session {session.id!r} is not deleted: delete it before it is purged.", session=session.id)
    if forks := [name async for name in _forks(reader, session)]:
        raise Invalid(
            f"Session {session.id!r} has forks that read their past from it: delete and purge {', '.join(map(repr, forks))} first.",
            session=session.id,
        )
    await backend.purge(session)


async def _forks(reader: Reader, session: SessionKey) -> AsyncGenerator[str, None]:
    """The forks of a session that still read through it: those that were not purged, and go on from it in their first record."""
    async for commit in reader.own(session):
        for event in commit.events if commit.kind is Kind.pin else ():
            child = SessionKey(session.tenant, event.data["fork"])
            first = await reader.own_first(child)
            origin = first.events[0] if first is not None and first.kind is Kind.configure else Event("")
            if origin.type == FORKED and origin.data["session"] == session.id:
                yield child.id
