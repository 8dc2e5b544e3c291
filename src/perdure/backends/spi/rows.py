"""What goes into an engine and comes out of it: appends and their outcomes, index rows, queries, pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from perdure.errors import Unsupported
from perdure.model.ids import SessionKey
from perdure.model.record import Durability, Head, Record, Snapshot

T = TypeVar("T")

APPENDS_MAX = 256
"""Most appends in one call."""
SCHEMA_VERSION = 2
"""The schema of a store that is made now. An older store opens and works; `perdure upgrade` changes it, and `open` never does."""
NEVER = -1
"""As `Index.due_at`: the session is not due any more."""


class Index(msgspec.Struct, frozen=True):
    """A change to the cells of a session's index row. `None` leaves a cell as it is.

    The cells after `tags` are there from schema 2 on. An engine stores them and decides nothing by them, but for the order `due`. On a
    store of schema 1 a value for one of them is refused with `Unsupported`; a removal changes nothing there and is not refused.
    """

    tags: Mapping[str, str] | None = None
    """All tags; `{}` removes them."""
    due_at: int | None = None
    """When somebody should look at the session, in nanoseconds since 1970; `NEVER` removes it."""
    control: bytes | None = None
    """Bytes that are opaque to the engine, at most `CONTROL_BYTES_MAX`; `b""` removes them."""
    size_bytes: int | None = None
    """About how many bytes the session's records take; 0: not known."""

    @property
    def needs_schema_2(self) -> bool:
        """Whether this sets a cell that a store of schema 1 does not have."""
        return self.due_at not in (None, NEVER) or bool(self.control) or bool(self.size_bytes)


class Append(msgspec.Struct, frozen=True):
    """One session's part of an `append`.

    `finish(head)` is pure and quick; `head` is `None` for a session that has no record. It returns the records to store,
    the first at `head.version + 1` (a new chain may start anywhere), or `None` to refuse this head. `key` is looked up, in
    everything up to the head, before `finish` is called.
    """

    session: SessionKey
    finish: Callable[[Head | None], Sequence[Record] | None]
    key: str | None = None
    index: Index | None = None
    durability: Durability = Durability.memory
    """The least level asked for."""


class Appended(msgspec.Struct, frozen=True, gc=False):
    """The records are stored; `head` is what they made and `previous` the head before them."""

    head: Head
    previous: Head | None
    id: bytes
    durability: Durability


class Refused(msgspec.Struct, frozen=True, gc=False):
    """`finish` refused this head; nothing of this append was stored."""

    head: Head | None


class Known(msgspec.Struct, frozen=True, gc=False):
    """The key was applied before, at `version`, for the request with this digest; nothing was stored now."""

    version: int
    request: bytes
    head: Head


Outcome = Appended | Refused | Known


class Row(msgspec.Struct, frozen=True):
    """A session's index row. `created_at` is the first record's time in nanoseconds; the cells after it are those of `Index`."""

    session: SessionKey
    head: Head
    tags: Mapping[str, str]
    created_at: int
    due_at: int | None = None
    """`None`: not due."""
    control: bytes = b""
    """`b""`: there is none."""
    size_bytes: int = 0
    """0: not known."""


class Loaded(msgspec.Struct, frozen=True):
    """What one round trip knows of a session: its index row, the newest snapshot at or below the version asked for, and
    the records after that snapshot (all of them, when there is none) up to that version."""

    row: Row
    snapshot: Snapshot | None
    records: Sequence[Record]


class Query(msgspec.Struct, frozen=True):
    """Which index rows `scan` returns: all conditions must hold. `status` of `None` is everything but deleted and moved.

    order   id: by the bytes of the id, one tenant's; due: rows that have a `due_at`, by (`due_at`, tenant, id)
    tenant  `None` is every tenant, and asks for the order `due`: `Unsupported` in another
    """

    tenant: str | None
    prefix: str = ""
    tags: Mapping[str, str] = {}
    status: int | None = None
    order: str = "id"
    due_before: int | None = None
    """Rows with a smaller `due_at` only; asks for the order `due`: `Unsupported` in another."""

    @property
    def one_tenant(self) -> str:
        """The tenant, for an order that lists one. Raises `Unsupported` where the query asks for every one, or for what is due."""
        if self.tenant is None or self.due_before is not None:
            raise Unsupported(f"A listing of every tenant, or of what is due, is in the order 'due', not {self.order!r}.")
        return self.tenant


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some results and the cursor of the next page; `None` at the end."""

    items: Sequence[T]
    cursor: str | None


class Change(msgspec.Struct, frozen=True, gc=False):
    """One record of `feed`, with the session that it belongs to."""

    session: SessionKey
    record: Record
