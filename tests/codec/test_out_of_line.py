"""References to bodies that lie elsewhere: the same hash, nothing believed that was damaged, and no body taken for another."""

from __future__ import annotations

import msgspec
import pytest

from perdure.codec import envelope, formats, out_of_line
from perdure.codec.codec import Codec
from perdure.errors import Corrupt
from perdure.model import ops as op
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from tests.codec.test_damage import cuts, flips

SESSION = SessionKey("acme", "trip-42")
EVENTS = (Event("message", {"text": "hi"}), Event("change", None, (op.add("/n", 1),)), Event("message"))
PROPOSAL = Codec().propose(SESSION, EVENTS, id=bytes(range(16)), actor="me")
REFERENCE, REFERRING = PROPOSAL.out_of_line(3 << 14, EVENTS)


def test_the_hash_is_that_of_the_body() -> None:
    """A commit has one hash, no matter where its body lies, and its record checks without the body."""
    inline, referring = PROPOSAL.finish(None, 7), REFERRING.finish(None, 7)
    assert inline.head == referring.head
    assert Codec().check_record(SESSION, referring) == bytes(32)
    assert Codec().open_record(SESSION, referring, body=PROPOSAL.body) == Codec().open_record(SESSION, inline)


def test_what_it_says() -> None:
    """It names the size, the life, whether there are operations, and each event type once."""
    assert out_of_line.unwrap_reference(REFERRING.body) == REFERENCE
    assert (REFERENCE.size, REFERENCE.life, REFERENCE.has_ops) == (len(PROPOSAL.body), 3 << 14, True)
    assert REFERENCE.types == ("change", "message")
    assert REFERENCE.has_any(frozenset({"message", "x"}))
    assert not REFERENCE.has_any(frozenset({"x"}))
    many = tuple(Event(f"{number}" * 200) for number in range(100))
    assert out_of_line.refer(b"", 1, 0, many).types is None
    assert out_of_line.refer(b"", 1, 0, many).has_any(frozenset({"x"}))


@pytest.mark.parametrize("change", [flips, cuts])
def test_a_damaged_reference_is_corrupt(change: object) -> None:
    """Each flipped bit and each cut of a record's reference is found, with the body at hand and without."""
    record = REFERRING.finish(None, 7)
    for body in change(record.body):  # type: ignore[operator]
        damaged = msgspec.structs.replace(record, body=body)
        for options in ({"body": PROPOSAL.body}, {"partial": True}):
            with pytest.raises(Corrupt):
                Codec().open_record(SESSION, damaged, **options)  # type: ignore[arg-type]


def test_another_body_is_refused() -> None:
    """A body that is not the one, by a byte or by its length, is `Corrupt`; so is a reference that names other events than the body has."""
    for body in (PROPOSAL.body[:-1], PROPOSAL.body + b" ", b"", PROPOSAL.body[:-1] + b"?"):
        with pytest.raises(Corrupt):
            out_of_line.check_body(REFERENCE, body)
    out_of_line.check_body(REFERENCE, PROPOSAL.body)
    for changes in ({"types": ("message",)}, {"types": ("change", "message", "more")}, {"has_ops": False}):
        lying = out_of_line.wrap_reference(msgspec.structs.replace(REFERENCE, **changes))
        record = msgspec.structs.replace(REFERRING.finish(None, 7), body=lying)
        with pytest.raises(Corrupt, match="other events"):
            Codec().open_record(SESSION, record, body=PROPOSAL.body)


def test_a_later_version_is_refused() -> None:
    """A reference of a version that is not known is `Corrupt`, and says that."""
    facts = REFERRING.body[52:]
    prefix = bytes((0xD8, 2, 1, 0)) + REFERENCE.digest
    with pytest.raises(Corrupt, match="version"):
        out_of_line.unwrap_reference(prefix + out_of_line._seal(prefix, facts) + facts)


def test_a_body_that_was_not_fetched_is_no_empty_one() -> None:
    """A record that refers to a body does not read as a commit without events, unless that is asked for."""
    with pytest.raises(Corrupt, match="not fetched"):
        Codec().open_record(SESSION, REFERRING.finish(None, 7))


def test_it_can_be_erased() -> None:
    """What stays of an erased body out of line is the digest, so the chain still verifies."""
    erased = msgspec.structs.replace(REFERRING.finish(None, 7), body=envelope.erase_body(REFERRING.body))
    assert erased.body == envelope.erase_body(PROPOSAL.body)
    assert Codec().open_record(SESSION, erased).events == ()


def test_payload_bytes() -> None:
    """The size of what a body decodes to is known without decompressing it."""
    for text in ("short", "la " * 10_000, "la " * 1_000):
        events = (Event("x", text),)
        assert envelope.payload_bytes(Codec().encode_events(events)) == len(formats.encode(events, formats.JSON)[0])
        snapshot = Codec().encode_snapshot(SESSION, 1, bytes(32), {"text": text})
        assert envelope.payload_bytes(snapshot.body) == len(f'{{"text":"{text}"}}')
    for body in (REFERRING.body, envelope.erase_body(REFERRING.body), b"", b"\xd7"):
        assert envelope.payload_bytes(body) == 0
