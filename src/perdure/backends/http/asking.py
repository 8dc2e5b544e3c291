"""What a client leaves to the engine of a node: requests to resource routes, and leases that are kept there. See `spi.Served`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any, cast

import msgspec

from perdure.backends.http.calls import Calls, Resource
from perdure.backends.http.driver import HttpDriver
from perdure.backends.remote import RemoteBackend
from perdure.errors import Deleted, Error, Fenced, NotFound, Unknown
from perdure.model.ids import SessionKey

CONFIRMS = 3
"""How often in its ttl the holder of a lease is said to be alive."""


class HttpBackend(RemoteBackend):
    """A service. `driver` is an `HttpDriver`."""

    @property
    def _http(self) -> HttpDriver:
        return cast(HttpDriver, self.driver)

    @property
    def archives(self) -> bool:
        """See `spi.Served.archives`."""
        return self._http.about.archive

    async def first_held(self, session: SessionKey) -> int | None:
        """See `spi.Served.first_held`."""
        return await self.run(self._http.first_held(session))

    def server_of(self, session: SessionKey) -> Hashable:
        """See `spi.Spread.server_of`."""
        return self._http.server_of(session)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        tenant: str,
        body: Any = None,
        key: str | None = None,
        lease: str | None = None,
        seconds: float | None = None,
        repeatable: bool = False,
    ) -> Any:
        """See `spi.Served.ask`."""
        resource = Resource(method, path, None if body is None else msgspec.json.encode(body), key, lease, seconds, repeatable)
        return await self.run(self._ask(tenant, resource))

    async def _ask(self, tenant: str, resource: Resource) -> Any:
        self._http.check_tenant(tenant)
        answered = await self._http.calls.resource(resource)
        try:
            return msgspec.json.decode(answered) if answered else None
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise Unknown(f"The answer to {resource.method} {resource.path} cannot be read: {error}.") from error

    def confirm(self, path: str, *, tenant: str, lease: str, ttl: float, on_loss: Callable[[], None]) -> Callable[[], None]:
        """See `spi.Served.confirm`."""
        keeping = Keeping(self._http.calls, Resource("PUT", path, lease=lease, repeatable=True), ttl, on_loss)
        self._http.check_tenant(tenant)
        self._io.call(keeping.run())
        return keeping.stop


class Keeping:
    """Confirms a lease, on the client's loop, until it is stopped."""

    def __init__(self, calls: Calls, resource: Resource, ttl: float, on_loss: Callable[[], None]) -> None:
        self._calls, self._resource, self._ttl, self._on_loss = calls, resource, ttl, on_loss
        self._stopped = False

    def stop(self) -> None:
        """Confirm it no more. From any thread."""
        self._stopped = True

    async def run(self) -> None:
        """Until it is stopped or lost."""
        loop = asyncio.get_running_loop()
        reached = loop.time()
        while not self._stopped:
            await asyncio.sleep(self._ttl / CONFIRMS)
            began = loop.time()
            try:
                if not self._stopped:
                    await self._calls.resource(msgspec.structs.replace(self._resource, seconds=self._ttl / CONFIRMS))
                reached = began
            except (Fenced, NotFound, Deleted):
                break
            except Error:
                if loop.time() - reached >= self._ttl:
                    break
        if not self._stopped:
            self._on_loss()
