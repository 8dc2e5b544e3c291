"""What an engine behind a network implements: conditional writes of finished records, and reads. The rest is shared.

A driver is plain asyncio on one loop (`loop.IoLoop`), decides nothing about heads, keys or retries, and never sends a write twice by
itself: its client library's own retries must be off for writes. Errors are mapped at one line to `perdure.errors`:

    Unavailable  the write was certainly not applied (no connection, refused before it was sent, rolled back)
    Unknown      the request was sent and no answer came: it may have been applied, or may be later

Every call ends within the time-outs of the URL, also when the server hangs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec

from perdure.backends.spi import (
    Capabilities,
    Change,
    Checkup,
    Durability,
    Head,
    Index,
    Known,
    Loaded,
    Page,
    Progress,
    Query,
    Record,
    Row,
    Snapshot,
)
from perdure.errors import Error
from perdure.model.ids import SessionKey


class Attempt(msgspec.Struct, frozen=True):
    """Store `records`, `index` and the key if the session's head is `expected` (`None`: it has no record) and no record up to it has
    one of the records' keys. Frozen: after a lost answer it is sent again as it is."""

    session: SessionKey
    expected: Head | None
    records: Sequence[Record]
    key: str | None
    index: Index | None
    durability: Durability


class Stored(msgspec.Struct, frozen=True, gc=False):
    """The records are in the chain, safe to this level."""

    durability: Durability


class HeadMismatch(msgspec.Struct, frozen=True, gc=False):
    """The head was another, this one; nothing was stored. Whether a key is known up to it is another question. `proven`: it was compared
    with its newest record."""

    head: Head | None
    proven: bool = False


class RetryLater(msgspec.Struct, frozen=True, gc=False):
    """Nothing was done: the session is moving from node to node, and this will be over by itself. Tried again soon; `error` where that
    takes too long, or at once for one of several appends of a call."""

    error: Error


FinalAnswer = Stored | HeadMismatch | Known | Error
"""What became of one attempt. `Known` as in the specification. An error concerns this attempt alone."""
Answer = FinalAnswer | RetryLater


class Driver(Protocol):
    """One engine's requests. Made and used on one event loop; see the module."""

    capabilities: Capabilities
    store_id: str
    lanes: int
    """How many writes are worth having under way at once."""
    batch_max: int
    """Most attempts in one `write`."""
    durability_read: Durability
    """The level that a record has for certain when a linearizable read has shown it."""

    async def write(self, attempts: Sequence[Attempt]) -> Sequence[Answer]:
        """Try these attempts, each session at most once, in one round trip where the engine can; answers in their order.

        Atomic for each attempt. Raises an error only where it is true of every one: after a write of some, what goes wrong is the answer
        of those it concerns. `Corrupt`, `Invalid` or `TooLarge` that is raised, or is the answer of several, may be one attempt's fault:
        none of them was stored, and they are sent again in halves.
        """
        ...

    async def heads(self, sessions: Sequence[SessionKey]) -> Sequence[Head | None]:
        """See `spi.Backend.heads`. Linearizable: it sees every write that was acknowledged to anyone."""
        ...

    async def load(self, session: SessionKey, at: int | None) -> Loaded | None:
        """See `spi.Backend.load`."""
        ...

    async def read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> Sequence[Record]:
        """See `spi.Backend.read`. Linearizable."""
        ...

    async def find_key(self, session: SessionKey, key: str) -> Known | None:
        """See `spi.Backend.find_key`. Linearizable."""
        ...

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot) -> None:
        """See `spi.Backend.put_snapshot`."""
        ...

    async def scan(self, query: Query, cursor: str | None, limit: int) -> Page[Row]:
        """See `spi.Backend.scan`."""
        ...

    async def feed(self, cursor: str | None, limit: int) -> Page[Change]:
        """See `spi.Backend.feed`."""
        ...

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes]) -> None:
        """See `spi.Backend.truncate`."""
        ...

    async def purge(self, session: SessionKey) -> None:
        """See `spi.Backend.purge`."""
        ...

    async def checkup(self) -> Checkup:
        """What this server is, what weakens durability on it, and how to fix it. Reads only."""
        ...

    async def close(self) -> None:
        """Let go of what the driver opened; a client that the caller lent stays open."""
        ...


@runtime_checkable
class ProvingDriver(Protocol):
    """A driver that says whether `heads`, `load` and `find_key` compare a head with its newest record. See `proof`."""

    proves_heads: bool


@runtime_checkable
class PartitionedDriver(Protocol):
    """A driver that keeps beside a session's records what says where each of them lies."""

    async def check_layout(self, session: SessionKey, oldest: Record, *, whole: bool) -> None:
        """Compare that with the records, of which `oldest` is the first. `whole`: none was truncated. Raises `Corrupt`."""
        ...


@runtime_checkable
class SchemaDriver(Protocol):
    """A driver that knows schema 2. Its `capabilities.scan_orders` have `"due"` where the store that it opened does.

    What cells an `Attempt.index` sets was checked with its records. A write by a writer that is too old is answered with `Unsupported`.
    """

    schema: int
    """The schema of the store when it was opened."""

    async def change_index(self, row: Row, index: Index) -> bool:
        """See `spi.Indexed.change_index`; `index` was checked."""
        ...

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot, *, size_bytes: int | None = None) -> None:
        """See `spi.Indexed.put_snapshot`."""
        ...

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:
        """See `spi.Indexed.truncate`."""
        ...

    async def require_writer(self, version: int) -> None:
        """See `spi.Versioned.require_writer`."""
        ...

    async def migrate(self, from_version: int, progress: Progress) -> None:
        """See `spi.Versioned.migrate`."""
        ...
