"""Whether records are what their writer says: everything that can be known without the engine. Pure; nobody is trusted.

A record's hash is computed again from its columns and its body, and what follows from the commits before it (its status and the version of
the newest data commit, which no hash covers) is made again, where the head is certain. See `service.records.verified`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from perdure.codec import envelope, out_of_line
from perdure.codec.codec import Codec
from perdure.codec.records import PREV_BYTES, Base, decode_meta, encode_meta
from perdure.engine.options import VERSION_MAX, check_events
from perdure.engine.read.chains import FORKED
from perdure.engine.write.request import has_ops
from perdure.errors import Corrupt, Deleted, Invalid, Moved, TooLarge
from perdure.model.commit import GENESIS, Commit, Kind, Status, derive_status
from perdure.model.epoch import raised
from perdure.model.ids import SessionKey, check_name
from perdure.model.record import Durability, Head, Record
from perdure.model.timestamps import rfc3339
from perdure.service.records.rules import Origin, check_epoch, check_said, origin_of
from perdure.wire.records import RECORDS_MAX, Attempt

AHEAD_MAX = 24 * 3600 * 10**9
"""How far the time of a commit may lie ahead of the node's, in nanoseconds."""
UNPACKED_MAX = 64 << 20
"""Most bytes that the bodies of one request may have, uncompressed."""
_ID_BYTES, _REQUEST_BYTES, _TRACE_CHARS = 16, (0, 16), 256
_LIFE_KEY = re.compile(r"[0-9]{1,19}\x1f")
_STATE_FREE = (Kind.data, Kind.pin)
_KINDS, _DURABILITIES = frozenset(map(int, Kind)), frozenset(map(int, Durability))


class Checked(NamedTuple):
    """An attempt whose records are sound, and follow one another and the head that it expects."""

    attempt: Attempt
    commits: tuple[Commit, ...]
    origin: Origin | None
    """Where the session was forked from, if this starts a fork."""

    @property
    def session(self) -> SessionKey:
        return self.attempt.session

    @property
    def has_ops(self) -> bool:
        """Whether a data commit changes the state."""
        return any(commit.kind is Kind.data and has_ops(commit.events) for commit in self.commits)

    @property
    def needs_state(self) -> bool:
        """Whether it takes more than the head to judge it: the state, or what control commits say of the session."""
        return any(commit.kind not in _STATE_FREE or has_ops(commit.events) for commit in self.commits)


def unpacked_bytes(attempts: Sequence[Attempt]) -> int:
    """How many bytes the bodies say they have, uncompressed. Nothing is decompressed."""
    return sum(envelope.payload_bytes(record.body) for attempt in attempts for record in attempt.records if len(record.body) > 3)


def check_attempt(codec: Codec, attempt: Attempt, now: int, bytes_max: int) -> Checked:
    """Check what needs no engine. `now` is the node's time in nanoseconds, `bytes_max` the engine's largest record.

    Raises `Invalid`, `TooLarge`.
    """
    session, records = attempt.session, attempt.records
    check_name("A session id", session.id)
    if attempt.durability not in _DURABILITIES:
        raise Invalid(f"There is no durability {attempt.durability}.")
    if not 1 <= len(records) <= RECORDS_MAX:
        raise Invalid(f"An append has 1 to {RECORDS_MAX} records, not {len(records)}.")
    _check_key(attempt)
    commits: list[Commit] = []
    prev, version = attempt.expected[::-1] if attempt.expected is not None else (None, 0)
    for record in records:
        commits.append(_open(codec, session, record, prev, now, bytes_max))
        if version and record.head.version != version + 1:
            raise Invalid(f"Session {session.id!r} has version {record.head.version} where {version + 1} must follow.")
        prev, version = record.head.hash, record.head.version
    if any(is_fork(commit) for commit in (commits if attempt.expected is not None else commits[1:])):
        raise Invalid(f"Session {session.id!r} is there: nothing but its first commit says that it is a fork.")
    origin = _check_start(attempt, commits) if attempt.expected is None else None
    return Checked(attempt, tuple(commits), origin)


def _check_key(attempt: Attempt) -> None:
    keys = [record.key for record in attempt.records if record.key is not None]
    if keys != ([] if attempt.key is None else [attempt.key]):
        raise Invalid("An append has the idempotency key of its one record that has a key.")
    if attempt.key is not None:
        check_name("An idempotency key", _LIFE_KEY.sub("", attempt.key, count=1))


