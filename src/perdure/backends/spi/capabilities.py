"""What an engine says of itself: what it can do, and what of its server is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from perdure.model.record import Durability


class Capabilities(msgspec.Struct, frozen=True):
    """What an engine can do: declared, and checked by the conformance kit."""

    durability: Durability
    """The strongest level it can reach."""
    linearizable_reads: bool
    """A read that starts after an append returned sees it, from any process."""
    failover_loss: Durability | None
    """Writes acknowledged at this level or below may be lost by a failover; `None`: there is no failover."""
    atomic_batch: bool
    """All sessions of one `append` call become visible at once."""
    keys_remembered: int | None
    """How many newest idempotency keys of a session are known; `None`: all, for ever."""
    notification: bool
    """It notifies of new records without being asked again and again: it is `Notifying`."""
    record_bytes_max: int
    """Largest `meta` plus `body` it takes as one record."""
    scan_orders: tuple[str, ...] = ("id",)
    """The orders of `scan`. With `"due"` the store has schema 2: it is `Indexed`, and takes every cell of `Index`."""
    batched: bool = True
    """Appends of one call share a transaction or a round trip. Where each is a write of its own, each is handed over by itself, so that
    none waits for the slowest."""
    shared: bool = True
    """Several processes can open the same data at once."""
    read_proves: Durability | None = None
    """The level that a commit has for certain when a read has shown it; `None`: the strongest."""
    min_writer_seconds: float = 0.0
    """How long a writer may go by what it knew of the store's `min_writer`. 0: each write compares it."""

    def proven(self, asked: Durability) -> Durability:
        """What a receipt may say of a commit that a read has shown, when this level was asked for."""
        return min(asked, self.durability, self.durability if self.read_proves is None else self.read_proves)


class Finding(NamedTuple):
    """Something about a server that is wrong, or may become so."""

    level: Literal["bad", "warning"]
    """bad: commits can be lost or refused; warning: worth knowing."""
    code: str
    """The `code` of the error that it is or would become."""
    what: str
    """What is wrong, as one sentence."""
    mend: str
    """What to do about it."""


class Checkup(NamedTuple):
    """What a server says of itself."""

    facts: Mapping[str, str]
    """By short names, as a person reads them: `{"server": "PostgreSQL 18.1", "fsync": "on"}`."""
    findings: Sequence[Finding]
