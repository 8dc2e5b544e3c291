"""Packs: what goes in comes out byte for byte; what is damaged, cut off or foreign is refused; the bytes are the golden ones."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import Corrupt, Event, op
from perdure.codec import pack
from perdure.codec.codec import Codec
from perdure.codec.envelope import erase_body
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey
from perdure.model.record import Head, Record, Snapshot

GOLDEN = Path(__file__).parent / "golden/pack1.perdure"
SESSION, OTHER = SessionKey("acme", "trip-42"), SessionKey("globex", "é/" + "x" * 80)
CODEC = Codec()


def chain(session: SessionKey, count: int, *, size: int = 40, start: Head | None = None) -> list[Record]:
    """Records as an engine has them: data and control commits, keys, an erased body, a stub."""
    head, records, dice = start, [], random.Random(count)
    for number in range(count):
        event = Event("message", {"n": number, "text": dice.randbytes(size // 2).hex()}, (op.add("/n", 1),) if number % 3 else ())
        key, request = (f"k{number}", hashlib.sha256(b"%d" % number).digest()[:16]) if number % 4 == 1 else (None, b"")
        kind = Kind.pin if number % 7 == 5 else Kind.data
        made = CODEC.propose(
            session, (event,), id=dice.randbytes(16), kind=kind, actor="ana" if number % 2 else None, key=key, request=request
        )
        record = made.finish(head, 1_700_000_000_000_000_000 + number * 1_234_567, epoch=number << 14 if number % 9 == 8 else None)
        if number % 5 == 4:
            record = msgspec.structs.replace(record, body=erase_body(record.body))
        head = record.head
        records.append(record)
    return records


def packed(*sessions: tuple[SessionKey, list[Record], list[Snapshot]]) -> bytes:
    out = bytearray()
    writer = pack.PackWriter(out.extend)
    for session, records, snapshots in sessions:
        writer.begin(session, {"session": session.id})
        for record in records:
            writer.add(record)
        for snapshot in snapshots:
            writer.add_snapshot(snapshot)
    writer.finish()
    assert writer.written == len(out)
    return bytes(out)


def unpacked(data: bytes) -> dict[SessionKey, tuple[list[Record], list[Snapshot]]]:
    """Everything in a pack, read part by part as a reader of ranges does."""
    pack.check_pack(data)
    trailer = pack.read_trailer(data[-pack.TRAILER_BYTES :], len(data))
    index = pack.read_index(data[trailer.footer_start : trailer.footer_end], trailer)
    return {
        each.session: (
            [record for frame in each.frames for record in pack.read_records(each.session, frame, data[frame.start : frame.end])],
            [pack.read_snapshot(frame, data[frame.start : frame.end]) for frame in each.snapshots],
        )
        for each in index.sessions
    }


def snapshot_of(session: SessionKey, record: Record) -> Snapshot:
    return CODEC.encode_snapshot(session, record.head.version, record.head.hash, {"n": record.head.version, "list": [1, None, -0.0]})


def test_what_goes_in_comes_out() -> None:
    """Records of several sessions come out byte for byte with all their columns, and so do snapshots and notes."""
    first, second = chain(SESSION, 40), chain(OTHER, 3, size=200_000)
    stub = Record(Head(9, b"h" * 32, 5, 1 << 14, int(Status.deleted), 4), b"i" * 16, int(Kind.tombstone), None, b"", b"p" * 32 + b"x", b"")
    lone = SessionKey("acme", "stub")
    snapshots = [snapshot_of(SESSION, first[-1])]
    data = packed((SESSION, first, snapshots), (OTHER, second, []), (lone, [stub], []), (SessionKey("acme", "empty"), [], []))
    found = unpacked(data)
    assert found == {SESSION: (first, snapshots), OTHER: (second, []), lone: ([stub], []), SessionKey("acme", "empty"): ([], [])}
    assert pack.check_pack(data).sessions[0].note == {"session": "trip-42"}


def test_large_sessions_have_frames_of_their_own() -> None:
    """A frame holds about `FRAME_BYTES`, so a reader of one version needs one frame in memory; frames follow one another."""
    records = chain(SESSION, 60, size=60_000)
    (session,) = pack.check_pack(packed((SESSION, records, []))).sessions
    assert len(session.frames) > 2
    assert all(frame.size < 2 * pack.FRAME_BYTES for frame in session.frames)
    assert [frame.first for frame in session.frames[1:]] == [frame.last + 1 for frame in session.frames[:-1]]
    assert (session.first, session.last) == (1, 60)


def test_the_rest_of_a_chain_is_packed() -> None:
    """A pack may begin at any version of a chain."""
    records = chain(SESSION, 30)[11:]
    assert unpacked(packed((SESSION, records, [])))[SESSION] == (records, [])


def test_gaps_are_refused() -> None:
    """A record that does not follow the last one is refused, also where a frame has ended."""
    for size in (10, 700_000):
        writer = pack.PackWriter(lambda data: None)
        writer.begin(SESSION)
        records = chain(SESSION, 3, size=size)
        writer.add(records[0])
        with pytest.raises(ValueError, match="order"):
            writer.add(records[2])


@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_changed_byte_is_found(place: float, flip: int) -> None:
    """Whatever byte of a pack is another one, the whole is refused, and no part of it reads as something else."""
    records = chain(SESSION, 12)
    good = packed((SESSION, records, [snapshot_of(SESSION, records[-1])]))
    bad = bytearray(good)
    bad[int(place * len(bad))] ^= flip
    with pytest.raises(Corrupt):
        pack.check_pack(bytes(bad))
    try:
        trailer = pack.read_trailer(bytes(bad[-pack.TRAILER_BYTES :]), len(bad))
        index = pack.read_index(bytes(bad[trailer.footer_start : trailer.footer_end]), trailer)
        found = [r for frame in index.sessions[0].frames for r in pack.read_records(SESSION, frame, bytes(bad[frame.start : frame.end]))]
    except Corrupt:
        return
    assert found == records


@given(keep=st.floats(0, 1, exclude_max=True))
def test_what_is_cut_off_is_refused(keep: float) -> None:
    """A pack that lost its end, or its beginning, is refused."""
    good = packed((SESSION, chain(SESSION, 12), []))
    for bad in (good[: int(keep * len(good))], good[len(good) - int(keep * len(good)) :], good + b"\0"):
        with pytest.raises(Corrupt):
            pack.check_pack(bad)


def test_other_files_and_later_formats_are_refused() -> None:
    """What is no pack, or has a later format, is `Corrupt`, and the message says the format."""
    for bad in (b"", b"PK\3\4", b"x" * 5_000):
        with pytest.raises(Corrupt):
            pack.check_pack(bad)
    good = packed((SESSION, chain(SESSION, 2), []))
    later = bytearray(good)
    later[len(pack.MAGIC) : pack.HEADER_BYTES] = (2).to_bytes(2, "big")
    with pytest.raises(Corrupt, match="format 2"):
        pack.check_pack(bytes(later))


def test_a_frame_of_another_session_is_refused_by_its_hashes() -> None:
    """The same frame read as another session's gives records whose hashes are not those of that session."""
    records = chain(SESSION, 3)
    data = packed((SESSION, records, []))
    (session,) = pack.check_pack(data).sessions
    frame = session.frames[0]
    assert pack.read_records(OTHER, frame, data[frame.start : frame.end])[0].head.hash != records[0].head.hash


