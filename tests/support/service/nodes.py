"""Nodes in threads of this process: a real server on a real port, with a loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any

import perdure
from perdure.backends.http import OPTIONS as URL_OPTIONS
from perdure.backends.http import HttpDriver, members
from perdure.backends.http.calls import Calls
from perdure.backends.http.pool import Member, Pool
from perdure.backends.remote import RemoteBackend, open_remote, parse_address
from perdure.backends.spi import Backend, Index, Progress, Row, Snapshot
from perdure.clock import SystemClock
from perdure.model.ids import SessionKey, system_tenant
from perdure.service.app import App
from perdure.service.hooks import Credential
from perdure.service.node import Node
from perdure.service.options import ServeOptions
from perdure.service.records.relay import Relay
from perdure.service.records.routes import routes
from perdure.service.records.verified import VerifiedFace
from perdure.service.server import Server, make_server
from perdure.wire import HEADER_STORE
from tests.support.backends.scenarios import opened

OPTIONS = ServeOptions(port=0, drain_delay=0, drain_timeout=1)


class Serving:
    """A node in a thread. `url` is where it listens; `core` are the parts of its store, `node` is itself."""

    def __init__(
        self,
        url: str,
        options: ServeOptions = OPTIONS,
        *,
        relay: bool = False,
        tenants: bool = False,
        node: dict[str, Any] | None = None,
        **opening: Any,
    ) -> None:
        """`opening` goes to `perdure.open`, `node` to `Node`. `tenants`: callers reach the sessions of every tenant."""
        self._tenants = tenants
        self._store_url, self._options, self._relay, self._opening, self._node = url, options, relay, opening, node or {}
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="node", daemon=True)
        self._failed: BaseException | None = None
        self.url = ""
        self.node: Node
        self.backend: Backend
        self._server: Server

    def start(self) -> Serving:
        """Return when it listens."""
        self._thread.start()
        assert self._started.wait(30)
        if self._failed is not None:
            raise self._failed
        return self

    async def _run(self) -> None:
        try:
            async with perdure.open("memory:" if self._relay else self._store_url, **self._opening) as store, AsyncExitStack() as stack:
                self.loop = asyncio.get_running_loop()
                self.node = Node(store, self._options, **self._node)
                self.core = store._context.core
                self.backend = self.core.backend
                self._server = make_server(self.node, self._listens)
                face = EveryTenant if self._tenants else VerifiedFace
                self.node.part(VerifiedFace, lambda node: face(self.core, node.options.max_body))
                if self._relay:
                    self.backend = await stack.enter_async_context(opened(self._store_url))
                    self._server.config.loaded_app = relaying(self.node, self.backend)
                await self._server.serve()
        except BaseException as error:  # noqa: BLE001 - raised where it is started
            self._failed = error
        finally:
            self._started.set()

    def _listens(self, urls: list[str]) -> None:
        self.url = urls[0]
        self._started.set()

    def stop(self) -> None:
        """End it."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._end)
            self._thread.join(30)

    def _end(self) -> None:
        self.node.close()
        self._server.should_exit = True


class EveryTenant(VerifiedFace):
    """As a node's, for tests that use tenants of their own. Perdure's own sessions of the whole store are out of reach here too."""

    def check_tenant(self, caller: Credential | None, tenant: str | None) -> None:
        if tenant == system_tenant():
            super().check_tenant(caller, tenant)

    def sees(self, caller: Credential | None, session: SessionKey) -> bool:
        return session.tenant != system_tenant()


def relaying(node: Node, backend: Backend) -> App:
    """An application that answers for this engine, and verifies nothing."""
    relay = Relay(backend)
    app = App(node, routes(lambda _: (relay, None)))
    app._common = ((HEADER_STORE.lower().encode(), backend.store_id.encode()), *app._common[1:])
    return app


@contextmanager
def serving(url: str, **options: Any) -> Iterator[Serving]:
    """A node that ends with the block."""
    node = Serving(url, **options).start()
    try:
        yield node
    finally:
        node.stop()


@contextmanager
def serving_many(url: str, count: int, **options: Any) -> Iterator[list[Serving]]:
    """Nodes on one store, each with an engine of its own."""
    with ExitStack() as stack:
        yield [stack.enter_context(serving(url, **options)) for _ in range(count)]


def url_of(nodes: Sequence[Serving]) -> str:
    """The URL of several nodes, as `perdure.open` takes it."""
    return "http://" + ",".join(node.url.removeprefix("http://") for node in nodes)


class Rotating(Pool):
    """Each request goes to the node after the one that took the last: no session is at home anywhere."""

    _turn = -1

    def home(self, key: bytes, *, writes: bool = False) -> Member | None:
        return None

    def choose(self, tried: Collection[Member] = (), *, writes: bool = False) -> Member:
        self._turn += 1
        return self.members[self._turn % len(self.members)]


def rotate(store: perdure.Store) -> None:
    """Let every request of this client go to another node than the last."""
    calls = store._core.backend.driver.calls  # type: ignore[attr-defined]
    calls._pool = Rotating([member.url for member in calls._pool.members], SystemClock().monotonic, SystemClock().bits)


class DirectDriver(HttpDriver):
    """As the driver; what the record face leaves to nodes goes to the engine that it serves, so that the conformance kit can ask for it."""

    def __init__(self, calls: Calls, direct: Callable[[], Any]) -> None:
        super().__init__(calls)
        self._direct = direct

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot, *, size_bytes: int | None = None) -> None:
        if size_bytes is None:
            await self._direct().put_snapshot(session, snapshot)
        else:
            await self._direct().put_snapshot(session, snapshot, size_bytes=size_bytes)

    async def change_index(self, row: Row, index: Index) -> bool:
        return bool(await self._direct().change_index(row, index))

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:
        await self._direct().truncate(session, below, anchor, snapshot=snapshot)

    async def purge(self, session: SessionKey) -> None:
        await self._direct().purge(session)

    async def require_writer(self, version: int) -> None:
        await self._direct().require_writer(version)

    async def migrate(self, from_version: int, progress: Progress) -> None:
        await self._direct().migrate(from_version, progress)


@asynccontextmanager
async def through(*nodes: Serving) -> AsyncIterator[RemoteBackend]:
    """The engine that relays serve, through their wire: each request by the next one of them."""
    address = parse_address(url_of(nodes), URL_OPTIONS)

    async def connect() -> HttpDriver:
        pool = Rotating(members(address), asyncio.get_running_loop().time, SystemClock().bits)
        calls = Calls(pool, None, True, timeout=10, connect_timeout=5, connections=16, place=address.place)
        driver = DirectDriver(calls, lambda: nodes[0].backend)
        await driver.start()
        return driver

    backend = await open_remote(connect, place=address.place, timeout=10)
    try:
        yield backend
    finally:
        await backend.close()
