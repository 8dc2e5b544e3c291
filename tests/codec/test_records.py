"""Records: the hash covers every column, a lost race costs one hash, and an erased body still verifies."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from perdure.codec import envelope
from perdure.codec.codec import Codec
from perdure.codec.records import Base, Proposal, request_digest
from perdure.errors import Corrupt
from perdure.model import ops as op
from perdure.model.commit import GENESIS, Kind, Status
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.model.record import Head, Record

SESSION = SessionKey("acme", "trip-42")
CODEC = Codec()
ID = bytes(range(16))
EVENTS = (Event("message", {"role": "user"}, (op.add("/n", 1),)), Event("note"))
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def proposal(session: SessionKey = SESSION, **changes: Any) -> Proposal:
    options: dict[str, Any] = {"id": ID, "actor": "planner", "key": "k-1", "request": request_digest(EVENTS), "trace": TRACE}
    return CODEC.propose(session, EVENTS, **{**options, **changes})


def record(head: Head | None = None, now: int = 1_000, **changes: Any) -> Record:
    return proposal(**changes).finish(head, now)


FIRST = record()
SECOND = record(FIRST.head, 2_000)


def test_a_record_opens_as_the_commit_it_was() -> None:
    """Every field of the commit is what was proposed, and it names the commit before it."""
    commit = CODEC.open_record(SESSION, SECOND, FIRST.head.hash)
    assert (commit.version, commit.id, commit.at, commit.kind) == (2, ID, 2_000, Kind.data)
    assert (commit.actor, commit.key, commit.trace, commit.events) == ("planner", "k-1", TRACE, EVENTS)
    assert (commit.epoch, commit.prev, commit.hash) == (0, FIRST.head.hash, SECOND.head.hash)
    assert CODEC.open_record(SESSION, FIRST, GENESIS).prev == GENESIS


def test_time_rises_along_a_chain() -> None:
    """A clock that stands still or steps back gives the time of the commit before and one nanosecond."""
    for now in (1_000, 5, 0):
        assert record(FIRST.head, now).head.at == FIRST.head.at + 1


def test_control_commits_keep_the_version_of_the_newest_data() -> None:
    """`data` moves with data commits only; epoch and status go from head to head."""
    head = msgspec.structs.replace(FIRST.head, epoch=4, status=int(Status.idle))
    made = proposal(kind=Kind.configure)
    after = made.finish(head, 2_000).head
    assert (after.version, after.epoch, after.status, after.data) == (2, 4, int(Status.idle), 1)
    assert made.finish(head, 2_000, status=int(Status.deleted)).head.status == int(Status.deleted)


def test_a_fork_starts_behind_the_commit_it_names() -> None:
    """The first record of a fork goes on from its parent's version and hash, and from its grant, which nobody holds."""
    made = proposal(kind=Kind.configure)
    first = made.finish(None, 2_000, base=Base(41, FIRST.head.hash, 1_500, 3 << 14 | 1))
    assert (first.head.version, first.head.epoch, first.head.data) == (42, 3 << 14, 41)
    assert CODEC.prev(first) == FIRST.head.hash


def test_a_tombstone_raises_the_grant() -> None:
    """Nothing that was granted before a tombstone fits the epoch after it."""
    head = msgspec.structs.replace(FIRST.head, epoch=5 << 14 | 3)
    assert proposal(kind=Kind.tombstone).finish(head, 2_000, epoch=12 << 14).head.epoch == 12 << 14


CHANGED_HEAD = {
    "version": [0, 1, 3, 2**40],
    "hash": [FIRST.head.hash, bytes(32), b"", SECOND.head.hash[:31]],
    "at": [1_999, 2_001, 0],
    "epoch": [1, 2**63 - 1],
}
CHANGED = {
    "id": [bytes(16), ID[:15], b"", ID[::-1]],
    "kind": [1, 5, 99, -1],
    "key": [None, "k-2", ""],
    "request": [b"", bytes(16), SECOND.request[:15]],
    "meta": [b"", bytes(32), FIRST.meta, SECOND.meta[:-1], SECOND.meta + b"\x00", SECOND.meta[:32]],
    "body": [b"", FIRST.body[:-1], FIRST.body + b" ", CODEC.encode_events((Event("message"),))],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in CHANGED_HEAD.items() for value in values])
