"""Segments of the archive: packs of one session each, in a place beside the store, read a frame at a time.

Name   segments/<tenant>/<session>/<first>-<last>-<random>. A name is used once.
Note   a segment's note names the anchor before it, so that from the newest anchor all segments are found.
Purge  an object purged-<version> in the same folder, before a segment is removed: those up to that tombstone may be gone. It outlives a
       purge that is interrupted, whatever is written to the session then.

What is read is checked: the footer with the digest that the anchor commit has, each frame with the digest that the footer has.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.codec import pack
from perdure.codec.pack import Frame, PackedSession, PackIndex
from perdure.concurrency.critical_section import CriticalSection
from perdure.errors import Corrupt, Unsupported
from perdure.lru import LruMap
from perdure.model.anchor import Anchor
from perdure.model.ids import SessionKey
from perdure.model.record import Record, Snapshot
from perdure.places.names import object_name

if TYPE_CHECKING:
    from perdure.places.place import Place

HOW_TO_HAVE_ONE = "open the store with archive=, such as archive='file:///folder', or a service's nodes with --archive"
"""What to do where something needs an archive."""
FOLDER = "segments"
"""Where segments lie in a place. Other things that lie beside a store have other folders."""
TAIL_BYTES = 32 << 10
"""Bytes of a segment's end that are read first: mostly they hold the footer."""
_PURGED = "purged-"
"""The last part of such an object's name begins with it."""
INDEXES_MAX = 1_024
"""Segments of which it is remembered what they hold."""
FRAMES_BYTES = 16 << 20
"""About how many bytes of records from segments are kept in memory, for the pages that are read next."""


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a segment says beside its records."""

    before: Anchor | None = None
    """The anchor before it."""


class Segment(msgspec.Struct, frozen=True):
    """A segment: the anchor that names it, what it holds, and what it says beside that."""

    session: SessionKey
    anchor: Anchor
    packed: PackedSession
    note: Note

    @property
    def first(self) -> int:
        """The version of its first record."""
        return self.packed.first


class Segments:
    """The segments of one connection. Without a place there are none, and a session that has some cannot be read there."""

    def __init__(self, place: Place | None) -> None:
        self._place = place
        self._indexes = LruMap[str, Segment](INDEXES_MAX)
        self._frames = LruMap[tuple[str, int], Sequence[Record]](
            FRAMES_BYTES, lambda records: sum(record.stored_bytes for record in records), keep_newest=True
        )
        self._section = CriticalSection()

    @property
    def has_place(self) -> bool:
        """Whether segments can be read and written."""
        return self._place is not None

    def place(self, session: SessionKey, why: str = "are in an archive") -> Place:
        """The place. Raises `Unsupported` naming the option."""
        if self._place is None:
            raise Unsupported(f"Commits of session {session.id!r} {why}: {HOW_TO_HAVE_ONE}.", session=session.id)
        return self._place

    @staticmethod
    def name(session: SessionKey, segment: str) -> str:
        """The whole name of a segment."""
        return object_name(FOLDER, *session, segment)

    async def open(self, session: SessionKey, anchor: Anchor) -> Segment:
        """The segment that an anchor names. Raises `Corrupt` naming it where it is missing or damaged, `Unsupported` without a place."""
        name = self.name(session, anchor.segment)
        known = self._indexes.get(name)
        if known is not None and known.anchor == anchor:
            return known
        tail = await self._range(session, anchor, max(0, anchor.size - TAIL_BYTES), anchor.size)
        try:
            trailer = pack.read_trailer(tail, anchor.size)
            if trailer.footer_digest.hex() != anchor.footer:
                raise Corrupt("Its footer is not the one that the anchor names.")
            start = trailer.footer_start - (anchor.size - len(tail))
            footer = tail[start : -pack.TRAILER_BYTES] if start >= 0 else None
            if footer is None:
                footer = await self._range(session, anchor, trailer.footer_start, trailer.footer_end)
            segment = self._segment(session, anchor, pack.read_index(footer, trailer))
        except Corrupt as error:
            raise self.damaged(session, anchor.segment, error) from error
        self._indexes.put(name, segment)
        return segment

    async def find(self, session: SessionKey, anchor: Anchor) -> Segment | None:
        """As `open`; `None` where a purge has begun to remove it."""
        try:
            return await self.open(session, anchor)
        except Corrupt:
            if anchor.version > await self.purged(session):
                raise
        return None

    def _segment(self, session: SessionKey, anchor: Anchor, index: PackIndex) -> Segment:
        """Raises `Corrupt` unless the pack is of this session, up to the anchor's version, with its snapshot."""
        packed = index.sessions[0] if len(index.sessions) == 1 else None
        if packed is None or packed.session != session or packed.last != anchor.version:
            raise Corrupt("It holds something else than the anchor says.")
        if not any((each.version, each.hash.hex()) == (anchor.version, anchor.hash) for each in packed.snapshots):
            raise Corrupt("It has no snapshot of the anchor's version.")
        try:
            note = msgspec.convert(packed.note or {}, Note)
        except msgspec.ValidationError as error:
            raise Corrupt(f"Its note is damaged: {error}.") from error
        return Segment(session, anchor, packed, note)

    async def chain(self, session: SessionKey, anchor: Anchor | None) -> AsyncGenerator[Segment, None]:
        """The segments from this anchor's on, the newest first, up to one whose records were dropped or purged. Raises as `open`."""
        first: int | None = None
        while anchor is not None and not anchor.dropped:
            segment = await self.find(session, anchor)
            if segment is None:
                return
            if first is not None and anchor.version != first - 1:
                raise self.damaged(session, anchor.segment, Corrupt("It does not end where the next one begins."))
            yield segment
            first, anchor = segment.first, segment.note.before

    async def records(self, segment: Segment, frame: Frame) -> Sequence[Record]:
        """The records of one frame. Raises as `open`."""
        key = segment.anchor.segment, frame.start
        known = self._frames.get(key)
        if known is None:
            stored = await self._range(segment.session, segment.anchor, frame.start, frame.end)
            try:
                known = pack.read_records(segment.session, frame, stored)
            except Corrupt as error:
                raise self.damaged(segment.session, segment.anchor.segment, error) from error
            with self._section:
                self._frames.put(key, known)
        return known

    async def snapshot(self, segment: Segment) -> Snapshot:
        """The snapshot of the anchor's version. Raises as `open`."""
        frame = next(each for each in segment.packed.snapshots if each.version == segment.anchor.version)
        stored = await self._range(segment.session, segment.anchor, frame.start, frame.end)
        try:
            return pack.read_snapshot(frame, stored)
        except Corrupt as error:
            raise self.damaged(segment.session, segment.anchor.segment, error) from error

    async def check(self, segment: Segment) -> None:
        """Read the whole segment, unless a purge has removed it, and compare it with its SHA-256. Raises as `open`."""
        name = self.name(segment.session, segment.anchor.segment)
        data = await self.place(segment.session).get(name)
        if data is None:
            self._indexes.pop(name)
            if segment.anchor.version <= await self.purged(segment.session):
                return
        try:
            if data is None or len(data) != segment.anchor.size:
                raise Corrupt(_MISSING if data is None else f"It has {len(data):,} bytes where the anchor says {segment.anchor.size:,}.")
            pack.check_pack(data)
        except Corrupt as error:
            raise self.damaged(segment.session, segment.anchor.segment, error) from error

    async def _range(self, session: SessionKey, anchor: Anchor, start: int, end: int) -> bytes:
        data = await self.place(session).get(self.name(session, anchor.segment), start, end)
        if data is None or len(data) != end - start:
            error = Corrupt(_MISSING if data is None else "It is cut off.")
            raise self.damaged(session, anchor.segment, error)
        return data

    def damaged(self, session: SessionKey, segment: str, error: Any) -> Corrupt:
        """The error for a segment that cannot be read, which names it."""
        where = f"{self.place(session).shown}: {self.name(session, segment)}"
        return Corrupt(
            f"The segment {segment!r} of session {session.id!r} cannot be read. {error.detail}",
            session=session.id,
            segment=where,
            advice=f"It is {where}. Bring it back from a copy of the archive; what the store itself holds is as it was.",
        )

    async def list(self, session: SessionKey) -> Sequence[str]:
        """The segments of a session that the place holds, as the last parts of their names: those of earlier lives, and orphans, too."""
        return [name for name in await self._names(session) if not name.startswith(_PURGED)]

    async def purged(self, session: SessionKey) -> int:
        """The tombstone's version up to which a purge has begun to remove segments, and no fork reads; 0: none has."""
        return max((_purged(name) for name in await self._names(session)), default=0)

    async def _names(self, session: SessionKey) -> Sequence[str]:
        place, folder = self.place(session), object_name(FOLDER, *session)
        found: list[str] = []
        after = ""
        while names := await place.list(folder, after):
            after = names[-1]
            found += [name.rpartition("/")[2] for name in names]
        return found

    async def begin_purge(self, session: SessionKey, version: int) -> None:
        """Say that the segments up to a tombstone may be gone from now on. Raises `Unavailable`."""
        await self.place(session).put(self.name(session, f"{_PURGED}{version}"), b"purged")

    async def end_purge(self, session: SessionKey, version: int) -> None:
        """Take that back: the engine has nothing any more that names those segments. Raises `Unavailable`."""
        await self.remove(session, [name for name in await self._names(session) if 0 < _purged(name) <= version])

    async def remove(self, session: SessionKey, segments: Sequence[str]) -> None:
        """Remove segments, where they are there. Raises `Unavailable`: call it again."""
        if segments:
            await self.place(session).delete_many([self.name(session, segment) for segment in segments])

    async def close(self) -> None:
        """Let go of the place."""
        if self._place is not None:
            await self._place.close()


def _purged(name: str) -> int:
    """The version in the name of an object that says that a purge has begun; 0: it is a segment."""
    return int(name.removeprefix(_PURGED)) if name.startswith(_PURGED) else 0


_MISSING = "It is not there."