def _open(codec: Codec, session: SessionKey, record: Record, prev: bytes | None, now: int, bytes_max: int) -> Commit:
    """The commit, once its record is proven to be exactly what the codec makes of it."""
    _check_columns(record, now, bytes_max)
    try:
        commit = codec.open_record(session, record, prev)
        actor, trace, format = decode_meta(record.meta)
    except (Corrupt, msgspec.DecodeError, TypeError) as error:
        raise Invalid(f"Version {record.head.version} of session {session.id!r} is not what a commit is made of. {error}") from error
    if record.meta[PREV_BYTES:] != encode_meta(actor, trace, format) or format != record.body[envelope.FORMAT]:
        raise Invalid(f"The header of version {record.head.version} of session {session.id!r} is not written as the codec writes it.")
    if actor is not None:
        check_name("An actor", actor)
    if trace is not None and not (len(trace) <= _TRACE_CHARS and trace.isascii() and trace.isprintable()):
        raise Invalid("The trace of a commit is a W3C traceparent.")
    check_events(commit.events)
    check_said(commit.kind, commit.events, commit.version)
    return commit


def _check_columns(record: Record, now: int, bytes_max: int) -> None:
    head, size = record.head, len(record.meta) + len(record.body)
    if size > bytes_max:
        raise TooLarge(f"A record has {size:,} bytes; this node takes {bytes_max:,}.", size=size, limit=bytes_max)
    if len(record.id) != _ID_BYTES or len(head.hash) != PREV_BYTES or len(record.meta) < PREV_BYTES:
        raise Invalid(f"A commit's id has {_ID_BYTES} bytes, and hashes have {PREV_BYTES}.")
    if len(record.request) not in _REQUEST_BYTES or (record.key is None and record.request):
        raise Invalid("The digest of a request has 16 bytes, and belongs to an idempotency key.")
    if head.at > now + AHEAD_MAX:
        raise Invalid(
            f"The time of this commit, {head.at} ns since 1970, lies more than a day ahead of the node's ({rfc3339(now)}): set the clock."
        )
    if not 1 <= head.version <= VERSION_MAX or not 0 <= head.epoch < 1 << 63 or not head.at > -(1 << 63) or record.kind not in _KINDS:
        raise Invalid("A record has a number that no commit has.")
    if len(record.body) <= envelope.FORMAT or envelope.is_erased(record.body) or out_of_line.is_reference(record.body):
        raise Invalid("A commit is sent with its body. Nodes store large bodies elsewhere by themselves.")


def is_fork(commit: Commit) -> bool:
    """Whether a commit says that the session is a fork."""
    return commit.kind is Kind.configure and commit.events[0].type == FORKED


def _check_start(attempt: Attempt, commits: Sequence[Commit]) -> Origin | None:
    """The first records of a chain: those of a session, or of a fork. Raises `Invalid`."""
    first, session = commits[0], attempt.session
    event = first.events[0]
    if is_fork(first):
        origin = origin_of(event)
        if len(commits) > 1 or first.prev.hex() != origin.hash or origin.session == session.id:
            raise Invalid(f"The first commit of the fork {session.id!r} does not follow the commit of its parent that it names.")
        return origin
    if first.version != 1 or first.prev != GENESIS:
        raise Invalid(f"The first commit of session {session.id!r} has version 1, unless it is a fork.")
    starts = commits[-1] if first.kind is Kind.configure else first  # What a session begins with comes before the commit that starts it.
    if starts.kind not in (Kind.data, Kind.lease):
        raise Invalid(f"A session begins with a data commit or a lease, not with a {first.kind.name} commit.")
    return None


def finished(checked: Checked, head: Head | None, base: Base | None) -> tuple[Record, ...]:
    """The records on the true head before them, with what follows from it. `base`: the parent's commit, for a fork.

    Raises `Invalid`, `Deleted`, `Moved`.
    """
    session = checked.session
    if base is not None:
        before = Head(base.version, base.hash, base.at, raised(base.epoch, 0), int(Status.active), base.version)
    else:
        before = head or Head(0, GENESIS, -(1 << 63), 0, int(Status.active), 0)
    made = []
    for record, commit in zip(checked.attempt.records, checked.commits, strict=True):
        event = commit.events[0]
        _check_standing(session, before, commit)
        if commit.at <= before.at:
            raise Invalid(f"The time of version {commit.version} of session {session.id!r} is not later than that of the one before.")
        check_epoch(commit.kind, event, before.epoch, commit.epoch)
        stand = derive_status(commit.kind, commit.version, (before.status, before.data), event.type)
        status, data = stand or (before.status, before.data)
        before = Head(commit.version, commit.hash, commit.at, commit.epoch, status, data)
        made.append(record if record.head == before else msgspec.structs.replace(record, head=before))
    return tuple(made)


def _check_standing(session: SessionKey, before: Head, commit: Commit) -> None:
    """Raise what the status of the head forbids."""
    if before.status == Status.moved:
        raise Moved(f"Session {session.id!r} was moved.", session=session.id, to=None)
    if before.status == Status.deleted and commit.kind is not Kind.data:
        raise Deleted(f"Session {session.id!r} was deleted at version {before.version}.", session=session.id)
    if (before.status == Status.archived) != (commit.kind is Kind.anchor) and commit.kind in (Kind.anchor, Kind.data):
        raise Invalid(f"Session {session.id!r} is {'' if before.status == Status.archived else 'not '}archived.")
