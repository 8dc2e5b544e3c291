"""A pack: records and snapshots of sessions in one file, byte for byte, in compressed frames that can be read by range.

    header    8 bytes, `MAGIC`; the version of the format, 2 bytes
    frames    one after the other, each a zstd frame made with the dictionary of `codec.compress`: records of one session in the order of
              their versions, or one snapshot
    footer    a zstd frame: MessagePack of `PackIndex`, which has for each session the place, the size and the SHA-256 of each frame
    trailer   `TRAILER_BYTES` bytes: the footer's size (8), its SHA-256 (32), the SHA-256 of everything before this field (32), `MAGIC`

A record does not repeat what follows from the record before it: its version, the hash that it follows, and its own hash where computing it
gives the same. All numbers are big-endian. A reader of a part of a pack reads the trailer and the footer first: what the footer names is
checked with the SHA-256 that stands there. What is damaged, cut off, foreign or of a later format is `Corrupt`, a later format too.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from perdure.codec import envelope
from perdure.codec.compress import DICTIONARY, compress_frame, decompress
from perdure.codec.records import PREV_BYTES, decode_meta
from perdure.errors import Corrupt
from perdure.model.commit import GENESIS, commit_hash, static_header
from perdure.model.ids import SessionKey
from perdure.model.record import Head, Record, Snapshot

MAGIC = b"\xd9PERDURE"
"""The first and the last bytes of a pack."""
PACK_VERSION = 1
"""The format that is written. A number is never used again."""
HEADER_BYTES = len(MAGIC) + 2
TRAILER_BYTES = 8 + 32 + 32 + len(MAGIC)
FRAME_BYTES = 512 << 10
"""About how many bytes of records a frame holds, before compression; at least one record."""
FRAME_BYTES_MAX = 512 << 20
"""Largest frame and largest footer, before compression: what says that it is larger is damaged."""
_MILLISECOND = 1_000_000
_ID_TIME = 6
"""Bytes of an id that are a time."""
_ENCODER = msgspec.msgpack.Encoder()
_TRAILER = struct.Struct(f">Q32s32s{len(MAGIC)}s")


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """A run of records: where it lies in the pack, and what it holds. `prev` is the hash that its first record follows, empty where
    that is `GENESIS`."""

    start: int
    stored: int
    size: int
    digest: bytes
    first: int
    count: int
    prev: bytes

    @property
    def end(self) -> int:
        """The byte after it."""
        return self.start + self.stored

    @property
    def last(self) -> int:
        """The version of its last record."""
        return self.first + self.count - 1


class SnapshotFrame(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot: where it lies in the pack, and which version's it is."""

    start: int
    stored: int
    size: int
    digest: bytes
    version: int
    hash: bytes

    @property
    def end(self) -> int:
        """The byte after it."""
        return self.start + self.stored


class PackedSession(msgspec.Struct, frozen=True, array_like=True):
    """One session of a pack. `note` is what the pack's maker says of it: any value that MessagePack has."""

    tenant: str
    id: str
    frames: tuple[Frame, ...]
    snapshots: tuple[SnapshotFrame, ...]
    note: Any = None

    @property
    def session(self) -> SessionKey:
        """Its full name."""
        return SessionKey(self.tenant, self.id)

    @property
    def first(self) -> int:
        """The version of its first record; 0 where it has none."""
        return self.frames[0].first if self.frames else 0

    @property
    def last(self) -> int:
        """The version of its last record; 0 where it has none."""
        return self.frames[-1].last if self.frames else 0


class PackIndex(msgspec.Struct, frozen=True, array_like=True):
    """What a pack holds."""

    sessions: tuple[PackedSession, ...]


class Trailer(NamedTuple):
    """The end of a pack."""

    footer_start: int
    footer_end: int
    footer_digest: bytes
    digest: bytes
    """SHA-256 of everything before it."""


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    """A record as it stands in a frame.

    at      the time since the record before
    data    how many versions ago the newest data commit was
    clock   how many milliseconds before the record's time the first 48 bits of its id are, as a UUIDv7 has them; `id` is the rest
    coding  how the body is stored: 0 as it is
    hash    only where computing it does not give it
    """

    at: int
    epoch: int
    status: int
    data: int
    clock: int
    id: bytes
    kind: int
    key: str | None
    request: bytes
    meta: bytes
    coding: int
    body: bytes
    hash: bytes | None = None


_ENTRIES = msgspec.msgpack.Decoder(tuple[_Entry, ...])
_INDEX = msgspec.msgpack.Decoder(PackIndex)


