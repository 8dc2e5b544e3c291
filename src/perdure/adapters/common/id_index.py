"""An index by id over many sessions, for frameworks that ask for something by an id that does not say which session holds it.

    <prefix>/<two hexadecimal digits of the id's SHA-256>    one event for each id, under the id as idempotency key

The first writer decides what an id leads to, and that never changes. An entry is written before what it leads to, so everything that
exists is found. An entry that leads nowhere is one whose writer stopped in between.
"""

from __future__ import annotations

import hashlib
from typing import Any

from perdure.adapters.common.surrogates import escape, unescape
from perdure.adapters.common.transactions import commit_at
from perdure.engine.store import Store
from perdure.errors import Deleted, Invalid, KeyReused, NotFound
from perdure.model.events import Event

ENTRY = "entry"


class IdIndex:
    """Entries of one kind."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self._prefix = store, prefix

    async def put(self, id: str, value: Any) -> Any:
        """Enter what an id leads to, unless something is entered already. Gives the entry that counts. One commit at most."""
        session, key = self._entry_key(id)
        try:
            await self._store.append(session, Event(ENTRY, escape({"id": id, "value": value})), key=key)
        except KeyReused as error:
            return await self._entry(session, id, error.version)
        return value

    async def get(self, id: str) -> Any:
        """What an id leads to, or `None`."""
        session, key = self._entry_key(id)
        try:
            receipt = await self._store.find(session, key)
            return None if receipt is None else await self._entry(session, id, receipt.version)
        except (NotFound, Deleted):
            return None

    async def _entry(self, session: str, id: str, version: int) -> Any:
        commit = await commit_at(self._store, session, version)
        for event in () if commit is None else commit.events:
            if event.type == ENTRY and isinstance(event.data, dict) and unescape(event.data.get("id")) == id:
                return unescape(event.data.get("value"))
        raise Invalid(f"Session {session!r} is no index: something else wrote it.", session=session)

    def _entry_key(self, id: str) -> tuple[str, str]:
        if not isinstance(id, str):
            raise Invalid(f"An id is a string, not {type(id).__name__}.")
        digest = hashlib.sha256(id.encode(errors="surrogatepass")).hexdigest()
        return f"{self._prefix}/{digest[:2]}", digest
