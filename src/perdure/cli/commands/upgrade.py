"""`perdure upgrade`: a store that an older version made gets the schema of this one. Nothing else ever changes a schema."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar, cast

import msgspec

from perdure.backends.registry import open_backend
from perdure.backends.spi import SCHEMA_VERSION, Backend, Progress, Versioned
from perdure.cli.common import COMMON, Common, not_there
from perdure.cli.exits import OK, UsageError
from perdure.cli.output.terminal import Terminal
from perdure.clock import SystemClock
from perdure.config import shown_url
from perdure.errors import NotFound, Unsupported

T = TypeVar("T")

CLOCK = SystemClock()
REMARK_SECONDS = 5.0
"""How often a long step says how far it is."""


class UpgradeRow(msgspec.Struct, frozen=True):
    """What became of a store."""

    url: str
    """Its URL."""
    store_id: str
    """The identity of the data, which stays."""
    was: int
    """The version of its schema before."""
    schema: int
    """The version of its schema now."""
    upgraded: bool
    """Whether anything was changed."""


def upgrade(url: str | None = None, /, *, common: Common = COMMON) -> int:
    """Give a store that an older version made the schema of this one. Opening a store never does that.

    Stop what uses the store first, and copy it. Sessions, commits and hashes stay as they are. A store that is up to date is left alone.

    The upgrade takes a lock. What still has the store open may go on reading, and is refused when it writes: open it there again.

    An upgrade that was interrupted, at whatever point, can be run again.

    Parameters
    ----------
    url
        The store's URL, as with --url.
    """
    terminal = common.terminal()
    if url is not None:
        if common.url is not None:
            raise UsageError("Name the store once: as the argument, or with --url.")
        common = replace(common, url=url)
    row = asyncio.run(_upgrade(common.address, terminal))
    if terminal.json:
        terminal.object(row)
    elif not terminal.quiet:
        terminal.print(f"schema {row.schema}, from {row.was}" if row.upgraded else f"schema {row.schema}: it is up to date")
    return OK


async def _upgrade(url: str, terminal: Terminal) -> UpgradeRow:
    store_id, was = await _with(url, _look)

    async def migrate(backend: Versioned) -> None:
        schema = backend.schema
        if schema >= SCHEMA_VERSION:
            return  # Another upgrade was faster.
        terminal.note(
            f"Upgrading {shown_url(url)} from schema {schema} to {schema + 1}. Nothing else should use it now: what has it open can read,"
            " and cannot write."
        )
        await backend.migrate(schema, _progress(terminal))

    for _ in range(was, SCHEMA_VERSION):
        await _with(url, migrate)
    _, schema = await _with(url, _look)
    return UpgradeRow(shown_url(url), store_id, was, schema, schema != was)


async def _with(url: str, work: Callable[[Versioned], Awaitable[T]]) -> T:
    """Do something with the engine of a store that has to be there, opened for this alone."""
    try:
        backend = await open_backend(url, clock=CLOCK, create=False)
    except NotFound as error:
        raise not_there(error) from None
    try:
        if not isinstance(backend, Versioned) or not backend.schema:
            raise Unsupported(f"The engine of {shown_url(url)} has no schema versions: there is nothing to upgrade.", advice="")
        return await work(backend)
    finally:
        await backend.close()


async def _look(backend: Versioned) -> tuple[str, int]:
    return cast(Backend, backend).store_id, backend.schema


def _progress(terminal: Terminal) -> Progress:
    """Remarks: one for each thing that is done, and while it lasts one every few seconds."""
    said, last = "", 0.0

    def show(what: str, done: int, total: int) -> None:
        nonlocal said, last
        now = CLOCK.monotonic()
        if what != said or now - last > REMARK_SECONDS:
            said, last = what, now
            terminal.note(f"{what} ({done:,} of {total:,})" if total else what)

    return show
