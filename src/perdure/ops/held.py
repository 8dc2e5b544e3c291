"""The lease of a consumer's checkpoint: the store's own, or one that a node of a service keeps for a client.

A client of a service says to a node that it is alive, thrice in each ttl; nodes answer those who challenge the lease.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType

from perdure.backends.spi import Served, served
from perdure.engine.leasing.lease import Lease
from perdure.engine.live.consumers import path_of_consumer, session_id
from perdure.engine.store import Store, system_store
from perdure.errors import Error, Fenced, Held

NODE_WAIT = 20.0
"""Seconds for which a node is asked to wait for another holder, in one request."""
ANSWER = 10.0
"""Seconds beyond that for its answer."""


class NodeLease:
    """A lease that a node has taken. `lost` is set, once and for ever, when it has ended, as far as this process knows."""

    def __init__(self, nodes: Served, path: str, tenant: str, name: str, said: dict[str, object]) -> None:
        self._nodes, self._path, self._tenant, self._name = nodes, path, tenant, name
        self.grant = str(said["lease"])
        self.token = said["token"]
        self.lost = threading.Event()
        self._stop: Callable[[], None] = nodes.confirm(
            path, tenant=tenant, lease=self.grant, ttl=float(str(said["ttl"])), on_loss=self.lost.set
        )

    def ended_error(self) -> Fenced:
        """The error for one who goes on with it."""
        return Fenced(
            f"The lease of consumer {self._name!r} with token {self.token} has ended.", session=session_id(self._name), token=self.token
        )

    async def release(self, key: str) -> None:
        """Let go. What cannot be released ends after its ttl."""
        self._stop()
        with suppress(Error):
            await self._nodes.ask("DELETE", self._path, tenant=self._tenant, lease=self.grant, key=key)


Holding = Lease | NodeLease


class _AtNode:
    """`async with`: takes the lease at a node, and lets go of it."""

    def __init__(self, store: Store, nodes: Served, name: str, owner: str, ttl: float, wait: float) -> None:
        self._store, self._nodes, self._name, self._owner, self._ttl, self._wait = store, nodes, name, owner, ttl, wait
        self._path = f"{path_of_consumer(name)}/lease"
        self._lease: NodeLease | None = None

    async def __aenter__(self) -> NodeLease:
        clock, key = self._store._core.clock, self._store.new_id()
        until = clock.monotonic() + self._wait
        while True:
            wait = min(max(until - clock.monotonic(), 0.0), NODE_WAIT)
            asked = {"owner": self._owner, "ttl": self._ttl, "wait": wait}
            try:
                said = await self._nodes.ask("POST", self._path, tenant=self._store.tenant, body=asked, key=key, seconds=wait + ANSWER)
            except Held:
                if clock.monotonic() >= until:
                    raise
            else:
                self._lease = NodeLease(self._nodes, self._path, self._store.tenant, self._name, said)
                return self._lease

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._lease is not None:
            await self._lease.release(self._store.new_id())


def hold(store: Store, name: str, owner: str, ttl: float, wait: float) -> AbstractAsyncContextManager[Holding]:
    """`async with`: the lease of a consumer's checkpoint. Raises as `Store.lease`; `Deleted` or `NotFound` where it was forgotten."""
    nodes = served(store._core.backend)
    if nodes is None:
        return system_store(store).lease(session_id(name), owner=owner, ttl=ttl, wait=wait)
    return _AtNode(store, nodes, name, owner, ttl, wait)