class PackWriter:
    """Writes a pack to a sink, a frame at a time: `begin` a session, `add` its records in order and `add_snapshot`; in the end `finish`."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        """`write` takes the next bytes of the pack."""
        self._write = write
        self._digest = hashlib.sha256()
        self._position = 0
        self._sessions: list[PackedSession] = []
        self._session: SessionKey | None = None
        self._put(MAGIC + PACK_VERSION.to_bytes(2, "big"))

    @property
    def written(self) -> int:
        """Bytes so far."""
        return self._position

    def begin(self, session: SessionKey, note: Any = None) -> None:
        """From now on records and snapshots are this session's."""
        self._end_session()
        self._session, self._note = session, note
        self._frames: list[Frame] = []
        self._snapshots: list[SnapshotFrame] = []
        self._run: list[Record] = []
        self._run_bytes = 0

    def add(self, record: Record) -> None:
        """The next record. Raises `ValueError` unless its version follows the last one's."""
        last = self._run[-1].head.version if self._run else self._frames[-1].last if self._frames else 0
        if last and record.head.version != last + 1:
            raise ValueError("records come in the order of their versions, without a gap")
        self._run.append(record)
        self._run_bytes += record.stored_bytes
        if self._run_bytes >= FRAME_BYTES:
            self._end_run()

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """A snapshot of the session."""
        self._end_run()
        start, stored, size, digest = self._put_frame(snapshot.body)
        self._snapshots.append(SnapshotFrame(start, stored, size, digest, snapshot.version, snapshot.hash))

    def finish(self) -> bytes:
        """Write the footer and the trailer. The SHA-256 of the footer, which names the SHA-256 of all frames."""
        self._end_session()
        start, _, _, digest = self._put_frame(_ENCODER.encode(PackIndex(tuple(self._sessions))))
        self._put((self._position - start).to_bytes(8, "big") + digest)
        self._put(self._digest.digest() + MAGIC)
        return digest

    def _end_session(self) -> None:
        if self._session is not None:
            self._end_run()
            packed = PackedSession(*self._session, tuple(self._frames), tuple(self._snapshots), self._note)
            self._sessions.append(packed)
            self._session = None

    def _end_run(self) -> None:
        if not self._run or self._session is None:
            return
        run, self._run, self._run_bytes = self._run, [], 0
        prev, at = run[0].meta[:PREV_BYTES], 0
        entries = []
        for record in run:
            head = record.head
            known = head.hash if record.meta[:PREV_BYTES] != prev or _hash_of(self._session, record) != head.hash else None
            meta = record.meta if known is not None else record.meta[PREV_BYTES:]
            entries.append(
                _Entry(
                    head.at - at, head.epoch, head.status, head.version - head.data, head.at // _MILLISECOND - _id_time(record.id),
                    record.id[_ID_TIME:], record.kind, record.key, record.request, meta, 0, record.body, known,
                )
            )  # fmt: skip
            prev, at = head.hash, head.at
        start, stored, size, digest = self._put_frame(_ENCODER.encode(entries))
        first = run[0]
        follows = first.meta[:PREV_BYTES]
        self._frames.append(Frame(start, stored, size, digest, first.head.version, len(run), b"" if follows == GENESIS else follows))

    def _put_frame(self, payload: bytes) -> tuple[int, int, int, bytes]:
        """Where it lies, its size there, its size before compression, and the SHA-256 of what lies there."""
        start, stored = self._position, compress_frame(payload)
        self._put(stored)
        return start, len(stored), len(payload), hashlib.sha256(stored).digest()

    def _put(self, data: bytes) -> None:
        self._write(data)
        self._digest.update(data)
        self._position += len(data)


def read_trailer(tail: bytes, size: int) -> Trailer:
    """Where the footer of a pack of this size lies. `tail` is its end, at least `TRAILER_BYTES` of it. Raises `Corrupt`."""
    if size < HEADER_BYTES + TRAILER_BYTES or len(tail) < TRAILER_BYTES:
        raise Corrupt(f"A pack of {size:,} bytes is cut off.")
    footer, footer_digest, digest, magic = _TRAILER.unpack(tail[-TRAILER_BYTES:])
    end = size - TRAILER_BYTES
    if magic != MAGIC or not 0 < footer <= end - HEADER_BYTES:
        raise Corrupt("This is no pack, or its end is cut off or damaged.")
    return Trailer(end - footer, end, footer_digest, digest)