def test_a_bomb_is_refused() -> None:
    """A frame that says that it is larger than any may be is refused before it is decompressed whole."""
    data = packed((SESSION, chain(SESSION, 2), []))
    frame = pack.check_pack(data).sessions[0].frames[0]
    for size in (frame.size - 1, frame.size + 1, 1 << 62):
        with pytest.raises(Corrupt):
            pack.read_records(SESSION, msgspec.structs.replace(frame, size=size), data[frame.start : frame.end])


def golden() -> bytes:
    first = chain(SESSION, 20)
    return packed((SESSION, first, [snapshot_of(SESSION, first[-1])]), (OTHER, chain(OTHER, 4)[1:], []))


def test_a_golden_pack_reads_as_ever() -> None:
    """The golden pack gives the very records that were packed. What is written today reads the same; only compressed bytes may differ."""
    assert unpacked(GOLDEN.read_bytes()) == unpacked(golden())
    digest = hashlib.sha256()
    for records, snapshots in unpacked(GOLDEN.read_bytes()).values():
        for record in records:
            digest.update(
                record.head.hash + record.id + record.meta + record.body + repr((record.key, record.request, record.head)).encode()
            )
        for snapshot in snapshots:
            digest.update(snapshot.body)
    assert digest.hexdigest() == "b564af4834d79ceb11e4d366ae2c6973a093f20648f6ab37a1266f19ae423b85"
