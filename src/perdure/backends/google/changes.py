"""What changes a session beside its appends: cells of its index row, snapshots, truncation, purge. Each is one write on the condition of
what the session's header was; what it leaves goes afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from secrets import token_hex

import msgspec

from perdure.backends.common.pages import SNAPSHOTS_KEPT
from perdure.backends.common.pieces import cut, piece_name
from perdure.backends.common.refusals import check_anchor, check_deleted, check_snapshot_size, no_anchor, not_deleted
from perdure.backends.google import layout
from perdure.backends.google.entities import Entities, Fields, Path, Refused, Write
from perdure.backends.google.feed import Feed
from perdure.backends.google.gate import WriteGate
from perdure.backends.google.layout import SessionHeader
from perdure.backends.google.reader import Reader
from perdure.backends.spi import NEVER, Index, Row, Snapshot
from perdure.errors import Unavailable
from perdure.model.ids import SessionKey

RECORD_BYTES_MAX = 16 << 20
WHOLE_BYTES = 640 << 10
"""Bytes of a commit's meta and body, or of a snapshot, that lie in one entity; larger ones are cut. An entity takes 1 MiB."""
PIECE_BYTES = 960 << 10
NO_CELLS = Index({}, NEVER, b"", 0)
"""What a purge leaves of an index row."""
COMMIT_WRITES = 400
"""Entities in one commit; a service takes 500."""
TRIES = 12
"""How often a commit is made again because others were writing to the same sessions."""


