"""What the parts of a store have in common."""

from __future__ import annotations

from perdure.engine.context import Context
from perdure.engine.core import Core
from perdure.model.lifecycle import Begin


class Bound:
    """Bound to one connection and one tenant."""

    def __init__(self, core: Core, tenant: str, begin: Begin | None = None) -> None:
        self._context = Context(core, tenant, begin)
        self._core = core
