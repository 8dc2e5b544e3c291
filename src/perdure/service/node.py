"""A node: an open store, and what its requests share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from perdure.engine.leasing.lease import Lease
from perdure.engine.store import Store
from perdure.errors import Error
from perdure.model.ids import SessionKey, system_tenant
from perdure.service.hooks import Anonymous, Authenticator, Limits, NoLimits, NoObserver, Observer
from perdure.service.options import ServeOptions
from perdure.service.stream.hub import Hub

T = TypeVar("T")
READY_SECONDS = 2.0
"""Seconds in which the engine has to answer for the node to be ready."""
_PROBE = SessionKey(system_tenant(), "ready")
"""A session that is asked for to see whether the engine answers; there is none."""
TENANTS_MAX = 4_096
"""Stores of tenants that are kept; each is small, and made again when it is asked for."""


class Node:
    """One process that serves. It holds nothing that another node could not do without."""

    def __init__(
        self,
        store: Store,
        options: ServeOptions | None = None,
        *,
        authenticator: Authenticator | None = None,
        limits: Limits | None = None,
        observer: Observer | None = None,
        exposition: Callable[[str], tuple[bytes, str]] | None = None,
    ) -> None:
        """The store stays the caller's to close. `exposition`: from an Accept header to the process's metrics and their media type."""
        self.store = store
        self.options = options or ServeOptions()
        self.authenticator = authenticator or Anonymous(self.options.anonymous_tenant or "default")
        self.limits = limits or NoLimits()
        self.observer = observer or NoObserver()
        self.exposition = exposition
        self.draining = asyncio.Event()
        """Set when the node is about to stop: streams end, and `/readyz` says no."""
        self.closing = asyncio.Event()
        """Set when no new request is to be taken."""
        self.open_requests = 0
        self.hub = Hub()
        """Who follows commits."""
        self.leases = WeakValueDictionary[tuple[str, str, str], Lease]()
        """Leases of clients that were heard here, by tenant, session and grant, while challenges of them are answered here. Another one is
        looked up again."""
        self.for_tenant: Callable[[str], Store] = lru_cache(TENANTS_MAX)(store.for_tenant)
        self._parts: dict[type, Any] = {}

    def part(self, kind: type[T], make: Callable[[Node], T]) -> T:
        """What the requests of one kind share on this node. It is made when it is first asked for."""
        found: T | None = self._parts.get(kind)
        if found is None:
            found = self._parts[kind] = make(self)
        return found

    def close(self) -> None:
        """Take no new request, and end what follows commits."""
        self.draining.set()
        self.closing.set()
        self.hub.close()

    async def ready(self) -> str:
        """Why the node is not ready, or ""."""
        if self.draining.is_set():
            return "The node is draining."
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self.store._context.opened().backend.heads([_PROBE])
        except TimeoutError:
            return f"The engine did not answer within {READY_SECONDS:g} seconds."
        except Error as error:
            return str(error)
        return ""
