"""The channels of a node: one for each session that is watched, one for each tenant whose changes are followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from perdure.engine.calls.changes import make_follower, make_selection
from perdure.engine.store import Store
from perdure.lru import LruMap
from perdure.model.commit import Commit
from perdure.service.stream.channel import Channel, Source
from perdure.service.stream.entries import Entry

CATCHING_UP_MAX = 8
"""Pages that the followers of one tenant read at once to catch up: the others of them wait, and no other tenant does."""
TENANTS_MAX = 4_096


class Hub:
    """Channels by what they follow. All on one event loop."""

    def __init__(self) -> None:
        self._channels: dict[tuple[str, str | None], Channel] = {}
        self._budgets = LruMap[str, asyncio.Semaphore](TENANTS_MAX)
        self.closing = False
        """Whether all who follow are to end."""
        self._wakes: set[Callable[[], None]] = set()

    def budget(self, tenant: str) -> asyncio.Semaphore:
        """Entered around each page that is read to catch up."""
        found = self._budgets.get(tenant)
        if found is None:
            found = asyncio.Semaphore(CATCHING_UP_MAX)
            self._budgets.put(tenant, found)
        return found

    def watch(self, store: Store, session: str, after: int, position: str) -> tuple[Channel, bool]:
        """The channel of a session, and whether it begins here, after this version; else others listen to it already."""
        return self._channel((store.tenant, session), position, lambda: _commits(store, session, after, position))

    def changes(self, store: Store, cursor: str) -> tuple[Channel, bool]:
        """The channel of a tenant's changes, and whether it begins here, at this cursor."""
        return self._channel((store.tenant, None), cursor, lambda: _changes(store, cursor))

    def _channel(self, key: tuple[str, str | None], position: str, source: Callable[[], Source]) -> tuple[Channel, bool]:
        known = self._channels.get(key)
        if known is not None:
            return known, False

        def finished() -> None:
            if self._channels.get(key) is made:
                del self._channels[key]

        made = self._channels[key] = Channel(source(), position, finished)
        return made, True

    def __len__(self) -> int:
        return len(self._channels)

    def add(self, wake: Callable[[], None]) -> None:
        """Called when the node begins to close."""
        self._wakes.add(wake)

    def remove(self, wake: Callable[[], None]) -> None:
        """The reverse of `add`."""
        self._wakes.discard(wake)

    @property
    def followers(self) -> int:
        """How many streams are open."""
        return len(self._wakes)

    def close(self) -> None:
        """Everyone who follows ends soon."""
        self.closing = True
        for wake in tuple(self._wakes):
            wake()


def place_of(commit: Commit) -> str:
    """A commit's position in its session: version and hash."""
    return f"{commit.version}-{commit.hash.hex()}"


async def _commits(store: Store, session: str, after: int, position: str) -> AsyncGenerator[tuple[Sequence[Entry], str], None]:
    async with aclosing(store.watch(session, after=after, control=True)) as commits:  # type: ignore[type-var]
        async for commit in commits:
            position = place_of(commit)
            yield (Entry(session, commit, position),), position


async def _changes(store: Store, cursor: str) -> AsyncGenerator[tuple[Sequence[Entry], str], None]:
    selection = make_selection(types=None, prefix="", tags=None, control=True)
    follower = make_follower(store._context, cursor, selection)
    async with aclosing(follower.pages(follow=True)) as pages:
        async for page in pages:
            yield [Entry(change.session, change.commit, change.cursor, many=True) for change in page], follower.position()
