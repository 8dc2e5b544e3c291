"""Snapshots: when one is due, and storing it. A snapshot is never the truth, so a failure to store one is no error."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from perdure.backends.spi import Backend, Snapshot, indexed
from perdure.codec.codec import Codec
from perdure.codec.envelope import payload_bytes
from perdure.engine.read.cache import Cache, CachedState
from perdure.errors import Error
from perdure.model.commit import Status
from perdure.model.ids import SessionKey
from perdure.model.policy import snapshot_due


class Snapshots:
    """Stores snapshots of the states of one connection. Safe from any thread and loop."""

    def __init__(self, backend: Backend, codec: Codec, cache: Cache, bytes_min: int) -> None:
        """`bytes_min`: a log that weighs less needs no snapshot."""
        self._backend, self._codec, self._cache, self._bytes_min = backend, codec, cache, bytes_min

    def is_due(self, cached: CachedState) -> bool:
        """Whether the log outweighs the last snapshot. That of an archived session is in the archive; a state from the shared cache is
        never stored."""
        if cached.from_shared or cached.head.status == Status.archived:
            return False
        return snapshot_due(cached.log_bytes, cached.snapshot_bytes, self._bytes_min)

    async def store(self, session: SessionKey, cached: CachedState, *, keep: bool = True) -> None:
        """Store a snapshot of this state, and count its log from zero.

        A snapshot that cannot be stored (it is too large, the disk is full) is left out until the next one is due. `keep` is false for a
        state that must not get into the cache.
        """
        head, size, total = cached.head, cached.snapshot_bytes, cached.size_bytes + cached.log_bytes
        with suppress(Error):
            snapshot = self._codec.encode_snapshot(session, head.version, head.hash, cached.state)
            size = len(snapshot.body)
            cached = msgspec.structs.replace(cached, state_bytes=payload_bytes(snapshot.body))
            await self._put(session, snapshot, total)
        if keep:
            self._cache.put(session, msgspec.structs.replace(cached, log_bytes=0, snapshot_bytes=size, size_bytes=total))

    async def _put(self, session: SessionKey, snapshot: Snapshot, size_bytes: int) -> None:
        if (backend := indexed(self._backend)) is not None:
            await backend.put_snapshot(session, snapshot, size_bytes=size_bytes)
        else:
            await self._backend.put_snapshot(session, snapshot)
