"""Import of what a framework stored elsewhere: one protocol, one source per framework, used by `perdure import`.

A source reads the foreign database and writes sessions through the framework's own adapter. Each item that it writes has an idempotency
key made of the foreign id. So an import that was interrupted continues where it stopped, and a second import writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Protocol, cast

import msgspec

from perdure.engine.store import Store
from perdure.errors import Invalid

SOURCES = {
    "google-adk": "perdure.adapters.google_adk.importing:open_source",
    "langgraph": "perdure.adapters.langgraph.importing:open_source",
    "openai-agents": "perdure.adapters.openai_agents.importing:open_source",
}
"""By framework: the module and the function `open_source(address)` that opens its databases."""


class ImportResult(msgspec.Struct, frozen=True):
    """The outcome for one thread or session of the source."""

    source: str
    """Its id in the source."""
    session: str
    """The session's id here."""
    written: int
    """How many items (checkpoints, messages, events) were written now."""
    skipped: int
    """How many were here already."""


class Source(Protocol):
    """An open foreign database. Its coroutines await nothing but the store; they may block while they read the source."""

    async def ids(self) -> list[str]:
        """The ids of what can be imported, in an order that stays."""
        ...

    async def copy_session(self, id: str, store: Store) -> ImportResult:
        """Copy one, read the copy back, compare it with the source, and count.

        Raises `Corrupt` naming the first difference, `Invalid` for what cannot be stored. What was written stays; run it again.
        """
        ...

    async def close(self) -> None:
        """Close the foreign database."""
        ...


def open_source(framework: str, address: str) -> Source:
    """Open a foreign database: a path or a URL. Raises `Invalid`, `NotFound`, `Unsupported`."""
    place = SOURCES.get(framework)
    if place is None:
        raise Invalid(f"There is no import from {framework!r:.60}; there are imports from {', '.join(sorted(SOURCES))}.")
    module, name = place.split(":")
    return cast(Callable[[str], Source], getattr(import_module(module), name))(address)
