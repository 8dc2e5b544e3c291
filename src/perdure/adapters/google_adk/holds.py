"""Holding an ADK session around runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.adk.errors.session_not_found_error import SessionNotFoundError

from perdure.adapters.common.holds import Hold, HoldOptions
from perdure.adapters.common.transactions import read_or_none
from perdure.engine.store import Store

if TYPE_CHECKING:
    from perdure.adapters.google_adk.names import Names


class SessionHold(Hold):
    """What `PerdureSessionService.hold` returns: for `async with` or `with`, once."""

    _right = "async with service.hold(...) as lease` or `with service.hold(...) as lease"

    def __init__(self, store: Store, found: Names, options: HoldOptions) -> None:
        """Raises `Invalid` for options that no lease can have."""
        super().__init__(store, found.session, options, f"Session {found.id!r}")
        self._id = found.id

    async def _prepare(self) -> None:
        if await read_or_none(self._store, self._session) is None:
            raise SessionNotFoundError(f"Session {self._id} not found: create it before you hold it.")
