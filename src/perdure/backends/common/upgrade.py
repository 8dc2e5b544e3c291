"""An upgrade in several steps, for an engine that cannot make it one transaction: a lock in the store's header, the steps, the new schema.

Lock     a token and a count in the header, written by compare-and-swap. While an upgrade works it raises the count. Who finds a count that
         does not move for `LOCK_SECONDS` of its own clock takes the lock over: its holder was killed. No two clocks are compared
Writers  the header requires the new writer version before the first step, so that handles of the old schema write nothing beside it
Steps    each can be run again, and beside itself: a holder that was only slow meets its lost lock when it raises the count, or at the end
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from secrets import token_hex
from typing import Any, Protocol

import msgspec

from perdure.backends.spi import Progress
from perdure.errors import Busy, Invalid

LOCK_SECONDS = 10.0
"""How long the count stands still before the lock is taken over."""
BEATS = 4
"""How often the count is raised in that time."""


class SchemaState(msgspec.Struct, frozen=True):
    """What a store's header says of its schema. `lock` is `""` where nobody upgrades."""

    schema: int
    min_writer: int = 1
    lock: str = ""
    count: int = 0

    def within(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A header's fields under these names, changed to this: what is as it is without a field has none, other fields stay."""
        changed = {name: value for name, value in msgspec.structs.asdict(self).items() if value != getattr(DEFAULTS, name)}
        return {name: value for name, value in fields.items() if name not in self.__struct_fields__} | changed


DEFAULTS = SchemaState(schema=0)
"""What the fields that a header does not have stand for."""


class Headers(Protocol):
    """The header of one store."""

    async def read(self) -> SchemaState:
        """The header that is stored now, read so that it is certain."""
        ...

    async def swap(self, old: SchemaState, new: SchemaState) -> bool:
        """Store `new` if the header is still `old`; whether it was. Fields that are not of `SchemaState` stay as they are."""
        ...


Step = tuple[str, Callable[[], Awaitable[None]]]
"""What a step adds, and the step."""


async def upgrade(
    headers: Headers,
    from_version: int,
    steps: Sequence[Step],
    progress: Progress,
    *,
    settle_seconds: float = 0.0,
    lock_seconds: float = LOCK_SECONDS,
) -> None:
    """Bring a store from one schema to the next, see `spi.Versioned.migrate`. `settle_seconds` is how long a writer may go by an old
    `min_writer` (`Capabilities.min_writer_seconds`)."""
    token = token_hex(16)
    header = await _lock(headers, from_version, token, lock_seconds)
    if header is None:
        return
    beating = asyncio.create_task(_beat(headers, token, lock_seconds / BEATS))
    try:
        await _guarded(asyncio.sleep(settle_seconds), beating)
        for number, (what, step) in enumerate(steps):
            progress(what, number, len(steps))
            await _guarded(step(), beating)
        progress("writing it down", len(steps), len(steps))
    finally:
        beating.cancel()
        await asyncio.wait([beating])
    await _finish(headers, token, from_version + 1)


async def require_writer(headers: Headers, version: int) -> None:
    """Raise the header's `min_writer` to this version, see `spi.Versioned.require_writer`."""
    while (header := await headers.read()).min_writer < version:
        if await headers.swap(header, msgspec.structs.replace(header, min_writer=version)):
            return


async def _lock(headers: Headers, from_version: int, token: str, seconds: float) -> SchemaState | None:
    """Take the lock; `None` where the store has a newer schema already. Raises `Busy`, `Invalid`."""
    while True:
        header = await headers.read()
        if header.schema > from_version:
            return None
        if header.schema < from_version:
            raise Invalid(f"This store has schema {header.schema}, not {from_version}.")
        if header.lock:
            await asyncio.sleep(seconds)
            if await headers.read() != header:
                raise Busy("Another upgrade of this store is at work: wait for it.", advice="")
        locked = msgspec.structs.replace(header, min_writer=max(header.min_writer, from_version + 1), lock=token, count=0)
        if await headers.swap(header, locked):
            return locked


async def _beat(headers: Headers, token: str, seconds: float) -> None:
    """Raise the count again and again. Raises `Busy` when the lock is another's."""
    while True:
        await asyncio.sleep(seconds)
        header = await headers.read()
        if header.lock != token:
            raise Busy("Another upgrade took this one over, because it stood still for too long.", advice="")
        await headers.swap(header, msgspec.structs.replace(header, count=header.count + 1))


async def _guarded(step: Awaitable[None], beating: asyncio.Task[None]) -> None:
    """Run a step for as long as the lock is ours."""
    task = asyncio.ensure_future(step)
    try:
        await asyncio.wait([task, beating], return_when=asyncio.FIRST_COMPLETED)
        if beating.done():
            await beating
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _finish(headers: Headers, token: str, schema: int) -> None:
    while True:
        header = await headers.read()
        if header.lock != token:
            raise Busy("Another upgrade took this one over, because it stood still for too long.", advice="")
        if await headers.swap(header, msgspec.structs.replace(header, schema=schema, lock="", count=0)):
            return
