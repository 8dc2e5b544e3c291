"""Damage: whatever is cut, flipped or made up, the answer is `Corrupt`: never other data, never another exception, never more memory."""

from __future__ import annotations

import hashlib
import random
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.codec import compress, formats
from perdure.codec.codec import BODY_BYTES_MAX, Codec
from perdure.codec.records import request_digest
from perdure.errors import Corrupt
from perdure.model import ops as op
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.model.record import Record, Snapshot

SESSION = SessionKey("acme", "trip-42")
CODEC = Codec()
CODECS = {name: Codec(name) for name in ("json", "msgpack")}
SMALL = (Event("message", {"n": 1, "text": "hé"}, (op.add("/n", 1), op.append("/log", [{"a": None}]))),)
WORDS, MANY = ({"words": [f"word {number % 160}" for number in range(count)]} for count in (160, 1_600))
EVENTS = (SMALL, (Event("message", WORDS),), (Event("message", MANY),))
BODIES = [codec.encode_events(events) for events in EVENTS for codec in CODECS.values()]
NAMES = ["json", "msgpack", "json+dictionary", "msgpack+dictionary", "json+zstd", "msgpack+zstd"]
STATES = [{"n": 1, "log": [{"a": None}, -0.0]}, WORDS, MANY]
SNAPSHOTS = [(state, codec.encode_snapshot(SESSION, 7, bytes(32), state)) for state in STATES for codec in CODECS.values()]


def flips(data: bytes) -> Iterator[bytes]:
    """The data with each of its bits flipped in turn."""
    for place in range(len(data) * 8):
        changed = bytearray(data)
        changed[place >> 3] ^= 1 << (place & 7)
        yield bytes(changed)


def cuts(data: bytes) -> Iterator[bytes]:
    """Every true beginning, every true end, and the data with something behind it."""
    for place in range(len(data)):
        yield data[:place]
        if place:
            yield data[place:]
    yield from (data + tail for tail in (b"\x00", b" ", data))


def made(body: bytes, events: tuple[Event, ...]) -> Record:
    codec = CODECS["json" if body[2] == formats.JSON else "msgpack"]
    proposal = codec.propose(SESSION, events, id=bytes(16), actor="me", key="k", request=request_digest(events))
    assert proposal.body == body
    return proposal.finish(None, 1_000)


