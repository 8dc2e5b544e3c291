"""Finds out whose a token is. What a store says of one is remembered for ten seconds, so a revoked token ends within them on each node.

Tokens that this node does not know are looked up a few at a time: who guesses ids keeps no other request from the engine, and drives no
token that is in use out of memory.
"""

from __future__ import annotations

import asyncio
import hmac

from perdure.clock import Clock
from perdure.engine.store import Store
from perdure.lru import LruMap
from perdure.service.auth.bearer import digest, refused
from perdure.service.auth.records import Record, id_of, read_record
from perdure.service.hooks import Credential, Scope

CACHED_SECONDS = 10.0
"""How long a node goes by what the store said of a token."""
TOKENS_CACHED = 10_000
LOOKUPS_MAX = 8
"""Unknown tokens that are looked up at a time."""


class Tokens:
    """The tokens of a store, as one node sees them. Belongs to one event loop."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._known = LruMap[str, tuple[float, Record]](TOKENS_CACHED)
        self._missing = LruMap[str, float](TOKENS_CACHED)
        self._lookups: dict[str, asyncio.Task[Record | None]] = {}
        self._slots = asyncio.Semaphore(LOOKUPS_MAX)

    async def credential(self, token: str) -> Credential:
        """Whose it is. Raises `Unauthorized`, and what the engine raises where it cannot be asked."""
        id = id_of(token)
        record = None if id is None else await self._record(id)
        now = self._clock.now()
        if id is None or record is None or not hmac.compare_digest(bytes.fromhex(record.digest), digest(token)):
            raise refused()
        if record.revoked is not None or (record.expires is not None and record.expires <= now):
            raise refused()
        return Credential(
            tenant=record.tenant,
            scopes=frozenset(Scope(scope) for scope in record.scopes),
            name=f"token:{id}",
            actor=record.actor,
            expires=None if record.expires is None else record.expires / 1e9,
        )

    async def _record(self, id: str) -> Record | None:
        now = self._clock.monotonic()
        known = self._known.get(id)
        if known is not None and now < known[0]:
            return known[1]
        missing = self._missing.get(id)
        if missing is not None and now < missing:
            return None
        lookup = self._lookups.get(id)
        if lookup is None:
            lookup = self._lookups[id] = asyncio.ensure_future(self._look_up(id, known=known is not None))
            lookup.add_done_callback(lambda _: self._lookups.pop(id, None))
        return await asyncio.shield(lookup)

    async def _look_up(self, id: str, *, known: bool) -> Record | None:
        if known:
            record = await read_record(self._store, id)
        else:
            async with self._slots:
                record = await read_record(self._store, id)
        until = self._clock.monotonic() + CACHED_SECONDS
        if record is None:
            self._known.pop(id)
            self._missing.put(id, until)
        else:
            self._missing.pop(id)
            self._known.put(id, (until, record))
        return record
