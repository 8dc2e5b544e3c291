"""What becomes of a write on the newest state: a plan for a commit that follows it, or a conflict. Pure: no engine is asked.

seen     the state that the request's operations were made on, or were last rebased onto
current  the newest state
theirs   the commits between the two
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from perdure.backends.spi import Head, Record
from perdure.codec.records import Proposal
from perdure.engine.options import ask
from perdure.engine.read.cache import CachedState
from perdure.engine.write.request import EVENTS, NOTHING, Mode, WriteRequest, check_head
from perdure.errors import Conflict, Error, Rewound
from perdure.model.commit import Commit, Kind, Status
from perdure.model.epoch import raised
from perdure.model.events import Event
from perdure.model.fence import epoch_after, is_undecided
from perdure.model.ids import SessionKey
from perdure.model.lifecycle import Begin
from perdure.model.merge import rebase
from perdure.model.ops import Op
from perdure.model.policy import Clash
from perdure.model.state import MISSING, TestFailed, apply, lookup
from perdure.model.values import same

RECREATED = "It was deleted and created again in between; "
"""What a conflict says first when a tombstone lies between."""
_ACTIVE, _ARCHIVED, _DELETED = int(Status.active), int(Status.archived), int(Status.deleted)


class Plan(NamedTuple):
    """A commit that fits the newest state."""

    request: WriteRequest
    """The request, with its events as they are after rebasing."""
    seen: CachedState | None
    """The state that they follow; `None`: no session yet."""
    state: Any
    """The state that they make."""


class Incarnation(NamedTuple):
    """The life of a session that a write is meant for."""

    tombstone: int
    """The version of the tombstone after which it began."""
    grant: int
    """The fencing token that the tombstone left."""


def missing_after(request: WriteRequest, seen: CachedState | None, current: CachedState | None) -> int | None:
    """The version after which `resolve` needs the others' commits; `None` where it needs none."""
    seen = _base(request, seen, current)
    if request.mode is Mode.any_state or seen is None or current is None or current.head.version <= seen.head.version:
        return None
    return None if request.mode is Mode.exact and current.head.data > seen.head.version else seen.head.version


def resolve(request: WriteRequest, seen: CachedState | None, current: CachedState | None, theirs: Sequence[Commit]) -> Plan | Conflict:
    """The commit that may follow `current`, or why there is none.

    A conflict has no `commits` yet. Raises what the head forbids (see `check_head`), `Rewound` if `theirs` do not follow `seen`, `Conflict`
    if a `test` does not hold, and what the caller's policy raises.
    """
    if current is not None:
        check_writable(request, current.head)
        deleted = current.head.status == _DELETED and seen is not None and seen.head.status != _DELETED
        if deleted and request.mode is not Mode.any_state and request.ops:
            return conflict(request, current.head)
    seen = _base(request, seen, current)
    if request.mode is Mode.any_state or current is None or seen is None or current.head.version <= seen.head.version:
        if seen is None or current is None or seen.head.hash != current.head.hash:
            seen = current
        return applied(request, seen)
    moved = current.head.data > seen.head.version
    if moved and request.mode is Mode.exact:
        return conflict(request, current.head)
    ops = _operations(request, seen, theirs)
    if ops is None:
        return conflict(request, current.head, RECREATED)
    if moved and request.options.on_conflict == "raise":
        return conflict(request, current.head)
    changed = [path for path in request.requires if not same(_value(seen.state, path), _value(current.state, path))]
    if changed:
        return conflict(request, current.head, paths=changed)
    return _rebased(request, seen, current, ops)


def check_writable(request: WriteRequest, head: Head | None) -> None:
    """Raise what a head forbids, whatever the policy: see `check_head`; and `Fenced`."""
    check_head(request.session, head, request.options)
    if not is_undecided(head, request.options.fence):
        epoch_after(request.session, head, request.options.fence)


