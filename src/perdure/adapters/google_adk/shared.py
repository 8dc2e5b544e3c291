"""State that sessions share: what `app:` and `user:` keys hold, in Perdure sessions of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from perdure.adapters.common.transactions import read_or_none
from perdure.adapters.google_adk import events
from perdure.adapters.google_adk.names import Names
from perdure.engine.store import Store
from perdure.errors import Deleted, KeyReused, NotFound
from perdure.model.commit import Commit
from perdure.model.events import Event


class SharedState:
    """Reads and writes the shared state of one store.

    A session's commit that carries shared keys is the intent; the commits here carry it out, under the id of that commit as
    idempotency key. So it is carried out once: by the writer, or by the next load of the session.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def of(self, scope: str) -> dict[str, Any]:
        """What a scope holds, without the prefix."""
        view = await read_or_none(self._store, scope)
        return {} if view is None else cast(dict[str, Any], view.state)

    async def seen_by(self, found: Names) -> dict[str, Any]:
        """What a session of this app and user sees, with the prefixes."""
        merged: dict[str, Any] = {}
        for prefix, scope in found.scopes():
            merged |= {f"{prefix}{key}": value for key, value in (await self.of(scope)).items()}
        return merged

    async def write(self, found: Names, delta: Mapping[str, Any], cause: bytes) -> None:
        """Carry out the shared part of a delta that the commit `cause` (its id) of this session holds."""
        if delta and events.is_shared(delta):
            for prefix, scope in found.scopes():
                values = events.shared(delta, prefix)
                if values:
                    await self._write(found, scope, values, cause)

    async def catch_up(self, found: Names, commit: Commit) -> None:
        """Carry out what a writer of this session left undone. Only its newest commit can be left so.

        A key that was set again since keeps the newer value.
        """
        for event in commit.events:
            if (events.is_adk(event) or events.is_created(event)) and events.IMPORTED not in event.data:
                for prefix, scope in found.scopes():
                    values = events.shared(events.delta_of(event.data), prefix)
                    if values and await self._store.find(scope, commit.id.hex()) is None:
                        later = await self._set_since(scope, commit.at)
                        left = {key: value for key, value in values.items() if key not in later}
                        await self._write(found, scope, left, commit.id)

    async def _write(self, found: Names, scope: str, values: Mapping[str, Any], cause: bytes) -> None:
        event = Event(events.SHARED, {"session": found.session, "keys": sorted(values)}, events.setting(values))
        try:
            await self._store.append(scope, event, key=cause.hex(), recreate=True)
        except KeyReused:
            return  # Another process carried it out with fewer keys: others set some of them again in between.

    async def _set_since(self, scope: str, at: int) -> set[str]:
        """The keys that commits later than `at` (ns) set."""
        keys: set[str] = set()
        try:
            async for commit in self._store.history(scope, newest_first=True):
                if commit.at <= at:
                    break
                keys.update(key for event in commit.events if event.type == events.SHARED for key in event.data["keys"])
        except (NotFound, Deleted):
            pass
        return keys
