"""`merge`: a fork into its parent. What each side did since they parted is taken from the two logs, and rebased on the very head that the
merge commit follows. Everything is decided again for each head that is tried.

The first merge rebases the fork's operations, made on the state at the fork, over the parent's. A later one starts from the fork's state
at the merge before: there the parent's operations stand as they are *after* the ones merged already (`behind`), which is checked against
the parent's state at that merge. Where that is not known, because a policy decided a conflict, the two states are compared, by keys alone:
a list that differs counts as replaced, so that no element is taken for another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from perdure.backends.spi import Durability, Head
from perdure.codec.out_of_line import BodyReference
from perdure.engine.calls.read import read_live
from perdure.engine.context import Context
from perdure.engine.core import Core
from perdure.engine.leasing.lease import Lease
from perdure.engine.options import Options, ask, check_options
from perdure.engine.read.cache import CachedState
from perdure.engine.read.chains import FORKED
from perdure.engine.read.reader import Reader
from perdure.engine.views import Receipt
from perdure.engine.write.request import Mode, WriteRequest
from perdure.errors import Conflict, Deleted, Invalid, NotFound, Rewound
from perdure.model.commit import Commit, Kind
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.model.merge import rebase, transform_theirs
from perdure.model.ops import Op
from perdure.model.pointer import PATH_BYTES_MAX, PATH_TOKENS_MAX, escape
from perdure.model.policy import Clash, OnConflict
from perdure.model.state import apply
from perdure.model.values import same

MERGED = "merged"
"""The event of a merge commit: data {session, version, hash} name what was taken in, and are the next merge's base."""


async def merge(
    context: Context,
    session: str,
    into: str,
    on_conflict: OnConflict,
    key: str | None,
    actor: str | None,
    durability: Durability | str | None,
    lease: Lease | None,
) -> Receipt | None:
    """See `Store.merge`."""
    core, source, target = context.opened(), context.key(session), context.key(into)
    policy: OnConflict = on_conflict if callable(on_conflict) else "merge"
    check_options(Options(on_conflict=on_conflict))
    options = check_options(Options(key=key, actor=actor, on_conflict=policy, create=False, fence=context.fence(lease, target)))
    level = context.durability(durability)
    with core.telemetry.span("merge", *target):
        await core.settled(source, target)
        await read_live(core, source)
        await read_live(core, target)
        return await _commit(core, source, target, options, level)


async def _commit(core: Core, source: SessionKey, into: SessionKey, options: Options, durability: Durability) -> Receipt | None:
    """Carry what `source` did since the fork (or the last merge) over what `into` did; `None` when there is nothing new."""
    merging, committer = Merging(core.reader, source, into, options), core.committer
    request = WriteRequest(
        session=into,
        events=(Event(MERGED),),
        mode=Mode.rebase,
        options=options,
        durability=durability,
        operation="merge",
        compare_request=True,
        asked=(Event(MERGED, {"session": source.id}),),
        decide=merging.decide,
    )
    if (receipt := await core.keys.applied(request)) is not None:
        return receipt
    try:
        return await committer.commit(request)
    except NothingNewError:
        return await core.keys.applied(request)


class NothingNewError(Exception):
    """The parent has all that the fork did."""


class _Did(msgspec.Struct, frozen=True):
    """A commit of one of the two sides, as far as merging looks at it."""

    version: int
    hash: bytes
    ops: tuple[Op, ...]
    data: bool


