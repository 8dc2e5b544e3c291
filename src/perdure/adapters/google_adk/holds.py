"""Holding an ADK session: `service.hold` around runs, and `PerdureLeasePlugin`, which does it for each run."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.sessions import Session

from perdure.adapters.common.holds import Hold, HoldOptions, lease_of
from perdure.adapters.common.run_lease import OwnLease, RunLease
from perdure.adapters.common.transactions import read_or_none
from perdure.engine.leasing.lease import Lease
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


class RunLeases:
    """The leases that runs have taken by themselves, by the session object that a run works with."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: dict[int, tuple[weakref.ref[Session], OwnLease]] = {}
        """By the identity of the session object, which is no key of a dict itself."""

    def lease_of(self, session: Session, found: Names) -> Lease | None:
        """What an append by this session object is made under: the lease of its run, or of the block that it is in."""
        known = self._held.get(id(session))
        if known is not None and known[0]() is session:
            return known[1].lease
        return lease_of(self._store, found.session)

    async def take(self, session: Session, found: Names, options: RunLease) -> bool:
        """Take the lease for this session object, unless it has one, or its block does. Whether it was taken now."""
        known = self._held.get(id(session))
        if (known is not None and known[0]() is session) or lease_of(self._store, found.session) is not None:
            return False
        own = OwnLease(self._store, found.session, options)
        await own.take()
        self._held[id(session)] = weakref.ref(session, self._forgetting(id(session))), own
        return True

    async def release(self, session: Session) -> None:
        """Release it, if there is one."""
        known = self._held.get(id(session))
        if known is not None and known[0]() is session:
            self._held.pop(id(session), None)
            await known[1].release()

    def _forgetting(self, key: int) -> Callable[[weakref.ref[Session]], None]:
        held = self._held

        def forget(gone: weakref.ref[Session]) -> None:
            known = held.get(key)
            if known is not None and known[0] is gone:
                del held[key]

        return forget
