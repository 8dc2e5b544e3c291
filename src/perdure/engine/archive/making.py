"""A segment is made of the records that an engine holds, and proven by reading it back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from perdure.backends.spi import Backend
from perdure.codec import pack
from perdure.codec.codec import Codec
from perdure.codec.records import state_digest
from perdure.concurrency.workers import WorkerPool
from perdure.engine.read.chains import PAGE
from perdure.engine.read.segments import Note
from perdure.errors import Corrupt
from perdure.model.anchor import Anchor, Preparing
from perdure.model.ids import SessionKey
from perdure.model.record import Record, Snapshot

SEGMENT_BYTES_MAX = 128 << 20
"""Largest segment, about: what is larger goes to several. A segment is in memory while it is made."""


T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Run what takes long in a thread of its own."""
    workers = WorkerPool[None]("perdure-archive", 1, lambda: None, lambda _: None)
    try:
        return await workers.call(lambda _: work())
    finally:
        workers.end()


class TooLongError(Exception):
    """A segment would be larger than `SEGMENT_BYTES_MAX`: it may end at `version`."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


class Maker:
    """Adds records to a segment, each checked."""

    def __init__(self, codec: Codec, session: SessionKey, before: Anchor | None) -> None:
        self._codec, self._session = codec, session
        self._data = bytearray()
        self._writer = pack.PackWriter(self._data.extend)
        self._writer.begin(session, msgspec.to_builtins(Note(before)))
        self.last: bytes | None = None if before is None else bytes.fromhex(before.hash)
        """The hash that the next record follows; `None`: it is not known."""

    @property
    def size(self) -> int:
        """Bytes so far."""
        return len(self._data)

    def add(self, records: Sequence[Record]) -> None:
        """The next records. Raises `Corrupt`."""
        for record in records:
            self.last = _follows(self._codec, self._session, record, self.last)
            self._writer.add(record)

    def finish(self, snapshot: Snapshot) -> bytes:
        """The whole segment."""
        self._writer.add_snapshot(snapshot)
        self._writer.finish()
        return bytes(self._data)


def _follows(codec: Codec, session: SessionKey, record: Record, prev: bytes | None) -> bytes:
    """The hash of a record that is as it was written and follows `prev`. Raises `Corrupt`."""
    found = codec.prev(record) if record.is_stub else codec.check_record(session, record)
    if prev is not None and found != prev:
        raise Corrupt(f"Version {record.head.version} of session {session.id!r} does not follow the commit before it.", session=session.id)
    return record.head.hash


async def make_segment(
    backend: Backend, codec: Codec, session: SessionKey, preparing: Preparing, before: Anchor | None, snapshot: Snapshot
) -> bytes:
    """A segment of the records that `preparing` names, with the snapshot of its last version. Raises `Corrupt`, `TooLongError`."""
    maker, version = Maker(codec, session, before), preparing.first - 1
    while version < preparing.last:
        records = await backend.read(session, after=version, before=preparing.last + 1, limit=PAGE)
        if not records or records[0].head.version != version + 1:
            raise Corrupt(f"Version {version + 1} of session {session.id!r} is not there.", session=session.id)
        await in_thread(lambda page=records: maker.add(page))  # type: ignore[misc]
        version = records[-1].head.version
        if maker.size > SEGMENT_BYTES_MAX and version < preparing.last:
            raise TooLongError(version)
    if maker.last != snapshot.hash:
        raise Corrupt(f"Version {version} of session {session.id!r} is not the one that the state is of.", session=session.id)
    return await in_thread(lambda: maker.finish(snapshot))


async def prove_segment(
    codec: Codec, session: SessionKey, preparing: Preparing, before: Anchor | None, snapshot: Snapshot, data: bytes
) -> Anchor:
    """The anchor that a segment permits, after every record in it was checked, and its snapshot. Raises `Corrupt`."""
    return await in_thread(lambda: _prove(codec, session, preparing, before, snapshot, data))


def _prove(codec: Codec, session: SessionKey, preparing: Preparing, before: Anchor | None, snapshot: Snapshot, data: bytes) -> Anchor:
    index = pack.check_pack(data)
    packed = index.sessions[0] if len(index.sessions) == 1 else None
    if packed is None or packed.session != session or (packed.first, packed.last) != (preparing.first, preparing.last):
        raise Corrupt("It holds other records than it should.")
    if msgspec.convert(packed.note or {}, Note).before != before:
        raise Corrupt("It names another anchor before it.")
    prev = None if before is None else bytes.fromhex(before.hash)
    for frame in packed.frames:
        for record in pack.read_records(session, frame, data[frame.start : frame.end]):
            prev = _follows(codec, session, record, prev)
    digest = state_digest(codec.decode_snapshot(session, snapshot))
    found = [pack.read_snapshot(each, data[each.start : each.end]) for each in packed.snapshots if each.version == preparing.last]
    if prev != snapshot.hash or not found or state_digest(codec.decode_snapshot(session, found[0])) != digest:
        raise Corrupt("It ends with another commit or another state than it should.")
    return Anchor(
        version=preparing.last,
        hash=snapshot.hash.hex(),
        digest=digest.hex(),
        segment=preparing.segment,
        size=len(data),
        footer=pack.read_trailer(data[-pack.TRAILER_BYTES :], len(data)).footer_digest.hex(),
        before=0 if before is None else before.version,
        first=preparing.first,
    )