class Merging:
    """One merge on its way. `base` is the fork's state at its version `at`, up to which the parent has it; `theirs` are the parent's own
    operations as they stand on `base`; `seen` is the parent's commit up to which that holds.
    """

    def __init__(self, reader: Reader, source: SessionKey, into: SessionKey, options: Options) -> None:
        self._reader, self._source, self._into, self._policy = reader, source, into, options.on_conflict
        self._mine: list[_Did] = []
        self._forked = self._at = 0
        self._base: Any = None
        self._theirs: list[Op] = []
        self._seen: tuple[int, bytes] = (0, b"")

    async def decide(self, now: CachedState) -> tuple[Event, ...]:
        """The events of the merge commit that follows the parent's head. Raises `Invalid`, `Conflict`, `Rewound`, and `NothingNewError`."""
        origin = await self._reader.read_head(self._source)
        if origin is None:
            raise NotFound(f"There is no session {self._source.id!r}.", session=self._source.id)
        await self._look_at_source(origin.head)
        await self._look_at_target(now.head)
        new = [did for did in self._mine if did.version > self._at and did.data]
        if not new:
            raise NothingNewError
        ops = self._combine([op for did in new for op in did.ops], now)
        return (Event(MERGED, {"session": self._source.id, "version": origin.head.version, "hash": origin.head.hash.hex()}, tuple(ops)),)

    async def _look_at_source(self, head: Head) -> None:
        """Read what the fork did since the last look: all of it, the first time."""
        if not self._mine:
            first = await self._reader.own_first(self._source)
            if first is None or first.kind is not Kind.configure or first.events[0].type != FORKED:
                raise self._no_fork(f"was not forked from {self._into.id!r}")
            parent, self._at, hash = (first.events[0].data[name] for name in ("session", "version", "hash"))
            if parent != self._into.id:
                raise self._no_fork(f"was not forked from {self._into.id!r}")
            self._forked = self._at
            self._seen = self._at, bytes.fromhex(hash)
            self._base = (await self._reader.at(self._source, self._at))[0].state
        last = self._mine[-1].version if self._mine else self._forked
        async for commit in self._reader.commits(self._source, after=last, before=head.version + 1, need=_merges):
            if commit.kind is Kind.tombstone:
                if commit.version == head.version:
                    raise Deleted(f"Session {self._source.id!r} was deleted at version {head.version}.", session=self._source.id)
                raise self._no_fork(
                    f"was deleted at version {commit.version} and created again: it is no longer a fork of {self._into.id!r}"
                )
            if self._mine and commit.prev != self._mine[-1].hash:
                raise self._rewound(self._source, last)
            self._mine.append(_did(commit))

    def _no_fork(self, why: str) -> Invalid:
        return Invalid(f"Session {self._source.id!r} {why}. Only a fork can be merged into its parent.", session=self._source.id)

    async def _look_at_target(self, head: Head) -> None:
        """Read what the parent did since the last look."""
        life = await self._reader.incarnation_start(self._into, head)
        if self._forked <= life:
            raise self._no_fork(f"was forked from a life of {self._into.id!r} that ended at version {life}")
        if head.version < self._seen[0] or (head.version == self._seen[0] and head.hash != self._seen[1]):
            raise self._rewound(self._into, self._seen[0])
        async for commit in self._reader.commits(self._into, after=self._seen[0], before=head.version + 1, need=_merges):
            if commit.version == self._seen[0] + 1 and commit.prev != self._seen[1]:
                raise self._rewound(self._into, self._seen[0])
            if commit.kind is Kind.tombstone:
                raise self._no_fork(f"was forked from a life of {self._into.id!r} that ended at version {commit.version}")
            if (merged := self._merged(commit)) is not None:
                await self._step_over(commit, merged)
            else:
                self._theirs += _did(commit).ops
            self._seen = commit.version, commit.hash

    def _rewound(self, session: SessionKey, version: int) -> Rewound:
        return Rewound(f"Session {session.id!r} no longer has the commit at version {version} that this merge rests on.")

    def _merged(self, commit: Commit) -> int | None:
        """The version of the fork that this commit took in. Anyone may name an event so: only a true hash makes it a merge."""
        for event in commit.events:
            data = event.data
            if event.type == MERGED and isinstance(data, dict) and data.get("session") == self._source.id:
                version: Any = data.get("version")
                known = type(version) is int and self._at < version <= self._forked + len(self._mine)
                if known and self._mine[version - self._forked - 1].hash.hex() == data.get("hash"):
                    return int(version)
        return None

    async def _step_over(self, commit: Commit, version: int) -> None:
        """Go on from the fork's state that an earlier merge took in."""
        part = [op for did in self._mine if self._at < did.version <= version for op in did.ops]
        moved = transform_theirs(self._base, part, self._theirs)
        self._base, self._at = apply(self._base, part), version
        target = (await self._reader.at(self._into, commit.version))[0].state
        if moved is None or not same(apply(self._base, moved), target):
            moved = tuple(by_keys(self._base, target))
        self._theirs = list(moved)

    def _combine(self, mine: Sequence[Op], now: CachedState) -> Sequence[Op]:
        result = rebase(self._base, mine, self._theirs, now.state)
        if not result.clashes:
            return result.ops
        if callable(self._policy):
            return ask(self._policy, Clash(self._base, now.state, mine, self._theirs, result.clashes))
        where = ", ".join(path or "the whole state" for path in result.clashes)
        raise Conflict(
            f"Session {self._source.id!r} and {self._into.id!r} both changed {where} since they parted.",
            session=self._into.id,
            expected=now.head.version,
            actual=now.head.version,
            commits=(),
            paths=result.clashes,
        )


def _merges(reference: BodyReference) -> bool:
    """Whether merging looks at the events of such a body."""
    return reference.has_ops or reference.has_any(frozenset({MERGED}))


def _did(commit: Commit) -> _Did:
    data = commit.kind is Kind.data
    return _Did(commit.version, commit.hash, tuple([op for event in commit.events for op in event.ops]) if data else (), data)


def by_keys(old: Any, new: Any, path: str = "") -> Iterator[Op]:
    """The operations that turn `old` into `new`, by keys of objects alone: a list that differs is replaced."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        if not same(old, new):
            yield Op("set", path, new)
        return
    paths = {key: f"{path}/{escape(key)}" for key in {*old, *new}}
    if any(len(at.encode()) > PATH_BYTES_MAX for at in paths.values()) or path.count("/") == PATH_TOKENS_MAX:
        yield Op("set", path, new)
        return
    for key in sorted(paths):
        if key not in new:
            yield Op("remove", paths[key])
        elif key not in old:
            yield Op("set", paths[key], new[key])
        else:
            yield from by_keys(old[key], new[key], paths[key])
