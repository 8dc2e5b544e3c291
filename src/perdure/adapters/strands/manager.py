"""Strands' session manager on a store: a repository with it, and one run at a time where that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from strands.hooks.events import (
    AfterInvocationEvent,
    AfterMultiAgentInvocationEvent,
    BeforeInvocationEvent,
    BeforeMultiAgentInvocationEvent,
)
from strands.hooks.registry import HookRegistry
from strands.session.repository_session_manager import RepositorySessionManager
from strands.types.exceptions import SessionException

from perdure.adapters.common.run_lease import OwnLease, RunLease, run_lease
from perdure.adapters.common.sync_async import AnyStore
from perdure.adapters.strands.repository import PerdureSessionRepository
from perdure.errors import Deleted
from perdure.model.values import same


class PerdureSessionManager(RepositorySessionManager):
    """`Agent(session_manager=PerdureSessionManager("trip-42", store))`: a session of Strands in an open store, which stays the caller's.

    `expire_after`, `keep` and `drop` as in `PerdureSessionRepository`.

    `lease`: with `True`, or a `RunLease` with other options, each run (an invocation of an agent, a graph or a swarm) holds the session. A
    second worker waits for it (60 s), or is refused with `Held`, before its model is called. If others wrote since, the agent goes on with
    its messages and state as they are in the session then, in place of what was set on it since its last run. The lease is released at the
    end of the run. A worker that lost it stores nothing: it is `Fenced`, or gets Strands' `SessionException` for a number that is taken.
    """

    def __init__(
        self,
        session_id: str,
        store: AnyStore,
        *,
        expire_after: timedelta | float | None = None,
        keep: int | timedelta | None = None,
        drop: bool = False,
        lease: bool | RunLease = False,
        **kwargs: Any,
    ) -> None:
        """Starts the session if there is none. Raises `Invalid` and `Unsupported` for options that make no sense here."""
        repository, options = PerdureSessionRepository(store, expire_after=expire_after, keep=keep, drop=drop), run_lease(lease)
        self._repository = repository
        self._own: OwnLease | None = None if options is None else repository.hold_runs(session_id, options)
        self._running = 0
        """Invocations under the lease: an agent may call another one of the same session."""
        self._left: Any = None
        """The session as this object knows it: what came since is from others."""
        super().__init__(session_id, repository, **kwargs)

    def register_hooks(self, registry: HookRegistry, **kwargs: Any) -> None:
        """Those of Strands' own manager, within those that take and release the lease: the events of an end call the first one last."""
        if self._own is not None:
            registry.add_callback(BeforeInvocationEvent, self._before_agent)
            registry.add_callback(AfterInvocationEvent, self._after)
            registry.add_callback(BeforeMultiAgentInvocationEvent, self._before_multi_agent)
            registry.add_callback(AfterMultiAgentInvocationEvent, self._after)
        super().register_hooks(registry, **kwargs)

    def initialize(self, agent: Any, **kwargs: Any) -> None:
        """Restore an agent from the session, or add it there."""
        super().initialize(agent, **kwargs)
        if self._own is not None:
            self._left = self._repository.state(self.session_id)

    async def _before_agent(self, event: BeforeInvocationEvent) -> None:
        await self._take(lambda: self._restore(event.agent))

    async def _before_multi_agent(self, event: BeforeMultiAgentInvocationEvent) -> None:
        await self._take(lambda: self.initialize_multi_agent(event.source))

    async def _after(self, event: AfterInvocationEvent | AfterMultiAgentInvocationEvent) -> None:
        self._running = max(self._running - 1, 0)
        if self._own is not None and not self._running:
            if self._own.lease is not None:
                self._left = self._repository.state(self.session_id)
            await self._own.release()

    async def _take(self, restore: Callable[[], None]) -> None:
        own = self._own
        if own is None:
            return
        if own.lease is None:
            self._running = 0
            await self._begin(own)
            try:
                if not same(self._repository.state(self.session_id), self._left):
                    restore()
            except BaseException:
                await own.release()
                raise
        self._running += 1

    async def _begin(self, own: OwnLease) -> None:
        """Take the lease; a session that has expired, or was deleted, is started again first."""
        while True:
            if self._repository.state(self.session_id) is None:
                with suppress(SessionException):  # Another worker was faster.
                    self._repository.create_session(self.session)
            try:
                await own.take()
            except Deleted:
                continue
            return

    def _restore(self, agent: Any) -> None:
        self._latest_agent_message.pop(agent.agent_id, None)
        self._last_synced_internal_state.pop(agent.agent_id, None)
        self.initialize(agent)
