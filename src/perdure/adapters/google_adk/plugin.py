"""The plugin that holds a session for each run of an app."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.plugins.base_plugin import BasePlugin
from google.genai import types

from perdure.adapters.common.holds import lease_of
from perdure.adapters.common.run_lease import RunLease, run_lease
from perdure.adapters.google_adk.names import Names
from perdure.adapters.google_adk.sessions import PerdureSessionService
from perdure.errors import Invalid

if TYPE_CHECKING:
    from google.adk.agents.invocation_context import InvocationContext


class PerdureLeasePlugin(BasePlugin):
    """Holds the session of each run: `App(…, plugins=[PerdureLeasePlugin()])`, with a `PerdureSessionService`.

    The lease is taken before the user's message is stored and a model is called, and released at the run's end, however it ends. A
    second worker waits; if others wrote meanwhile, the run goes on with the session as it is then. Which agent it begins with was decided
    before; where that matters, call the runner in `async with service.hold(…)`, which waits before the session is loaded. A run in such a
    block is under the lease of the block.

    `lease`: a `RunLease` with other options than the default ones. ADK raises what a plugin raises as `RuntimeError`: its `__cause__` is
    `Held` after the wait is over.
    """

    def __init__(self, lease: bool | RunLease = True, *, name: str = "perdure_lease") -> None:
        super().__init__(name)
        options = run_lease(lease)
        if options is None:
            raise Invalid("A PerdureLeasePlugin takes a lease: leave the plugin out where there is to be none.")
        self._options = options

    async def on_user_message_callback(self, *, invocation_context: InvocationContext, user_message: types.Content) -> types.Content | None:
        """Take the lease, before the message is stored."""
        await self._take(invocation_context)
        return None

    async def before_run_callback(self, *, invocation_context: InvocationContext) -> types.Content | None:
        """Take the lease of a run without a new message."""
        await self._take(invocation_context)
        return None

    async def after_run_callback(self, *, invocation_context: InvocationContext) -> None:
        """Release the lease."""
        await _service(invocation_context)._runs.release(invocation_context.session)

    async def on_run_error_callback(self, *, invocation_context: InvocationContext, error: Exception) -> None:
        """Release the lease."""
        await _service(invocation_context)._runs.release(invocation_context.session)

    async def _take(self, context: InvocationContext) -> None:
        service, session = _service(context), context.session
        name = Names(session.app_name, session.user_id, session.id).session
        if lease_of(service._store, name) is None and await service._runs.take(session, name, self._options):
            config = None if context.run_config is None else context.run_config.get_session_config
            try:
                if not await service._renew(session, config):
                    raise SessionNotFoundError(f"Session {session.id} not found.")
            except BaseException:
                await service._runs.release(session)
                raise


def _service(context: InvocationContext) -> PerdureSessionService:
    service = context.session_service
    if not isinstance(service, PerdureSessionService):
        raise Invalid(f"PerdureLeasePlugin holds sessions of a PerdureSessionService, not of {type(service).__name__}.")
    return service
