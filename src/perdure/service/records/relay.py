"""An engine behind the record face with nothing verified: it proves the transport. `perdure serve` cannot make one.

The conformance kit appends records that are opaque to engines, which a node refuses. So the kit runs through this.
"""

from __future__ import annotations

from collections.abc import Sequence

from perdure.backends.spi import Append, Durability, Head, Index, Record
from perdure.service.hooks import Credential
from perdure.service.records.face import Face, check_batch, entry_of
from perdure.wire import records as wire


class Relay(Face):
    """Passes on what it is given, on one condition: that the head is the expected one."""

    def check_tenant(self, caller: Credential | None, tenant: str | None) -> None:
        """Everything may be read."""

    async def append(self, caller: Credential | None, asked: wire.Append) -> wire.Appended:  # noqa: ARG002 - it takes what it is given
        """See `Face.append`."""
        check_batch(asked)
        outcomes = await self.backend.append([_append(attempt) for attempt in asked.attempts])
        return wire.Appended(tuple(map(entry_of, outcomes)))


def _append(attempt: wire.Attempt) -> Append:
    def finish(head: Head | None) -> Sequence[Record] | None:
        return attempt.records if attempt.expected == (None if head is None else (head.version, head.hash)) else None

    cells = attempt.index
    index = None if cells is None else Index(cells.tags, cells.due_at, cells.control, cells.size_bytes)
    return Append(attempt.session, finish, attempt.key, index, Durability(attempt.durability))
