"""The public calls of one store and one tenant: signatures and docstrings. Each is one call of the module that does it.

writing    appends, edits, the spool, forks and merges
reading    a session's state and history, what comes to it, and which sessions there are
holding    leases, and sessions whose alarm is due
lifecycle  what becomes of a session: its policy, deletion, the archive

A store belongs to no loop and no thread: calls from any of them are served.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from perdure.backends.spi import Capabilities
from perdure.config import shown_url
from perdure.engine.store.holding import Holding
from perdure.engine.store.lifecycle import Lifecycle
from perdure.engine.store.reading import Reading
from perdure.engine.store.writing import Writing
from perdure.engine.views import CacheInfo, Spooled
from perdure.model.ids import check_tenant, system_tenant, uuid_text


class Store(Writing, Reading, Holding, Lifecycle):
    """Sessions of one tenant. Made by `perdure.open`; safe from any thread and event loop."""

    def __repr__(self) -> str:
        return f"<Store [{'closed' if self._core.closed else 'open'}] {shown_url(self._core.url)} tenant={self.tenant}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    @property
    def id(self) -> str:
        """The identity of the data, made when it was initialised."""
        return self._core.backend.store_id

    @property
    def tenant(self) -> str:
        """Whose sessions these are."""
        return self._context.tenant

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do."""
        return self._core.backend.capabilities

    def for_tenant(self, tenant: str) -> Store:
        """The same store, for another tenant's sessions. Closing one closes both."""
        return Store(self._core, check_tenant(tenant))

    def new_id(self) -> str:
        """A fresh session id: a UUIDv7."""
        return uuid_text(self._context.opened().committer.new_id())

    def cache_info(self) -> CacheInfo:
        """What is in memory, of all tenants, and how often that was enough; and what the shared cache did."""
        return self._core.cache_info()

    async def close(self) -> Spooled | None:
        """Finish what was handed over and let go of every file and thread. Calling it twice is calling it once.

        Returns what is left in the spool, which is shipped when a store is opened with it again; `None` without a spool.
        """
        await self._core.close()
        return self._core.spool_left


def system_store(store: Store) -> Store:
    """The same store, for Perdure's own sessions about its tenant."""
    return Store(store._core, system_tenant(store.tenant))


def global_store(store: Store) -> Store:
    """The same store, for Perdure's own sessions about all of it."""
    return Store(store._core, system_tenant())
