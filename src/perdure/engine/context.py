"""What every call of a store works with: the parts of its connection, and the tenant that scopes it."""

from __future__ import annotations

import msgspec

from perdure.backends.spi import Durability
from perdure.engine.core import Core
from perdure.engine.options import check_durability
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

    def durability(self, asked: Durability | str | None) -> Durability:
        """The level asked for, else the store's. Raises `Invalid`, and `Unsupported` for one that the engine cannot reach."""
        core = self.core
        return (
            core.durability
            if asked is None
            else check_durability(asked, core.durability, core.backend.capabilities, core.bodies.durability)
        )
