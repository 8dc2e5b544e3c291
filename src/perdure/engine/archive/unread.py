"""Which consumers have still to read commits that are to go. See `perdure.ops.consume`.

A consumer's checkpoint says how far it is in the feed. What it wants after that, and what it has parked, is unread. How far a scan of the
feed has come is remembered, so that a sweeper which moves or drops commits of many sessions reads the feed once.

Nothing of what they want goes before it was read. So a consumer that begins again after its cursor misses nothing that was dropped.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from perdure.backends.spi import Backend, Query
from perdure.clock import Clock
from perdure.engine.live.changes import Follower, Selection
from perdure.engine.live.consumers import PREFIX, State, state_of
from perdure.engine.read.loads import Loads
from perdure.engine.read.reader import Reader
from perdure.errors import Busy, Closed, Error, Truncated, Unavailable, Unknown
from perdure.lru import LruMap
from perdure.model.commit import Status
from perdure.model.ids import SessionKey, is_system, system_tenant

SESSIONS_MAX = 10_000
"""Sessions with unread commits that are remembered of a consumer: one with more has read nothing, as far as this goes."""
SCANS_MAX = 256
"""Consumers whose scans are remembered."""
STALE_TIMES = 10.0
"""A scan counts for so many times as long as it took, though its consumer has gone on: what that has read meanwhile counts as unread."""
WAITS = 32
"""So often, a second each at most, a caller waits for others who follow the same feed."""
PAGE = 100
"""Rows that an engine is asked for at once."""

_FORGET = "Let them go on, or remove one that is not needed any more: `perdure consumers --forget NAME`."


class _Scan:
    """What one consumer has not read, as far as the feed was followed from where its checkpoint was."""

    def __init__(self, cursor: str | None, follower: Follower) -> None:
        self.cursor, self.follower = cursor, follower
        self.stale_at = 0.0
        self.lowest: dict[str, int] = {}
        """By session the first version that was not read."""
        self.overflowed = False

    async def go_on(self) -> None:
        """Follow the feed to its end."""
        while not self.overflowed:
            try:
                async with aclosing(self.follower.pages(follow=False)) as pages:
                    async for page in pages:
                        for change in page:
                            self.lowest.setdefault(change.session, change.commit.version)
                        if len(self.lowest) > SESSIONS_MAX:
                            self.overflowed = True
                            break
                    else:
                        return
            except Truncated as error:  # They are gone already.
                self.follower = self.follower.after(error.cursor)


class Unread:
    """Looks at the consumers of one connection's tenants. Safe from any thread and loop."""

    def __init__(self, backend: Backend, reader: Reader, clock: Clock, follow: Callable[[str, Selection, str | None], Follower]) -> None:
        """`follow` makes a follower of a tenant's changes, of a selection, after a cursor."""
        self._backend, self._reader, self._clock, self._follow = backend, reader, clock, follow
        self._scans = LruMap[SessionKey, _Scan](SCANS_MAX)
        self._loads = Loads()

    async def require_none(self, session: SessionKey, last: int) -> None:
        """Raise `Busy` if a consumer has not read the session up to version `last`, as far as it wants it."""
        if consumers := await self.by(session, last):
            names = ", ".join(map(repr, consumers))
            message = f"Nothing of session {session.id!r} was moved or dropped: consumers have not read it up to version {last}: {names}."
            raise Busy(message, session=session.id, consumers=tuple(consumers), advice=_FORGET)

    async def by(self, session: SessionKey, last: int) -> list[str]:
        """The names of the consumers that have not read the session up to version `last`, as far as they want it.

        One whose place in the feed cannot be taken up counts as one that has read nothing.
        """
        if is_system(session.tenant):
            return []
        return [
            state.name
            async for key, state in self._consumers(session.tenant)
            if session.id.startswith(state.registration.prefix) and await self._has_unread(key, state, session, last)
        ]

    async def _consumers(self, tenant: str) -> AsyncGenerator[tuple[SessionKey, State], None]:
        cursor: Any = None
        while True:
            page = await self._backend.scan(Query(system_tenant(tenant), PREFIX), cursor=cursor, limit=PAGE)
            for row in page.items:
                known = await self._reader.read_head(row.session)
                if known is not None and known.head.status != Status.deleted and known.state:
                    yield row.session, state_of(known.state)
            cursor = page.cursor
            if cursor is None:
                return

    async def _has_unread(self, key: SessionKey, state: State, session: SessionKey, last: int) -> bool:
        parked = state.parked.get(session.id)
        if parked is not None and parked.first <= last:
            return True
        try:
            scan = await self._scanned(key, state, session.tenant)
        except (Unavailable, Unknown, Closed):
            raise
        except Error:  # A store that was restored, damage, a body that is out of reach: the consumer says what it is.
            return True
        return scan.overflowed or scan.lowest.get(session.id, last + 1) <= last

    async def _scanned(self, key: SessionKey, state: State, tenant: str) -> _Scan:
        for _ in range(WAITS):
            if not await self._loads.wait(key):
                break
        load = self._loads.begin(key)
        try:
            began, scan = self._clock.monotonic(), self._scans.pop(key)  # One that fails is not used again.
            if scan is None or (scan.cursor != state.cursor and began >= scan.stale_at):
                scan = _Scan(state.cursor, self._follow(tenant, state.registration.selection(), state.cursor))
                await scan.go_on()
                now = self._clock.monotonic()
                scan.stale_at = now + STALE_TIMES * (now - began)
            else:
                await scan.go_on()
            self._scans.put(key, scan)
            return scan
        finally:
            self._loads.end(key, load)
