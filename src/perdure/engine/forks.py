"""Forks and their merges: a pin on the parent and a chain that goes on from it; a merge commit that names what it took in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perdure.backends.spi import Durability
from perdure.engine.cache import Working
from perdure.engine.change import Change
from perdure.engine.committer import Committer
from perdure.engine.intent import Options, ask
from perdure.engine.reader import FORKED, Reader
from perdure.engine.views import Receipt
from perdure.errors import Conflict, Invalid, NotFound
from perdure.model.commit import Commit, Kind
from perdure.model.diff import diff
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.model.merge import rebase
from perdure.model.ops import Op
from perdure.model.policy import Clash, OnConflict

PINNED = "pinned"
"""The event on the parent: data {fork, version}."""
MERGED = "merged"
"""The event of a merge commit: data {session, version, hash} name what was taken in, and are the next merge's base."""


async def fork(
    committer: Committer, reader: Reader, session: SessionKey, at: int, child: SessionKey, actor: str | None, durability: Durability
) -> None:
    """Pin the parent at `at`, then start the child behind it. A crash between the two leaves a pin without a fork: harmless."""
    parent = await _commit_at(reader, session, at)
    await committer.control(session, Kind.pin, Event(PINNED, {"fork": child.id, "version": at}), actor=actor, durability=durability)
    event = Event(FORKED, {"session": session.id, "version": at, "hash": parent.hash.hex()})
    await committer.control(child, Kind.configure, event, actor=actor, durability=durability, base=(at, parent.hash, parent.at))


async def _commit_at(reader: Reader, session: SessionKey, version: int) -> Commit:
    async for commit in reader.commits(session, after=version - 1, before=version + 1):
        return commit
    raise NotFound(f"Session {session.id!r} has no version {version}.", session=session.id)


async def merge(
    committer: Committer,
    reader: Reader,
    source: SessionKey,
    into: SessionKey,
    options: Options,
    durability: Durability,
) -> Receipt | None:
    """Carry what `source` did since the fork (or the last merge) over what `into` did; `None` when there is nothing new."""
    origin = await reader.strong(source)
    target = await reader.strong(into)
    if origin is None or target is None:
        raise NotFound(f"There is no session {(source if origin is None else into).id!r}.")
    version = await _base_version(reader, source, into)
    base, _ = await reader.at(source, version)
    mine: list[Op] = []
    async for commit in reader.commits(source, after=version, before=origin.head.version + 1):
        if commit.kind is Kind.data:
            mine += [op for event in commit.events for op in event.ops]
    if origin.head.data <= version:
        return None
    ops = _combine(base.state, target, mine, options.on_conflict, source, into)
    data = {"session": source.id, "version": origin.head.version, "hash": origin.head.hash.hex()}
    change = Change(
        session=into,
        events=(Event(MERGED, data, tuple(ops)),),
        options=options,
        durability=durability,
        base=target,
        seen=target.head.version,
        operation="merge",
    )
    return await committer.commit(change)


def _combine(base: Any, target: Working, mine: Sequence[Op], policy: OnConflict, source: SessionKey, into: SessionKey) -> Sequence[Op]:
    theirs = diff(base, target.state)
    result = rebase(base, mine, theirs, target.state)
    if not result.clashes:
        return result.ops
    if callable(policy):
        return ask(policy, Clash(base, target.state, mine, theirs, result.clashes))
    raise Conflict(
        f"Session {source.id!r} and {into.id!r} both changed {', '.join(result.clashes)} since they parted.",
        session=into.id,
        expected=target.head.version,
        actual=target.head.version,
        commits=(),
        paths=result.clashes,
    )


async def _base_version(reader: Reader, source: SessionKey, into: SessionKey) -> int:
    """The version of `source` up to which `into` has it: the last merge's, else the fork's."""
    first = await reader.own_first(source)
    if first is None or first.kind is not Kind.configure or first.events[0].type != FORKED or first.events[0].data["session"] != into.id:
        raise Invalid(f"Session {source.id!r} was not forked from {into.id!r}: only a fork can be merged into its parent.")
    forked = int(first.events[0].data["version"])
    async for commit in reader.commits(into, after=forked, newest_first=True):
        for event in commit.events:
            if event.type == MERGED and (version := _merged_version(event.data, source)) > forked:
                taken = [found.hash.hex() async for found in reader.commits(source, after=version - 1, before=version + 1)]
                if taken == [event.data["hash"]]:  # Anyone may name an event so: only a true hash makes it a merge.
                    return version
    return forked


def _merged_version(data: Any, source: SessionKey) -> int:
    """The version of `source` that a merge event names; 0 if it is none of `source`."""
    if not isinstance(data, dict) or data.get("session") != source.id or not isinstance(data.get("hash"), str):
        return 0
    version = data.get("version")
    return version if type(version) is int and version < 1 << 62 else 0