assert [body[3] for body in BODIES] == [0, 0, 2, 2, 1, 1], "all but the small ones are compressed, each in its way"
RECORDS = [made(body, EVENTS[number // 2]) for number, body in enumerate(BODIES)]


def refuses(call: Callable[[], object]) -> None:
    with pytest.raises(Corrupt):
        call()


@pytest.mark.parametrize("record", RECORDS, ids=NAMES)
@pytest.mark.parametrize("change", [flips, cuts])
def test_a_damaged_record_is_corrupt(record: Record, change: Callable[[bytes], Iterator[bytes]]) -> None:
    """Each flipped bit and each cut of body, meta, id, request and hash is found."""
    for body in change(record.body):
        refuses(lambda body=body: CODEC.open_record(SESSION, msgspec.structs.replace(record, body=body)))
    for field in ("meta", "id", "request"):
        for value in change(getattr(record, field)):
            refuses(lambda field=field, value=value: CODEC.open_record(SESSION, msgspec.structs.replace(record, **{field: value})))
    for hash in change(record.head.hash):
        head = msgspec.structs.replace(record.head, hash=hash)
        refuses(lambda head=head: CODEC.open_record(SESSION, msgspec.structs.replace(record, head=head)))


@pytest.mark.parametrize(("state", "snapshot"), SNAPSHOTS, ids=NAMES)
@pytest.mark.parametrize("change", [flips, cuts])
def test_a_damaged_snapshot_is_corrupt(state: Any, snapshot: Snapshot, change: Callable[[bytes], Iterator[bytes]]) -> None:
    """Each flipped bit and each cut of a snapshot is found by its seal."""
    assert CODEC.decode_snapshot(SESSION, snapshot) == state
    for changed in change(snapshot.body):
        refuses(lambda changed=changed: CODEC.decode_snapshot(SESSION, Snapshot(7, bytes(32), changed)))


def answers(body: bytes) -> object:
    """What the decoder makes of bytes that no hash stands for: events, or None for `Corrupt`. Anything else is let through."""
    try:
        return CODEC.decode_events(body)
    except Corrupt:
        return None


@given(st.binary(max_size=200))
def test_random_bytes_are_corrupt_or_data(noise: bytes) -> None:
    """Behind any prefix, noise is refused or reads as events: no other exception comes out of the decoder."""
    answers(noise)
    for code in (0, 1, 2, 3, 255):
        for compression in (0, 1, 2, 3):
            found = answers(bytes((0xD5, 1, code, compression)) + noise)
            assert found is None or all(type(event) is Event for event in found)  # type: ignore[attr-defined]


@pytest.mark.parametrize("body", BODIES, ids=NAMES)
def test_the_decoder_alone_survives_damage(body: bytes) -> None:
    """Without the hash's protection too, a flipped or cut body is `Corrupt` or events."""
    for changed in (*flips(body), *cuts(body)):
        answers(changed)
    chance = random.Random(17)
    for _ in range(3_000):
        noisy = bytearray(body)
        for _ in range(chance.randint(1, 6)):
            noisy[chance.randrange(4, len(noisy))] = chance.randrange(256)
        answers(bytes(noisy))


@pytest.mark.parametrize("code", [formats.JSON, formats.MSGPACK])
def test_depth_is_bounded(code: int) -> None:
    """A hundred thousand lists in one another are `Corrupt`, not the end of the stack."""
    deep = b"[" * 100_000 + b"]" * 100_000 if code == formats.JSON else b"\x91" * 100_000 + b"\xc0"
    head = b'[["t",' if code == formats.JSON else b"\x91\x92\xa1t"
    refuses(lambda: CODEC.decode_events(bytes((0xD5, 1, code, 0)) + head + deep + (b"]]" if code == formats.JSON else b"")))
    refuses(lambda: CODEC.decode_events(bytes((0xD5, 1, code, 1)) + compress.compress(head + deep)[0]))


@pytest.mark.parametrize("start", [b"\xdd\xff\xff\xff\xff", b"\x91\x92\xa1t\xdd\xff\xff\xff\xff", b"\x91\x92\xa1t\xdf\xff\xff\xff\xff"])
@pytest.mark.parametrize("tail", [b"", b"\xc0" * 50])
def test_a_count_is_not_believed(start: bytes, tail: bytes) -> None:
    """A list or object that claims four thousand million members and has none is `Corrupt`; nothing is set aside for them."""
    refuses(lambda: CODEC.decode_events(bytes((0xD5, 1, formats.MSGPACK, 0)) + start + tail))


def test_an_integer_of_many_digits_is_corrupt_or_a_number() -> None:
    """Digits beyond Python's limit for text are refused as damage."""
    refuses(lambda: CODEC.decode_events(b'\xd5\x01\x01\x00[["t",' + b"9" * 100_000 + b"]]"))


@pytest.mark.parametrize("how", [compress.PLAIN, compress.DICTIONARY])
def test_a_decompression_bomb_is_bounded(how: int) -> None:
    """A frame of 128 KiB that unfolds to 4 GiB is `Corrupt`, and no more than the limit of a body was unfolded on the way."""
    # RFC 8878: magic, a descriptor without content size, a window of 1 MiB, then blocks that say "this byte 131,072 times", then the last.
    block, last = ((0x20000 << 3 | 1 << 1 | end).to_bytes(3, "little") + b"\0" for end in (0, 1))
    bomb = bytes.fromhex("28b52ffd0050") + block * (32 << 10) + last
    assert len(bomb) < 1 << 18
    with pytest.raises(ValueError, match="larger than"):
        compress.decompress(bomb, how, 1 << 16)
    tracemalloc.start()
    try:
        refuses(lambda: CODEC.decode_events(bytes((0xD5, 1, 1, how)) + bomb))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * BODY_BYTES_MAX


@pytest.mark.parametrize("size", [1_000, 10_000])
def test_a_frame_that_lies_about_its_size_is_corrupt(size: int) -> None:
    """A frame whose header names another content size, or a window of gigabytes, is refused."""
    frame, how = compress.compress(b'[["t",1]]' * (size // 9))
    for place in range(4, 12):
        for value in range(256):
            changed = frame[:place] + bytes((value,)) + frame[place + 1 :]
            if changed != frame:
                answers(bytes((0xD5, 1, 1, how)) + changed)
    # RFC 8878: magic, a descriptor without content size, the largest window descriptor there is, an empty last block.
    refuses(lambda: CODEC.decode_events(bytes((0xD5, 1, 1, how)) + bytes.fromhex("28b52ffd00ff010000")))


@pytest.mark.parametrize("size", [1_000, 10_000])
def test_a_frame_is_exactly_one(size: int) -> None:
    """Two frames, a frame with bytes behind it, and a frame without its end are refused."""
    frame, how = compress.compress(b"x" * size)
    assert compress.decompress(frame, how, size) == b"x" * size
    for changed in (frame + frame, frame + b"\x00", frame[:-1], b""):
        with pytest.raises(ValueError, match="payload"):
            compress.decompress(changed, how, size)
    with pytest.raises(ValueError, match=f"larger than {size - 1}"):
        compress.decompress(frame, how, size - 1)


def test_a_frame_needs_its_dictionary() -> None:
    """A frame that was made with the dictionary is refused without it."""
    payload = msgspec.json.encode([["message", {"role": "user", "content": "How can I assist you today? " * 30}]])
    frame, how = compress.compress(payload)
    assert how == compress.DICTIONARY
    with pytest.raises(ValueError, match="damaged"):
        compress.decompress(frame, compress.PLAIN, 10_000)


def test_what_is_not_ours_is_corrupt() -> None:
    """Unknown magic, envelope version, format or compression is `Corrupt`: nothing is guessed."""
    payload = msgspec.json.encode([["t", 1]])
    assert CODEC.decode_events(b"\xd5\x01\x01\x00" + payload) == (Event("t", 1),)
    for prefix in (
        b"\xd4\x01\x01\x00",
        b"\xd5\x02\x01\x00",
        b"\xd5\x01\x00\x00",
        b"\xd5\x01\x03\x00",
        b"\xd5\x01\x01\x03",
        b"\xd7\x01\x01\x00",
    ):
        refuses(lambda prefix=prefix: CODEC.decode_events(prefix + payload))
    refuses(lambda: CODEC.decode_snapshot(SESSION, Snapshot(7, bytes(32), b"\xd7\x01\x01\x00" + hashlib.sha256(b"").digest() + b"{}")))
    for short in (b"", b"\xd5", b"\xd5\x01\x01"):
        refuses(lambda short=short: CODEC.decode_events(short))
