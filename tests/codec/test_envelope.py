"""The envelope: what goes in comes out, in every format, compressed or not, and no further than the limits."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from math import copysign
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.codec import codec, compress, envelope, formats
from perdure.codec.codec import Codec
from perdure.errors import Corrupt, Invalid, TooLarge
from perdure.model import ops as op
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.model.record import Snapshot
from perdure.model.values import INT_DIGITS_MAX, same

FORMATS = sorted(formats.NAMES)
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


def snapshot(state: Any, format: str) -> Snapshot:
    return Codec(format).encode_snapshot(SESSION, 7, HASH, state)


@pytest.mark.parametrize("format", FORMATS)
@given(events=EVENTS)
def test_events_come_back_as_they_were(format: str, events: list[Event]) -> None:
    """Whatever JSON can say is read back the same, to the type of each number and the sign of each zero."""
    found = Codec().decode_events(Codec(format).encode_events(events))
    assert [(event.type, [(op.kind, op.path) for op in event.ops]) for event in found] == [
        (event.type, [(op.kind, op.path) for op in event.ops]) for event in events
    ]
    for left, right in zip(found, events, strict=True):
        assert same(left.data, right.data)
        assert same([op.value for op in left.ops], [op.value for op in right.ops])


@pytest.mark.parametrize("format", FORMATS)
@given(state=JSONS)
def test_states_come_back_as_they_were(format: str, state: Any) -> None:
    """A snapshot's state is read back the same."""
    assert same(Codec().decode_snapshot(SESSION, snapshot(state, format)), state)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "number",
    [-0.0, 0.0, 5e-324, 1.7976931348623157e308, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1, 2**64, -(2**63) - 1, 10**INT_DIGITS_MAX - 1],
    ids=lambda number: f"{number!r:.24}",
)
def test_numbers_are_exact(format: str, number: float) -> None:
    """Integers keep every digit and floats every bit, beyond what a format has of its own too."""
    (event,) = Codec().decode_events(Codec(format).encode_events([Event("n", number)]))
    assert type(event.data) is type(number)
    assert event.data == number
    assert copysign(1.0, event.data) == copysign(1.0, number) if type(number) is float else True
    assert same(Codec().decode_snapshot(SESSION, snapshot([number], format)), [number])


def test_what_messagepack_cannot_hold_is_stored_as_json() -> None:
    """An integer beyond 64 bits turns the body into JSON, and the body says so."""
    assert Codec("msgpack").encode_events([Event("n", 2**64 - 1)])[2] == formats.MSGPACK
    assert Codec("msgpack").encode_events([Event("n", 2**64)])[2] == formats.JSON


@pytest.mark.parametrize("format", FORMATS)
def test_compression_starts_above_its_size(format: str) -> None:
    """A payload of `COMPRESS_ABOVE` bytes is stored as it is; one byte more is compressed; what does not shrink never is.

    Up to `DICTIONARY_UPTO` bytes it is compressed with the dictionary, one byte more without.
    """
    overhead = len(formats.encode([Event("t", "x" * 300)], formats.NAMES[format])[0]) - 300

    def of(size: int) -> bytes:
        return Codec(format).encode_events([Event("t", "x" * (size - overhead))])

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
        assert len(Codec().decode_events(body)[0].data) == size - overhead
    noise = "".join(chr(0x20 + byte % 0x60) + chr(0x400 + byte) for byte in hashlib.shake_256(b"noise").digest(2000))
    assert len(Codec(format).encode_events([Event("t", noise)])) <= len(noise.encode()) + 20


def test_threads_share_the_dictionary() -> None:
    """Bodies that many threads make and read at once come back as they were, and no more compressors are left than threads were at work."""

    def work(thread: int) -> None:
        for number in range(200):
            said = f"thread {thread} says {number}; " * (20 + number)
            assert Codec().decode_events(Codec("json").encode_events([Event("message", said)]))[0].data == said

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(compress._idle[compress.DICTIONARY]._idle) <= 8


def test_a_state_that_is_compressed_reads_back() -> None:
    """A large snapshot is compressed and comes back the same."""
    state = {f"key-{number}": ["value"] * 10 for number in range(2_000)}
    made = snapshot(state, "json")
    assert made.body[3] == compress.PLAIN
    assert Codec().decode_snapshot(SESSION, made) == state


@pytest.mark.parametrize("format", FORMATS)
def test_a_body_over_the_limit_is_refused(format: str) -> None:
    """16 MiB of payload pass, one byte more is `TooLarge` with its size, before anything is compressed."""
    overhead = len(formats.encode([Event("t", "x" * (1 << 20))], formats.NAMES[format])[0]) - (1 << 20)
    fits = Codec(format).encode_events([Event("t", "x" * (codec.BODY_BYTES_MAX - overhead))])
    assert len(Codec().decode_events(fits)[0].data) == codec.BODY_BYTES_MAX - overhead
    with pytest.raises(TooLarge, match="16,777,217 bytes") as caught:
        Codec(format).encode_events([Event("t", "x" * (codec.BODY_BYTES_MAX - overhead + 1))])
    assert (caught.value.size, caught.value.limit) == (codec.BODY_BYTES_MAX + 1, codec.BODY_BYTES_MAX)


def test_a_state_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that is too large for a snapshot is `TooLarge`, and so is one that somebody stored all the same."""
    made = snapshot("x" * 2_000, "json")
    monkeypatch.setattr(codec, "STATE_BYTES_MAX", 2_001)
    with pytest.raises(TooLarge):
        snapshot("x" * 2_000, "json")
    with pytest.raises(Corrupt, match="larger than 2001"):
        Codec().decode_snapshot(SESSION, made)


def test_an_erased_body_keeps_its_digest_and_nothing_else() -> None:
    """Erasing leaves the digest of what stood there, twice the same, without a byte of it, and reads as no events."""
    body = Codec("json").encode_events([Event("secret", "sesame")])
    erased = envelope.erase_body(body)
    assert envelope.body_digest(erased) == envelope.body_digest(body) == hashlib.sha256(body).digest()
    assert envelope.erase_body(erased) == erased
    assert b"sesame" not in erased
    assert len(erased) == 36
    assert Codec().decode_events(erased) == ()


@pytest.mark.parametrize(
    ("tenant", "id", "version", "hash"),
    [("acm", "etrip-42", 7, HASH), ("acme", "trip-43", 7, HASH), ("acme", "trip-42", 8, HASH), ("acme", "trip-42", 7, bytes(32))],
)
def test_a_snapshot_belongs_to_its_place(tenant: str, id: str, version: int, hash: bytes) -> None:
    """A snapshot put under another tenant, session, version or hash is `Corrupt`."""
    moved = Snapshot(version, hash, snapshot({"a": 1}, "json").body)
    with pytest.raises(Corrupt):
        Codec().decode_snapshot(SessionKey(tenant, id), moved)


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), {1: 2}.keys()], ids=lambda value: type(value).__name__)
def test_only_data_is_encoded(value: Any) -> None:
    """What slipped past the checks at the door is refused or written as data, never by a class's own rules."""
    try:
        body = Codec("json").encode_events([Event("t", value)])
    except Invalid:
        return
    assert isinstance(Codec().decode_events(body)[0].data, (str, list))
