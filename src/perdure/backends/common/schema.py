"""Schema versions and the cells that came with them: what every engine checks alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from perdure.backends.common.refusals import NUMBER_END
from perdure.backends.common.store_header import StoreHeader
from perdure.backends.spi import CONTROL_BYTES_MAX, NEVER, SCHEMA_VERSION, Finding, Index
from perdure.errors import Invalid, TooLarge, Unsupported
from perdure.model.ids import SessionKey

MIN_WRITER_SECONDS = 5.0
"""How long a writer goes by the least writer version that it read, on an engine that cannot compare it in a write."""
_INTEGER_END = 1 << 63


def writer_version(schema: int) -> int:
    """The version of a writer that opened a store of this schema."""
    return min(schema, SCHEMA_VERSION)


def check_writer(place: str, writer: int, min_writer: int) -> None:
    """Raise `Unsupported` for a write by a writer that the store does not take any more. Nothing was written."""
    if writer >= min_writer:
        return
    if min_writer > SCHEMA_VERSION:
        advice = (
            f"this version of Perdure is too old to write it (it writes schema {writer}, and {min_writer} is the least): upgrade perdure"
        )
    else:
        advice = "it was upgraded meanwhile: open it again, or where an upgrade was interrupted run `perdure upgrade` again"
    raise Unsupported(f"{place} was not written: {advice}.", advice="", min_writer=min_writer, writer=writer)


def check_migration(from_version: int) -> None:
    """Raise `Invalid` for a schema that no upgrade begins with."""
    if not 1 <= from_version < SCHEMA_VERSION:
        raise Invalid(f"There is no way to a newer schema from schema {from_version}.")


class WriterCheck:
    """For an engine that cannot compare `min_writer` in a write: what was read of it within `MIN_WRITER_SECONDS` decides.

    See `spi.Versioned`. `header` was just read; `read` asks the store again, once for all that wait; `tick` is a monotonic clock in
    seconds. Used on one loop.
    """

    def __init__(self, place: str, header: StoreHeader, read: Callable[[], Awaitable[int]], tick: Callable[[], float]) -> None:
        self._place, self._writer, self._read, self._tick = place, writer_version(header.schema), read, tick
        self._least, self._until = header.min_writer or 1, tick() + MIN_WRITER_SECONDS
        self._reading: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Before a write: raise `Unsupported` where the store takes writers of this version no more."""
        if self._tick() >= self._until:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read_again())
            await asyncio.shield(self._reading)
        check_writer(self._place, self._writer, self._least)

    async def _read_again(self) -> None:
        start = self._tick()
        self._least = await self._read()
        self._until = start + MIN_WRITER_SECONDS

    def forget(self) -> None:
        """Ask the store before the next write."""
        self._until = float("-inf")


def older_schema(schema: int) -> list[Finding]:
    """What is worth knowing of a store with this schema."""
    if schema >= SCHEMA_VERSION:
        return []
    what = f"The store has schema {schema}: it works, but has no place for what came with schema {SCHEMA_VERSION}."
    return [Finding("warning", "unsupported", what, "stop what uses the store, then run `perdure upgrade` on its URL")]


def check_index(session: SessionKey, index: Index | None, *, schema: int, alone: bool = False) -> None:
    """Raise `Invalid` or `TooLarge` for cells that no engine takes, `Unsupported` for those that this store has no place for.

    `alone`: they are changed without a commit, where tags are not.
    """
    if index is None:
        return
    if alone and index.tags is not None:
        raise Invalid(f"Tags of session {session.id!r} are changed by a commit only.")
    if index.due_at is not None and not NEVER <= index.due_at < _INTEGER_END:
        raise Invalid(f"due_at of session {session.id!r} is no time in nanoseconds since 1970: {index.due_at}.")
    if index.size_bytes is not None and not 0 <= index.size_bytes < _INTEGER_END:
        raise Invalid(f"size_bytes of session {session.id!r} is no number of bytes: {index.size_bytes}.")
    if index.control is not None and len(index.control) > CONTROL_BYTES_MAX:
        size = len(index.control)
        raise TooLarge(
            f"The control cell of session {session.id!r} has {size:,} bytes; {CONTROL_BYTES_MAX:,} is the most.",
            size=size,
            limit=CONTROL_BYTES_MAX,
        )
    if schema == 0 and (alone or index.needs_schema_2):
        raise Unsupported("This engine has no place for times that are due, policies and leases.")
    if schema < 2 and (alone or index.needs_schema_2):
        raise Unsupported(
            f"This store has schema {schema}, which has no place for times that are due, policies and leases: stop what uses it, and run"
            " `perdure upgrade` on its URL.",
            advice="",
        )


def write_due_cursor(due_at: int, session: SessionKey) -> str:
    """The cursor of a page in the order `due` that ends with this row."""
    return msgspec.json.encode((due_at, *session)).decode()


def read_due_cursor(cursor: str) -> tuple[int, SessionKey]:
    """The row that a page ended with. Raises `Invalid`."""
    try:
        due_at, tenant, id = msgspec.json.decode(cursor, type=tuple[int, str, str])
    except (msgspec.MsgspecError, UnicodeError):
        due_at, tenant, id = -1, "", ""
    if not 0 <= due_at < NUMBER_END:
        raise Invalid(f"{cursor!r:.200} is no cursor of a listing in the order 'due'.")
    return due_at, SessionKey(tenant, id)