def test_the_hash_covers_the_position(field: str, value: Any) -> None:
    """A version, hash, time or epoch that is not the written one is `Corrupt`, naming session and version."""
    changed = msgspec.structs.replace(SECOND, head=msgspec.structs.replace(SECOND.head, **{field: value}))
    with pytest.raises(Corrupt, match="'trip-42'"):
        CODEC.open_record(SESSION, changed)
    with pytest.raises(Corrupt):
        CODEC.check_record(SESSION, changed)


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in CHANGED.items() for value in values])
def test_the_hash_covers_the_columns(field: str, value: Any) -> None:
    """An id, kind, key, request, meta or body that is not the written one is `Corrupt`."""
    with pytest.raises(Corrupt, match="'trip-42'"):
        CODEC.open_record(SESSION, msgspec.structs.replace(SECOND, **{field: value}))


@pytest.mark.parametrize("field", ["version", "at", "epoch"])
@pytest.mark.parametrize("value", [None, "2", b"2", 2.5, -1, 2**70])
def test_a_position_of_another_type_is_corrupt(field: str, value: Any) -> None:
    """A damaged file can hold any type in any column: that is `Corrupt`, not a type error."""
    changed = msgspec.structs.replace(SECOND, head=msgspec.structs.replace(SECOND.head, **{field: value}))
    with pytest.raises(Corrupt):
        CODEC.open_record(SESSION, changed)


@pytest.mark.parametrize("field", ["id", "kind", "key", "request", "meta", "body"])
@pytest.mark.parametrize("value", [None, "text", 7, 2.5])
def test_a_column_of_another_type_is_corrupt(field: str, value: Any) -> None:
    """The same for the columns beside the position."""
    if getattr(SECOND, field) == value:
        return
    with pytest.raises(Corrupt):
        CODEC.open_record(SESSION, msgspec.structs.replace(SECOND, **{field: value}))


@pytest.mark.parametrize("session", [SessionKey("acme", "trip-43"), SessionKey("acm", "etrip-42"), SessionKey("trip-42", "acme")])
def test_the_hash_covers_tenant_and_session(session: SessionKey) -> None:
    """A record moved to another session or tenant is `Corrupt`."""
    with pytest.raises(Corrupt):
        CODEC.open_record(session, SECOND)


@pytest.mark.parametrize(
    "changes",
    [{"actor": None}, {"actor": "other"}, {"trace": None}, {"key": None}, {"request": b""}, {"id": bytes(16)}, {"kind": Kind.pin}],
    ids=lambda changes: next(iter(changes)),
)
def test_every_fact_changes_the_hash(changes: dict[str, Any]) -> None:
    """Two commits that differ in one fact have different hashes."""
    assert record(**changes).head.hash != FIRST.head.hash


def test_a_record_follows_the_one_before() -> None:
    """A sound record behind another commit than the one it names is `Corrupt`."""
    with pytest.raises(Corrupt, match="does not follow"):
        CODEC.open_record(SESSION, SECOND, GENESIS)


def test_an_erased_body_keeps_the_chain() -> None:
    """With its body erased the record still verifies and names its neighbour; its events are gone."""
    erased = msgspec.structs.replace(SECOND, body=envelope.erase_body(SECOND.body))
    assert CODEC.check_record(SESSION, erased) == FIRST.head.hash
    assert CODEC.open_record(SESSION, erased, FIRST.head.hash).events == ()
    other = msgspec.structs.replace(SECOND, body=envelope.erase_body(SECOND.body + b" "))
    with pytest.raises(Corrupt):
        CODEC.check_record(SESSION, other)


def test_a_body_is_encoded_once() -> None:
    """Behind another head the same body and meta stand: only position, prev and hash are new."""
    made = proposal()
    first, other = made.finish(None, 1_000), made.finish(SECOND.head, 1_000)
    assert first.head.hash != other.head.hash
    assert (CODEC.prev(first), CODEC.prev(other)) == (GENESIS, SECOND.head.hash)
    assert first.meta[32:] == other.meta[32:]
    assert first.body is other.body is made.body


def test_a_request_is_its_content() -> None:
    """Order of an object's members does not change what was asked for; a value, its type or an event's order does."""
    base = [Event("t", {"a": 1, "b": [1, 2]}), Event("u")]
    assert request_digest(base) == request_digest([Event("t", {"b": [1, 2], "a": 1}), Event("u")])
    others = [
        [Event("t", {"a": 1.0, "b": [1, 2]}), Event("u")],
        [Event("t", {"a": True, "b": [1, 2]}), Event("u")],
        [Event("t", {"a": 1, "b": [2, 1]}), Event("u")],
        [Event("u"), Event("t", {"a": 1, "b": [1, 2]})],
        [Event("t", {"a": 1, "b": [1, 2]}), Event("u", None, (op.add("/n", 1),))],
    ]
    assert len({request_digest(events) for events in (base, *others)}) == len(others) + 1