def applied(request: WriteRequest, seen: CachedState | None) -> Plan:
    """The plan for a state that the events fit as they are. Raises `Conflict` if a `test` does not hold."""
    if request.after is not MISSING and seen is request.base:
        return Plan(request, seen, request.after)
    state = {} if seen is None else seen.state
    try:
        return Plan(request, seen, apply(state, request.ops))
    except TestFailed as error:
        raise Conflict(
            f"A test on {error.path!r} does not hold in session {request.session.id!r}.",
            session=request.session.id,
            test=error.path,
            expected=request.expected_version or 0,
            actual=0 if seen is None else seen.head.version,
            commits=(),
            paths=(error.path,),
        ) from None


def _base(request: WriteRequest, seen: CachedState | None, current: CachedState | None) -> CachedState | None:
    """What was seen. Where a session was started after the caller saw none, its commits count from the first one."""
    if seen is None and current is not None and request.mode is not Mode.any_state and current.head.status != _DELETED:
        return NOTHING
    return seen


def _operations(request: WriteRequest, seen: CachedState, theirs: Sequence[Commit]) -> list[Op] | None:
    """The others' operations; `None` where one of their commits is a tombstone."""
    if theirs and seen is not NOTHING and theirs[0].version == seen.head.version + 1 and theirs[0].prev != seen.head.hash:
        raise rewound(request, seen.head)
    if any(commit.kind is Kind.tombstone for commit in theirs):
        return None
    return [op for commit in theirs if commit.kind is Kind.data for event in commit.events for op in event.ops]


def _rebased(request: WriteRequest, seen: CachedState, current: CachedState, theirs: Sequence[Op]) -> Plan | Conflict:
    mine, policy = request.ops, request.options.on_conflict
    result = rebase(seen.state, mine, theirs, current.state)
    if not result.clashes:
        events = _with_parts(request.events, result.parts)
        return Plan(msgspec.structs.replace(request, events=events, after=MISSING), current, result.state)
    if not callable(policy):
        return conflict(request, current.head, paths=result.clashes)
    answer = ask(policy, Clash(seen.state, current.state, mine, theirs, result.clashes))
    return applied(msgspec.structs.replace(request, events=_with_answer(request.events, answer), after=MISSING), current)


def _value(state: Any, path: str) -> Any:
    """The value at a path, or `MISSING`."""
    try:
        return lookup(state, path)
    except KeyError:
        return MISSING


def _with_parts(events: Sequence[Event], parts: Sequence[Sequence[Op]]) -> tuple[Event, ...]:
    """The events with their operations as rebased: each part came from one operation."""
    rebased, start = [], 0
    for event in events:
        mine = parts[start : start + len(event.ops)]
        start += len(event.ops)
        rebased.append(Event(event.type, event.data, tuple([op for part in mine for op in part])))
    return tuple(rebased)


def _with_answer(events: Sequence[Event], ops: tuple[Op, ...]) -> tuple[Event, ...]:
    """The events with the policy's operations in place of the conflicting ones. They stand on the last event that had operations."""
    last = max(index for index, event in enumerate(events) if event.ops)
    return tuple(Event(event.type, event.data, ops if index == last else ()) for index, event in enumerate(events))


class OtherLife(Error):
    """The session's grant is not the one that the commit's body was stored under: nothing was written. Store the body again."""