class Changes(Reader):
    """The part of the driver that changes headers; `gate` is made when the store is opened."""

    gate: WriteGate

    def __init__(self, entities: Entities, place: str) -> None:
        super().__init__(entities)
        self._place = place
        self._feed = Feed(self)

    async def _cut(self, session: SessionKey, name: str, payload: bytes) -> int:
        """Store the pieces, one a request; how many they are."""
        pieces = cut(payload, PIECE_BYTES)
        for number, piece in enumerate(pieces):
            path = (*layout.session(session), "piece", piece_name(name, number))
            await self.entities.commit([Write(path, {"bytes": piece})])
        return len(pieces)

    async def change_index(self, row: Row, index: Index) -> bool:
        """See `SchemaDriver`. One request where the header is remembered as it is."""
        await self.gate.check()
        session, header = row.session, self._headers.get(row.session)
        for _ in range(TRIES):
            if header is None or (header.head, header.due_at) != (row.head, row.due_at):
                header = await self.header(session)
            if header is None or (header.head, header.due_at) != (row.head, row.due_at):
                return False
            if await self._set(session, header, header.changed(index), []):
                return True
            header = None
        raise Unavailable(f"Session {session.id!r} is written to all the time: change its index again.")

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot, *, size_bytes: int | None = None) -> None:
        """See `SchemaDriver`. Together with the header, which names it: a purge that comes between is not undone."""
        await self.gate.check()
        check_snapshot_size(snapshot, RECORD_BYTES_MAX, "this service")
        name, pieces, body = f"{layout.number(snapshot.version)}-snapshot-{token_hex(8)}", 0, snapshot.body
        for _ in range(TRIES):
            found = await self.read(session, snapshot.version - 1, snapshot.version + 1, 1, reverse=False)
            header = self._headers.get(session)
            if not found or found[0].head.hash != snapshot.hash or header is None:
                break
            sized = header.changed(Index(size_bytes=size_bytes))
            if snapshot.version < header.first:
                break
            if snapshot.version in header.snapshots:
                if sized == header or await self._set(session, header, sized, []):
                    break
                continue
            kept = sorted((*header.snapshots, snapshot.version))[-SNAPSHOTS_KEPT:]
            if snapshot.version not in kept:
                break
            if len(body) > WHOLE_BYTES:
                pieces, body = await self._cut(session, name, body), b""
            fields: Fields = {"hash": snapshot.hash, "body": body, "name": name, "pieces": pieces}
            removed, old = await self._snapshots_removed(session, [version for version in header.snapshots if version not in kept])
            writes = [Write(layout.snapshot(session, snapshot.version), fields), *removed]
            if await self._set(session, header, msgspec.structs.replace(sized, snapshots=kept), writes):
                await self._delete(old)
                return
        await self._delete([(*layout.session(session), "piece", piece_name(name, place)) for place in range(pieces)])

    async def _set(self, session: SessionKey, header: SessionHeader, changed: SessionHeader, beside: Sequence[Write]) -> bool:
        """Change a header that is still as it was read, and others with it; whether it was."""
        self._headers.pop(session)
        fields = layout.encode_header(session, changed, unlogged=changed.logged < changed.head.version)
        await self.gate.check()
        try:
            version, *_ = await self.entities.commit([Write(layout.session(session), fields, header.version), *beside])
        except Refused:
            return False
        self.remember(session, msgspec.structs.replace(changed, version=version))
        return True

    async def _snapshots_removed(self, session: SessionKey, versions: Sequence[int]) -> tuple[list[Write], list[Path]]:
        """The writes that remove these snapshots together with their names in the header, and the pieces that go afterwards. Removed later,
        they could be others: of the same version, put again."""
        found = await self.entities.get([layout.snapshot(session, version) for version in versions]) if versions else []
        pieces: list[Path] = []
        for entity in found:
            if entity is not None:
                *_, name, count = layout.decode_snapshot(entity)
                pieces += [(*layout.session(session), "piece", piece_name(name, place)) for place in range(count)]
        return [Write(entity.path, None) for entity in found if entity is not None], pieces

    async def _delete(self, paths: Sequence[Path]) -> None:
        for start in range(0, len(paths), COMMIT_WRITES):
            await self.entities.commit([Write(path, None) for path in paths[start : start + COMMIT_WRITES]])

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:
        """See `SchemaDriver`. The first version in the header is what counts; what lies below goes afterwards, also what an earlier
        truncation that was interrupted has left."""
        await self.gate.check()
        for _ in range(TRIES):
            found = await self.read(session, anchor[0] - 1, anchor[0] + 1, 1, reverse=False)
            header = self._headers.get(session)
            if not found or header is None:
                raise no_anchor(session, below, anchor)
            check_anchor(session, found[0], below, anchor)
            first = max(below, header.first)
            gone = [version for version in header.snapshots if snapshot or version < first - 1]
            kept = [version for version in header.snapshots if version not in gone]
            changed = msgspec.structs.replace(header, first=first, snapshots=kept)
            removed, pieces = await self._snapshots_removed(session, gone)
            if changed == header or await self._set(session, header, changed, removed):
                await self._delete(pieces)
                await self._drop(session, first)
                await self._feed.sweep(first - header.first)
                return
        raise Unavailable(f"Session {session.id!r} is written to all the time: truncate it again.")

    async def _drop(self, session: SessionKey, below: int) -> None:
        """Remove the records below a version, with their pieces."""
        for kind in ("record", "piece"):
            await self._remove(session, kind, "", layout.number(below))

    async def _remove(self, session: SessionKey, kind: str, low: str, high: str) -> None:
        above, most = layout.session(session), COMMIT_WRITES if kind == "key" else 4
        while found := await self.entities.query(above, kind, low, high, most):
            await self._delete([entity.path for entity in found])

    async def purge(self, session: SessionKey) -> None:
        """See `Driver`. The header becomes the stub first; the rest goes afterwards, also what a purge that was cut short has left."""
        await self.gate.check()
        for _ in range(TRIES):
            header = await self.header(session)
            if header is None:
                raise not_deleted(session)
            last = check_deleted(session, header.head).version
            if (header.purged and header.first == last and header.changed(NO_CELLS) == header) or await self._become_stub(session, header):
                await self._drop(session, last)
                await self._remove(session, "piece", "", layout.number(last + 1))
                await self._remove(session, "snapshot", "", layout.number(last + 1))
                await self._forget_keys(session, last)
                await self._feed.sweep(last - header.first)
                return
        raise Unavailable(f"Session {session.id!r} is written to all the time: purge it again.")

    async def _become_stub(self, session: SessionKey, header: SessionHeader) -> bool:
        """Leave of a session its last record without a body, and no cells."""
        found = await self.read(session, header.head.version - 1, header.head.version + 1, 1, reverse=False)
        if not found or found[0].head != header.head:
            return False
        blank = layout.encode_record(msgspec.structs.replace(found[0], body=b""), 0)
        stub = msgspec.structs.replace(header.changed(NO_CELLS), first=header.head.version, purged=True, snapshots=())
        return await self._set(session, header, stub, [Write(layout.record(session, header.head.version), blank)])

    async def _forget_keys(self, session: SessionKey, upto: int) -> None:
        """Remove the keys of a life that has ended; those of a next one stay."""
        low = ""
        while found := await self.entities.query(layout.session(session), "key", low, layout.END, COMMIT_WRITES):
            await self._delete([entity.path for entity in found if layout.decode_key(entity)[0] <= upto])
            low = found[-1].path[-1] + " "
