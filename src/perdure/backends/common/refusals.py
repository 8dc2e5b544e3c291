"""Errors that every engine raises in the same words, and the checks that raise them."""

from __future__ import annotations

from perdure.backends.spi import Head, Record, Snapshot
from perdure.errors import Corrupt, Invalid, NotFound, TooLarge, Unsupported
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey


def no_store(place: str, missing: str) -> NotFound:
    """The error of `create=False` where there is no store. `missing` says what would have to be created, as in "the file"."""
    return NotFound(f"There is no Perdure store at {place}: {missing} is not there, and create=False makes nothing.", missing=missing)


def foreign_store(what: str) -> Corrupt:
    """The error for a place that holds something else than a store. `what` names it, as in "The key 'x' of redis://host"."""
    return Corrupt(f"{what} was not written by Perdure: choose another namespace.", advice="")


def newer_schema(found: int, known: int) -> Unsupported:
    """The error for a store that a later version of Perdure made."""
    return Unsupported(f"This store has schema version {found}; this version of Perdure knows {known}: upgrade perdure.", advice="")


NUMBER_END = 1 << 63
"""Numbers in cursors are below it, as an engine's counters are."""


def numbers_of(cursor: str, count: int) -> tuple[int, ...]:
    """The numbers of a feed's cursor, with colons between them. Raises `Invalid`."""
    parts = cursor.split(":")
    if len(parts) != count or not all(part.isascii() and part.isdecimal() and len(part) < 20 for part in parts):
        raise bad_cursor(cursor[:80])
    numbers = tuple(map(int, parts))
    if max(numbers) >= NUMBER_END:
        raise bad_cursor(cursor)
    return numbers


def bad_cursor(cursor: str | None) -> Invalid:
    """The error for a cursor that no page of this feed gave."""
    return Invalid(f"{cursor!r} is no cursor of this feed.")


def key_applied_twice(session: SessionKey) -> Corrupt:
    """The error for a record that brings an idempotency key which an earlier record has."""
    return Corrupt(f"A record of session {session.id!r} has an idempotency key that was applied before.")


def no_anchor(session: SessionKey, below: int, anchor: tuple[int, bytes]) -> Invalid:
    """The error for a truncation without an anchor commit, see `check_anchor`."""
    return Invalid(f"Session {session.id!r} has no anchor commit at version {anchor[0]} with this hash, or {below} is above it.")


def check_anchor(session: SessionKey, record: Record | None, below: int, anchor: tuple[int, bytes]) -> None:
    """Raise `Invalid` unless `record`, the one at the anchor's version, permits a truncation of what lies below `below`."""
    if record is None or (record.head.hash, record.kind) != (anchor[1], Kind.anchor) or below > anchor[0]:
        raise no_anchor(session, below, anchor)


def not_deleted(session: SessionKey) -> Invalid:
    """The error for a purge of a session that is not deleted."""
    return Invalid(f"Session {session.id!r} is not deleted: delete it before it is purged.")


def check_snapshot_size(snapshot: Snapshot, bytes_max: int, engine: str) -> None:
    """Raise `TooLarge` for a snapshot that this engine, which `engine` names, does not take."""
    if len(snapshot.body) > bytes_max:
        raise TooLarge(f"A snapshot of {len(snapshot.body):,} bytes; {engine} takes {bytes_max:,}.")


def check_deleted(session: SessionKey, head: Head | None) -> Head:
    """The head of a session that may be purged. Raises `Invalid` unless its status is deleted."""
    if head is None or head.status != Status.deleted:
        raise not_deleted(session)
    return head


def head_differs(session: SessionKey) -> Corrupt:
    """The error for a head that its newest commit does not give."""
    return Corrupt(f"The head of session {session.id!r} is not that of its newest commit.", session=session.id)
