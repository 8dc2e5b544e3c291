"""What every call of a store works with: the parts of its connection, and the tenant that scopes it."""

from __future__ import annotations

import msgspec

from perdure.backends.spi import Durability
from perdure.engine.core import Core
from perdure.engine.leasing.lease import Lease
from perdure.engine.options import check_durability
from perdure.engine.read.tokens import parse_token
from perdure.errors import Invalid
from perdure.model.fence import Fence
from perdure.model.ids import SessionKey, check_name


class Context(msgspec.Struct, frozen=True):
    """One tenant on one connection."""

    core: Core
    tenant: str

    def opened(self) -> Core:
        """The parts of the connection. Raises `Closed`, also in a forked child."""
        self.core.check_open()
        return self.core

    def key(self, session: object) -> SessionKey:
        """A session's full name. Raises `Invalid`."""
        return SessionKey(self.tenant, check_name("A session id", session))

    def fence(self, lease: Lease | None, session: SessionKey) -> Fence | None:
        """What a write under this lease has to meet. Raises `Invalid` for a lease of another store, tenant or session, and `Fenced` for one
        that was released."""
        if lease is None:
            return None
        if not isinstance(lease, Lease):
            raise Invalid(f"lease must be what `async with store.lease(...) as lease` gives, not {lease!r}.")
        if lease._leases is not self.core.leases:
            raise Invalid(f"The lease of session {lease.session!r} was taken through another store object: take one through this store.")
        if lease._fence.session != session:
            other = lease._fence.session
            raise Invalid(f"This lease is of session {other.id!r} of tenant {other.tenant!r}, not of {session.id!r} of {session.tenant!r}.")
        if lease._released:
            raise lease.ended_error()
        return lease._fence

    def expected(self, expect: int | str | None, session: SessionKey) -> tuple[int | None, bytes | None]:
        """The version that a caller decided on, and the hash of its commit where `expect` is a token. Raises `Invalid`."""
        if not isinstance(expect, str):
            return expect, None
        token = parse_token(expect, self.core.backend.store_id, session)
        return token.version, token.hash

    def durability(self, asked: Durability | str | None) -> Durability:
        """The level asked for, else the store's. Raises `Invalid`, and `Unsupported` for one that the engine cannot reach."""
        core = self.core
        return (
            core.durability
            if asked is None
            else check_durability(asked, core.durability, core.backend.capabilities, core.bodies.durability)
        )