class Finish(msgspec.Struct, frozen=True):
    """What an engine calls with the head that the commit would follow: it gives the record, or refuses the head. See `spi.Append`.

    An object, and no function inside of one: that would be a dozen objects for each write.
    """

    request: WriteRequest
    seen: CachedState | None
    expected: int | None
    incarnation: Incarnation | None
    proposal: Proposal
    now: int
    life: int | None = None
    """The grant under which the body was stored out of line; on a head with another one it raises `OtherLife`."""
    begins: Callable[[SessionKey, Begin | None], bool] | None = None
    """Asked before it starts a session, whether what the session begins with has to be looked up first: then it refuses."""

    def __call__(self, head: Head | None) -> Sequence[Record] | None:
        request, proposal = self.request, self.proposal
        session, options, incarnation, life = request.session, request.options, self.incarnation, self.life
        fence = options.fence
        check_head(session, head, options)
        if (fence is not None and is_undecided(head, fence)) or (head is not None and head.status == _ARCHIVED):
            return None
        if request.grant is not None and request.grant != (0 if head is None else raised(head.epoch, 0)):
            raise conflict(request, head, RECREATED)
        epoch = epoch_after(session, head, fence)
        if incarnation is not None and (head is None or raised(head.epoch, 0) != incarnation.grant):
            return None
        if head is None:
            if self.seen is not None and request.mode is not EVENTS:
                raise rewound(request, self.seen.head)
            if life:
                raise OtherLife(life=0)
            return None if self._must_ask() else (proposal.finish(None, self.now),)
        if not fits(request, head, self.seen, self.expected):
            return None
        if life is not None and life != (grant := raised(head.epoch, 0)):
            raise OtherLife(life=grant)
        if head.status == _DELETED and options.begin is not None and self._must_ask():
            return None
        return (proposal.finish(head, self.now, status=_ACTIVE if head.status == _DELETED else None, epoch=epoch),)

    def _must_ask(self) -> bool:
        return self.begins is not None and self.begins(self.request.session, self.request.options.begin)


def following(
    request: WriteRequest, proven: tuple[int, bytes] | None, finish: Callable[[Head | None], Sequence[Record] | None]
) -> Callable[[Head | None], Sequence[Record] | None]:
    """The same, for a caller who decided on a commit with a certain hash: a head is refused until that commit is `proven` to be on its
    chain. Raises `Rewound` where another commit has its place."""
    expect, hash = request.options.expect, request.options.expect_hash

    def finish_after(head: Head | None) -> Sequence[Record] | None:
        check_head(request.session, head, request.options)
        if head is not None and (head.version, head.hash) not in (proven, (expect, hash)):
            if head.version == expect:
                raise lost_commit(request)
            return None
        return finish(head)

    return finish_after


def lost_commit(request: WriteRequest) -> Rewound:
    """The error for a chain on which the expected version is another commit."""
    expect, hash = request.options.expect, request.options.expect_hash or b""
    return Rewound(
        f"Version {expect} of session {request.session.id!r} is not the commit {hash.hex()[:12]} that you decided on.",
        session=request.session.id,
    )


def fits(request: WriteRequest, head: Head, seen: CachedState | None, expected: int | None) -> bool:
    """Whether a head has what the commit was made for: no later data commit, or the very state."""
    if request.mode is EVENTS:
        return expected is None or head.data <= expected
    return _has_state(head, seen)


def _has_state(head: Head, seen: CachedState | None) -> bool:
    """Whether a head has the state that was seen: it is that head, or only control commits follow it."""
    if seen is None:
        return False
    mine = seen.head
    if head.version == mine.version:
        return head.hash == mine.hash
    return head.version > mine.version and head.data <= mine.data and (head.status == _DELETED) == (mine.status == _DELETED)


def conflict(request: WriteRequest, head: Head | None, why: str = "", paths: Sequence[str] = ()) -> Conflict:
    """The error for a request that does not fit this head. Its `commits` are filled in by the committer, which can read them."""
    expected, actual = request.expected_version or 0, head.version if head else 0
    where = f" on {', '.join(path or 'the whole state' for path in paths)}" if paths else ""
    return Conflict(
        f"{why}Session {request.session.id!r} moved from version {expected} to {actual} and your change does not combine with that{where}.",
        session=request.session.id,
        expected=expected,
        actual=actual,
        commits=(),
        paths=tuple(paths),
    )


def rewound(request: WriteRequest, seen: Head) -> Rewound:
    """The error for a chain that has lost the commit that the caller saw."""
    return Rewound(
        f"Session {request.session.id!r} no longer has the commit that this change was made on: "
        f"version {seen.version}, {seen.hash.hex()[:12]}."
    )
