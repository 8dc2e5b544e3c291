"""What is stored of a session: its head, its records and its snapshots, as codec and engines hand them to each other."""

from __future__ import annotations

from enum import IntEnum

import msgspec

from perdure.model.commit import Kind


class Durability(IntEnum):
    """What a write survives, weakest first. A receipt names the level that was reached, never one that was hoped for."""

    memory = 0
    """Nothing: it is gone with the process."""
    buffered = 1
    """The process's death; not the machine's (the operating system, or another node's memory, holds it)."""
    local = 2
    """The machine's: synced to one node's disk."""
    quorum = 3
    """A minority of nodes: synced on a majority."""


class Head(msgspec.Struct, frozen=True, gc=False):
    """A session's newest position. `at` in nanoseconds; `data` is the version of the newest data commit (0: none yet);
    `epoch` is the fencing token in force; `status` is a `model.commit.Status`."""

    version: int
    hash: bytes
    at: int
    epoch: int
    status: int
    data: int


class Record(msgspec.Struct, frozen=True, gc=False):
    """A finished commit as an engine stores it. `meta` and `body` are opaque; `key` is its idempotency key.

    `request` is the digest stored with the key: `append` returns it for a known key.
    """

    head: Head
    id: bytes
    kind: int
    key: str | None
    request: bytes
    meta: bytes
    body: bytes

    @property
    def stored_bytes(self) -> int:
        """What this record weighs in a log, roughly and alike on every engine: its bytes and 96 for the columns."""
        return len(self.meta) + len(self.body) + 96

    @property
    def is_stub(self) -> bool:
        """Whether this is what a purge leaves of a session: the tombstone's place in the chain, without its body."""
        return self.kind == Kind.tombstone and not self.body


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """A sealed state at a version. Derived and rebuildable; `hash` is the commit's whose state it is."""

    version: int
    hash: bytes
    body: bytes