def read_index(footer: bytes, trailer: Trailer) -> PackIndex:
    """What a pack holds, by the bytes of its footer. Raises `Corrupt`."""
    try:
        index = _INDEX.decode(_decompress(footer, trailer.footer_digest, None))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"The footer of a pack is damaged: {error}.") from error
    place = HEADER_BYTES
    for session in index.sessions:
        parts = [(frame.start, frame.stored) for frame in session.frames]
        parts += [(frame.start, frame.stored) for frame in session.snapshots]
        for start, stored in sorted(parts):
            if start != place or stored < 1:
                raise Corrupt("The footer of a pack names frames that do not lie one after the other.")
            place = start + stored
        version = session.first
        for run in session.frames:
            if run.first != version or run.count < 1:
                raise Corrupt("The footer of a pack names frames whose versions do not follow one another.")
            version = run.last + 1
    if place != trailer.footer_start:
        raise Corrupt("The footer of a pack does not name all that lies in it.")
    return index


def read_records(session: SessionKey, frame: Frame, stored: bytes) -> Sequence[Record]:
    """The records of a frame, by its bytes: those that were packed, byte for byte. Raises `Corrupt`."""
    try:
        entries = _ENTRIES.decode(_decompress(stored, frame.digest, frame.size))
        if len(entries) != frame.count:
            raise ValueError(f"it has {len(entries)} records where the footer says {frame.count}")
        return list(_records(session, frame, entries))
    except (msgspec.DecodeError, ValueError, TypeError, OverflowError, struct.error) as error:
        raise Corrupt(f"A frame of records of session {session.id!r} is damaged: {error}.") from error


def _records(session: SessionKey, frame: Frame, entries: Iterable[_Entry]) -> Iterable[Record]:
    prev, at = frame.prev or GENESIS, 0
    for version, entry in enumerate(entries, frame.first):
        if entry.coding:
            raise ValueError(f"version {version} is stored in a way that this version of Perdure does not know")
        at += entry.at
        meta = prev + entry.meta if entry.hash is None else entry.meta
        head = Head(version, entry.hash or b"", at, entry.epoch, entry.status, version - entry.data)
        id = (at // _MILLISECOND - entry.clock).to_bytes(_ID_TIME, "big") + entry.id
        record = Record(head, id, entry.kind, entry.key, entry.request, meta, entry.body)
        if entry.hash is None:
            record = msgspec.structs.replace(record, head=msgspec.structs.replace(head, hash=_hash_of(session, record)))
        prev = record.head.hash
        yield record


def read_snapshot(frame: SnapshotFrame, stored: bytes) -> Snapshot:
    """The snapshot, by its bytes. Raises `Corrupt`. Its own seal is checked where it is decoded."""
    return Snapshot(frame.version, frame.hash, _decompress(stored, frame.digest, frame.size))


def check_pack(data: bytes) -> PackIndex:
    """What a whole pack holds, after everything in it was compared with its SHA-256. Raises `Corrupt`."""
    trailer = read_trailer(data[-TRAILER_BYTES:], len(data))
    if data[:HEADER_BYTES] != MAGIC + PACK_VERSION.to_bytes(2, "big"):
        found = int.from_bytes(data[len(MAGIC) : HEADER_BYTES], "big")
        raise Corrupt(f"This is no pack, or one of the format {found}; this version of Perdure knows the format {PACK_VERSION}.")
    if hashlib.sha256(memoryview(data)[: -(32 + len(MAGIC))]).digest() != trailer.digest:
        raise Corrupt("The SHA-256 of a pack differs: it is damaged.")
    return read_index(data[trailer.footer_start : trailer.footer_end], trailer)


def _id_time(id: bytes) -> int:
    return int.from_bytes(id[:_ID_TIME], "big")


def _hash_of(session: SessionKey, record: Record) -> bytes:
    """The hash of a record by its content; empty where it has none."""
    head = record.head
    try:
        actor, trace, format = decode_meta(record.meta)
    except (msgspec.DecodeError, TypeError):
        return b""
    static = static_header(*session, record.id, record.kind, actor, record.key, record.request, trace, format)
    return commit_hash(record.meta[:PREV_BYTES], head.version, head.at, head.epoch, static, envelope.body_digest(record.body))


def _decompress(stored: bytes, digest: bytes, size: int | None) -> bytes:
    """What was compressed. Raises `Corrupt` where the bytes are not those of the digest, or have another size."""
    if hashlib.sha256(stored).digest() != digest:
        raise Corrupt("A part of a pack is not what was written: its SHA-256 differs.")
    try:
        payload = decompress(stored, DICTIONARY, FRAME_BYTES_MAX if size is None else min(size, FRAME_BYTES_MAX))
    except ValueError as error:
        raise Corrupt(f"A part of a pack cannot be decompressed: {error}.") from error
    if size is not None and len(payload) != size:
        raise Corrupt("A part of a pack has another size than the pack says.")
    return payload
