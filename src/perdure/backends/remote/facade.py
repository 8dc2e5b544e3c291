"""A `Backend` from a driver: calls of any loop or thread run on the one loop that owns the driver's client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from perdure.backends.common.refusals import head_differs
from perdure.backends.common.schema import check_index, check_migration
from perdure.backends.remote.appender import Appender
from perdure.backends.remote.driver import Driver, SchemaDriver
from perdure.backends.remote.listening import Listener, NotificationSource
from perdure.backends.remote.loop import LOOP_FACTORY, IoLoop
from perdure.backends.remote.proof import Check
from perdure.backends.remote.urls import Address
from perdure.backends.spi import (
    APPENDS_MAX,
    Append,
    Attentive,
    Capabilities,
    Change,
    Checkup,
    Head,
    Hear,
    Identified,
    Index,
    Known,
    Loaded,
    Outcome,
    Page,
    Progress,
    Query,
    Record,
    Row,
    Snapshot,
)
from perdure.errors import Closed, Invalid, Unsupported
from perdure.model.ids import SessionKey
from perdure.redaction import Secrets

T = TypeVar("T")
D = TypeVar("D", bound=Driver)


async def open_remote(
    connect: Callable[[], Awaitable[Driver]],
    *,
    place: str,
    timeout: float,
    secrets: Secrets | None = None,
    kind: type[RemoteBackend] | None = None,
    any_loop: bool = False,
) -> RemoteBackend:
    """Connect a driver on a loop of its own. `place` is the URL without its `secrets`, which are kept out of every error; `timeout` in
    seconds, see `Appender`. `kind`: what is made, if not a plain `RemoteBackend`. `any_loop`: whether the driver's client uses of a loop
    only what all loops do alike, also where connections break: then the loop is one of `LOOP_FACTORY`."""
    io = IoLoop(f"perdure-{place.partition(':')[0]}", LOOP_FACTORY.get() if any_loop else asyncio.new_event_loop)

    async def start() -> tuple[Driver, Appender]:
        driver = await connect()
        return driver, Appender(driver, timeout=timeout, tick=time.monotonic)

    try:
        driver, appender = await io.call(start())
    except BaseException:
        io.close()
        raise
    return (kind or RemoteBackend)(io, driver, appender, place, timeout, secrets or Secrets(place))


async def open_address(
    address: Address,
    connect: Callable[[], Awaitable[D]],
    start: Callable[[D], Awaitable[object]],
    kind: type[RemoteBackend] | None = None,
) -> RemoteBackend:
    """As `open_remote`, for a URL with the option `timeout`: `connect` makes a driver, `start` starts it. A driver that cannot be started
    is closed."""

    async def started() -> Driver:
        driver = await connect()
        try:
            await start(driver)
        except BaseException:
            await driver.close()
            raise
        return driver

    return await open_remote(started, place=address.place, secrets=address.secrets, timeout=address.options["timeout"], kind=kind)


class RemoteBackend:
    """One open engine behind a network. Made by `open_remote`."""

    def __init__(self, io: IoLoop, driver: Driver, appender: Appender, place: str, timeout: float, secrets: Secrets) -> None:
        self._io, self._driver, self._appender, self._place, self._timeout = io, driver, appender, place, timeout
        self._secrets = secrets
        self._listener: Listener | None = None
        self._capabilities = msgspec.structs.replace(driver.capabilities, read_proves=driver.durability_read)
        self._while_moving = msgspec.structs.replace(self._capabilities, batched=False)
        self._closed = False

    def __repr__(self) -> str:
        return f"<RemoteBackend [{'closed' if self._closed else 'open'}] {self._place}>"

    @property
    def capabilities(self) -> Capabilities:
        """What the engine declares; while sessions are moving from node to node, appends are to be handed over each by itself."""
        return self._while_moving if self._appender.moving else self._capabilities

    @property
    def store_id(self) -> str:
        return self._driver.store_id

    @property
    def schema(self) -> int:
        """See `spi.Versioned.schema`."""
        return self._driver.schema if isinstance(self._driver, SchemaDriver) else 0

    @property
    def driver(self) -> Driver:
        """The engine's own half; its methods belong to `run`."""
        return self._driver

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop that owns the client."""
        if self._closed:
            work.close()
            raise Closed
        try:
            return await self._io.call(work)
        except Exception as error:  # noqa: BLE001 - raised below, and not from here: it would keep what it was before as its context
            failed = self._secrets.cleaned(error)
        raise failed

    async def append(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
        """See `spi.Backend.append`."""
        if not 1 <= len(appends) <= APPENDS_MAX:
            raise Invalid(f"One call takes 1 to {APPENDS_MAX} appends, not {len(appends)}.")
        strongest = self.capabilities.durability
        if any(append.durability > strongest for append in appends):
            return [await self._append_one(append) for append in appends]
        return await self._append(appends)

    async def _append(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
        outcomes = await self.run(self._appender.append(appends))
        return [self._secrets.cleaned(outcome) if isinstance(outcome, BaseException) else outcome for outcome in outcomes]

    async def _append_one(self, append: Append) -> Outcome | BaseException:
        strongest = self.capabilities.durability
        if append.durability > strongest:
            return Unsupported(f"This server reaches the durability {strongest.name!r}, not {append.durability.name!r}.")
        return (await self._append([append]))[0]

    @property
    def hears(self) -> bool:
        return self._listener is not None and self._listener.hears

    async def listen(self, hear: Hear) -> None:
        """See `spi.Notifying.listen`."""
        if not self.capabilities.notification or not isinstance(self._driver, NotificationSource):
            raise Unsupported("This engine does not notify of new records: look at the heads.")
        if self._listener is None:
            self._listener = Listener(self._driver)
        await self.run(self._listener.listen(hear, self._timeout))

    def attend(self, what: SessionKey | str, *, watched: bool) -> None:
        """See `spi.Attentive`. Nothing, where the engine notifies of everything at no cost."""
        if isinstance(self._driver, Attentive):
            self._driver.attend(what, watched=watched)

    async def heads(self, sessions: Sequence[SessionKey]) -> Sequence[Head | None]:
        """See `spi.Backend.heads`."""
        return await self.run(self._heads(sessions))

    async def _heads(self, sessions: Sequence[SessionKey]) -> Sequence[Head | None]:
        heads = await self._driver.heads(sessions)
        for session, head in zip(sessions, heads, strict=True):
            self._appender.learn(session, head, proven=self._appender.proof.by_driver)
        return heads

    async def load(self, session: SessionKey, at: int | None = None) -> Loaded | None:
        """See `spi.Backend.load`."""
        return await self.run(self._load(session, at))

    async def _load(self, session: SessionKey, at: int | None) -> Loaded | None:
        loaded = await self._driver.load(session, at)
        if loaded is not None:
            head, last = loaded.row.head, loaded.records[-1].head if loaded.records else None
            if last is not None and last.version == head.version:
                if last != head:
                    raise head_differs(session)
            elif not self._appender.proof.by_driver and not self._appender.knows(session, head):
                await self._appender.proof.prove(session, head)
            self._appender.learn(session, head, proven=True)
        return loaded

    async def read(
        self, session: SessionKey, *, after: int = 0, before: int | None = None, limit: int = 256, reverse: bool = False
    ) -> Sequence[Record]:
        """See `spi.Backend.read`."""
        return await self.run(self._driver.read(session, after, before, limit, reverse=reverse))

    async def find_key(self, session: SessionKey, key: str) -> Known | None:
        """See `spi.Backend.find_key`."""
        return await self.run(self._find_key(session, key))

    async def _find_key(self, session: SessionKey, key: str) -> Known | None:
        known = await self._driver.find_key(session, key)
        if known is None or self._appender.proof.by_driver or self._appender.knows(session, known.head):
            return known
        head = await self._appender.proof.prove(session, known.head)
        return None if head is None else Known(known.version, known.request, head)

    def prove_with(self, check: Check) -> None:
        """See `spi.Proving.prove_with`."""
        self._appender.proof.check = check

    async def copies(self, session: SessionKey) -> None:
        """See `spi.Proving.copies`: the head, the idempotency keys and the listings."""
        await self.run(self._appender.proof.check_copies(session))

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot, *, size_bytes: int | None = None) -> None:
        """See `spi.Indexed.put_snapshot`."""
        if size_bytes is None:
            await self.run(self._driver.put_snapshot(session, snapshot))
        else:
            check_index(session, Index(size_bytes=size_bytes), schema=self.schema)
            await self.run(self._schema_driver.put_snapshot(session, snapshot, size_bytes=size_bytes))

    @property
    def _schema_driver(self) -> SchemaDriver:
        if not isinstance(self._driver, SchemaDriver):
            raise Unsupported("This engine has no schema versions.", advice="")
        return self._driver

    async def change_index(self, row: Row, index: Index) -> bool:
        """See `spi.Indexed.change_index`."""
        check_index(row.session, index, schema=self.schema, alone=True)
        return await self.run(self._schema_driver.change_index(row, index))

    async def scan(self, query: Query, *, cursor: str | None = None, limit: int = 100) -> Page[Row]:
        """See `spi.Backend.scan`."""
        if query.order not in self.capabilities.scan_orders:
            raise Unsupported(f"This engine lists in the orders {', '.join(self.capabilities.scan_orders)}, not {query.order!r}.")
        return await self.run(self._driver.scan(query, cursor, limit))

    async def feed(self, cursor: str | None = None, limit: int = 256) -> Page[Change]:
        """See `spi.Backend.feed`."""
        return await self.run(self._driver.feed(cursor, limit))

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:
        """See `spi.Indexed.truncate`."""
        if snapshot:
            await self.run(self._schema_driver.truncate(session, below, anchor, snapshot=True))
        else:
            await self.run(self._driver.truncate(session, below, anchor))

    async def purge(self, session: SessionKey) -> None:
        """See `spi.Backend.purge`."""
        await self.run(self._driver.purge(session))

    async def require_writer(self, version: int) -> None:
        """See `spi.Versioned.require_writer`."""
        await self.run(self._schema_driver.require_writer(version))

    async def migrate(self, from_version: int, progress: Progress) -> None:
        """See `spi.Versioned.migrate`."""
        check_migration(from_version)
        await self.run(self._schema_driver.migrate(from_version, progress))

    async def settled(self, session: SessionKey) -> None:
        """See `spi.Settling.settled`."""
        await self.run(self._appender.settled(session))

    async def identify(self) -> str | None:
        """See `spi.Identified`."""
        return await self.run(self._driver.identify()) if isinstance(self._driver, Identified) else None

    async def checkup(self) -> Checkup:
        """See `spi.Examined`."""
        return await self.run(self._driver.checkup())

    async def close(self) -> None:
        """See `spi.Backend.close`."""
        if self._closed:
            return
        self._closed = True
        try:
            await self._io.call(self._end())
        finally:
            self._io.close()

    async def _end(self) -> None:
        await self._appender.drain()
        if self._listener is not None:
            await self._listener.close()
        await self._driver.close()
