"""The envelope: what goes in comes out, in every format, compressed or not, and no further than the limits."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from math import copysign
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.codec import compress, envelope, formats
from perdure.errors import Corrupt, Invalid, TooLarge
from perdure.model import ops as op
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.model.values import INT_DIGITS_MAX, same

CODES = sorted(formats.NAMES.values())
SESSION = SessionKey("acme", "trip-42")
HASH = bytes(range(32))

ATOMS = st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
JSONS = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=12
)
EVENTS = st.lists(
    st.builds(
        Event,
        st.sampled_from(["message", "tool_called", "é"]),
        JSONS,
        st.lists(st.builds(op.set, st.sampled_from(["", "/a", "/a~1b/0"]), JSONS), max_size=2).map(tuple),
    ),
    min_size=1,
    max_size=3,
)


def snapshot(state: Any, code: int, version: int = 7) -> bytes:
    return envelope.encode_snapshot(SESSION, version, HASH, state, code)


@pytest.mark.parametrize("code", CODES)
@given(events=EVENTS)
def test_events_come_back_as_they_were(code: int, events: list[Event]) -> None:
    """Whatever JSON can say is read back the same, to the type of each number and the sign of each zero."""
    found = envelope.decode_events(envelope.encode_events(events, code))
    assert [(event.type, [(op.kind, op.path) for op in event.ops]) for event in found] == [
        (event.type, [(op.kind, op.path) for op in event.ops]) for event in events
    ]
    for left, right in zip(found, events, strict=True):
        assert same(left.data, right.data)
        assert same([op.value for op in left.ops], [op.value for op in right.ops])


@pytest.mark.parametrize("code", CODES)
@given(state=JSONS)
def test_states_come_back_as_they_were(code: int, state: Any) -> None:
    """A snapshot's state is read back the same."""
    assert same(envelope.decode_snapshot(SESSION, 7, HASH, snapshot(state, code)), state)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(
    "number",
    [-0.0, 0.0, 5e-324, 1.7976931348623157e308, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1, 2**64, -(2**63) - 1, 10**INT_DIGITS_MAX - 1],
    ids=lambda number: f"{number!r:.24}",
)
def test_numbers_are_exact(code: int, number: float) -> None:
    """Integers keep every digit and floats every bit, beyond what a format has of its own too."""
    (event,) = envelope.decode_events(envelope.encode_events([Event("n", number)], code))
    assert type(event.data) is type(number)
    assert event.data == number
    assert copysign(1.0, event.data) == copysign(1.0, number) if type(number) is float else True
    assert same(envelope.decode_snapshot(SESSION, 7, HASH, snapshot([number], code)), [number])


def test_what_messagepack_cannot_hold_is_stored_as_json() -> None:
    """An integer beyond 64 bits turns the body into JSON, and the body says so."""
    assert envelope.encode_events([Event("n", 2**64 - 1)], formats.MSGPACK)[2] == formats.MSGPACK
    assert envelope.encode_events([Event("n", 2**64)], formats.MSGPACK)[2] == formats.JSON


@pytest.mark.parametrize("code", CODES)
def test_compression_starts_above_its_size(code: int) -> None:
    """A payload of `COMPRESS_ABOVE` bytes is stored as it is; one byte more is compressed; what does not shrink never is.

    Up to `DICTIONARY_UPTO` bytes it is compressed with the dictionary, one byte more without.
    """
    overhead = len(formats.encode([Event("t", "x" * 300)], code)[0]) - 300

    def of(size: int) -> bytes:
        return envelope.encode_events([Event("t", "x" * (size - overhead))], code)

    at_limit = of(compress.COMPRESS_ABOVE)
    assert (at_limit[3], len(at_limit)) == (compress.NONE, compress.COMPRESS_ABOVE + 4)
    for size, how in (
        (compress.COMPRESS_ABOVE + 1, compress.DICTIONARY),
        (compress.DICTIONARY_UPTO, compress.DICTIONARY),
        (compress.DICTIONARY_UPTO + 1, compress.PLAIN),
    ):
        body = of(size)
        assert body[3] == how
        assert len(body) < 100
        assert len(envelope.decode_events(body)[0].data) == size - overhead
    noise = "".join(chr(0x20 + byte % 0x60) + chr(0x400 + byte) for byte in hashlib.shake_256(b"noise").digest(2000))
    assert len(envelope.encode_events([Event("t", noise)], code)) <= len(noise.encode()) + 20


