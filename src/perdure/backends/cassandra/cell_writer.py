"""Changes of cells. Each is conditional on the value that was read, so none is lost; a row of what is due is written before, see `due`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from perdure.backends.cassandra import cells, layout
from perdure.backends.cassandra.buckets import Chain, Spot
from perdure.backends.cassandra.cells import Fields
from perdure.backends.cassandra.due import DueRows
from perdure.errors import Unavailable
from perdure.model.ids import SessionKey

TRIES = 16
"""How often a change is tried that met another one."""


class Change(NamedTuple):
    """A change that is about to be written. `stored` and `fence` are what stands there; `before` are the session's cells."""

    fence: int | None
    stored: bytes | None
    before: bytes | None
    after: bytes | None


class CellWriter:
    """Changes cells, and keeps the rows of what is due in step."""

    def __init__(self, chain: Chain, due: DueRows) -> None:
        self._chain, self._client, self._due = chain, chain.client, due

    async def begin(self, session: SessionKey, spot: Spot, change: Callable[[Fields], Fields]) -> Change:
        """A change from what was read; where it makes the session due, the row is there already."""
        before = cells.decode(spot.cells)
        after = change(before)
        if after == before:
            return Change(spot.fence, spot.stored, spot.cells, spot.cells)
        if cells.DUE_AT in after and cells.DUE_ROW not in after:
            after[cells.DUE_ROW] = await self._due.put(session, after[cells.DUE_AT])
        return Change(spot.fence, spot.stored, spot.cells, msgspec.msgpack.encode(after))

    async def end(self, session: SessionKey, change: Change, *, stored: bool) -> None:
        """Remove the row that counts no more: the old one, or where nothing was stored the new one."""
        old, new = cells.due_row(change.before), cells.due_row(change.after)
        if old == new:
            return
        gone = old if stored else new
        if gone is not None:
            await self._due.drop(session, *gone)

    async def change(
        self, session: SessionKey, change: Callable[[Fields], Fields], wanted: Callable[[Spot], bool] = lambda spot: spot.header is not None
    ) -> bool:
        """Change the cells without a commit; false where the session is not as wanted. Raises `Unknown`, `Unavailable`."""
        for _ in range(TRIES):
            spot = await self._chain.spot(session)
            if not wanted(spot):
                return False
            begun = await self.begin(session, spot, change)
            if begun.after == begun.before:
                return True
            at = self._chain.at(session, spot.bucket)
            refused = await self._client.decide(
                ("change_cells", (begun.after, *at, layout.encode_head(spot.head), begun.fence, begun.stored))
            )
            await self.end(session, begun, stored=refused is None)
            if refused is None:
                return True
        raise Unavailable(f"Session {session.id!r} is being written to.")