def test_threads_share_the_dictionary() -> None:
    """Bodies that many threads make and read at once come back as they were, and no more compressors are left than threads were at work."""

    def work(thread: int) -> None:
        for number in range(200):
            said = f"thread {thread} says {number}; " * (20 + number)
            assert envelope.decode_events(envelope.encode_events([Event("message", said)], formats.JSON))[0].data == said

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(compress._idle[compress.DICTIONARY]._idle) <= 8


def test_a_state_that_is_compressed_reads_back() -> None:
    """A large snapshot is compressed and comes back the same."""
    state = {f"key-{number}": ["value"] * 10 for number in range(2_000)}
    body = snapshot(state, formats.JSON)
    assert body[3] == compress.PLAIN
    assert envelope.decode_snapshot(SESSION, 7, HASH, body) == state


@pytest.mark.parametrize("code", CODES)
def test_a_body_over_the_limit_is_refused(code: int) -> None:
    """16 MiB of payload pass, one byte more is `TooLarge` with its size, before anything is compressed."""
    overhead = len(formats.encode([Event("t", "x" * (1 << 20))], code)[0]) - (1 << 20)
    fits = envelope.encode_events([Event("t", "x" * (envelope.BODY_BYTES_MAX - overhead))], code)
    assert len(envelope.decode_events(fits)[0].data) == envelope.BODY_BYTES_MAX - overhead
    with pytest.raises(TooLarge, match="16,777,217 bytes") as caught:
        envelope.encode_events([Event("t", "x" * (envelope.BODY_BYTES_MAX - overhead + 1))], code)
    assert (caught.value.size, caught.value.limit) == (envelope.BODY_BYTES_MAX + 1, envelope.BODY_BYTES_MAX)


def test_a_state_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that is too large for a snapshot is `TooLarge`, and so is one that somebody stored all the same."""
    body = snapshot("x" * 2_000, formats.JSON)
    monkeypatch.setattr(envelope, "STATE_BYTES_MAX", 2_001)
    with pytest.raises(TooLarge):
        snapshot("x" * 2_000, formats.JSON)
    with pytest.raises(Corrupt, match="larger than 2001"):
        envelope.decode_snapshot(SESSION, 7, HASH, body)


def test_an_erased_body_keeps_its_digest_and_nothing_else() -> None:
    """Erasing leaves the digest of what stood there, twice the same, without a byte of it, and reads as no events."""
    body = envelope.encode_events([Event("secret", "sesame")], formats.JSON)
    erased = envelope.erase_body(body)
    assert envelope.body_digest(erased) == envelope.body_digest(body) == hashlib.sha256(body).digest()
    assert envelope.erase_body(erased) == erased
    assert b"sesame" not in erased
    assert len(erased) == 36
    assert envelope.decode_events(erased) == ()


@pytest.mark.parametrize(
    ("tenant", "id", "version", "hash"),
    [("acm", "etrip-42", 7, HASH), ("acme", "trip-43", 7, HASH), ("acme", "trip-42", 8, HASH), ("acme", "trip-42", 7, bytes(32))],
)
def test_a_snapshot_belongs_to_its_place(tenant: str, id: str, version: int, hash: bytes) -> None:
    """A snapshot put under another tenant, session, version or hash is `Corrupt`."""
    with pytest.raises(Corrupt):
        envelope.decode_snapshot(SessionKey(tenant, id), version, hash, snapshot({"a": 1}, formats.JSON))


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), {1: 2}.keys()], ids=lambda value: type(value).__name__)
def test_only_data_is_encoded(value: Any) -> None:
    """What slipped past the checks at the door is refused or written as data, never by a class's own rules."""
    try:
        body = envelope.encode_events([Event("t", value)], formats.JSON)
    except Invalid:
        return
    assert isinstance(envelope.decode_events(body)[0].data, (str, list))
