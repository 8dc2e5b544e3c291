"""One client that follows: it reads by itself what it has not seen, then listens to a channel; where it missed something it reads again.

Each gives batches of entries, and an empty batch after each `heartbeat` seconds without one. `position` is where a client goes on that has
all that was given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, nullcontext

from perdure.engine.calls.changes import make_follower, make_selection
from perdure.engine.store import Store
from perdure.errors import Deleted, Rewound
from perdure.model.commit import Commit, Kind
from perdure.model.token import read_token
from perdure.service.stream.channel import Channel, Listener
from perdure.service.stream.entries import Choice, Entry
from perdure.service.stream.hub import Hub, place_of

PAGE = 128
"""Commits that are read at once to catch up."""


class Following(ABC):
    """What followers of one session and of all of them share."""

    def __init__(self, hub: Hub, store: Store, heartbeat: float) -> None:
        self._hub, self._store, self._heartbeat = hub, store, heartbeat
        self._listener: Listener | None = None
        self.position = ""
        self._stopped = False

    def stop(self) -> None:
        """End soon: the client has gone away, or the time is over."""
        self._stopped = True
        if self._listener is not None:
            self._listener.wake()

    def is_over(self) -> bool:
        """Whether nobody wants more."""
        return self._stopped or self._hub.closing

    async def batches(self) -> AsyncGenerator[Sequence[Entry], None]:
        """Entries as they come."""
        self._hub.add(self.stop)
        try:
            while not self.is_over():
                async for batch in self._caught_up():
                    yield batch
                    if self.is_over():
                        return
                channel, first = self._join()
                listener = self._listener = channel.listen()
                try:
                    if not first:  # What came between the last page and this moment.
                        async for batch in self._caught_up():
                            yield batch
                    while not self.is_over():
                        await listener.wait(self._heartbeat)
                        if listener.lagging:
                            break
                        entries = self._next(listener)
                        if entries is None:
                            break
                        if not entries and not listener.over:
                            self._rest(channel)
                        if entries or not listener.over:
                            yield entries
                        if listener.over and not listener.entries:
                            if listener.error is not None:
                                raise listener.error
                            return
                finally:
                    self._listener = None
                    channel.leave(listener)
        finally:
            self._hub.remove(self.stop)

    @abstractmethod
    def _caught_up(self) -> AsyncGenerator[Sequence[Entry], None]:
        """What there is after the position, until there is no more."""

    @abstractmethod
    def _join(self) -> tuple[Channel, bool]:
        """The channel that goes on after the position, and whether it begins there."""

    @abstractmethod
    def _next(self, listener: Listener) -> list[Entry] | None:
        """What the listener has, in order, without what was given before; `None` where something is missing."""

    def _rest(self, channel: Channel) -> None:  # noqa: ARG002 - for who follows many sessions
        """Nothing came for a while. Who follows one session has nothing to do then."""
        return


class SessionFollowing(Following):
    """Follows one session, after a version; its hash, where it is known, has to be the one that the chain has."""

    def __init__(self, hub: Hub, store: Store, heartbeat: float, session: str, after: int, hash: bytes | None) -> None:
        super().__init__(hub, store, heartbeat)
        self._session, self._version, self._hash = session, after, hash
        self._began = self._ended = False
        self.position = "" if hash is None else f"{after}-{hash.hex()}"

    async def first(self) -> list[Entry]:
        """The first page, before the answer begins. Raises `NotFound`, `Deleted`, `Rewound`, `Truncated`."""
        found = await self._page()
        if not found and self._version:
            token = read_token(await self._store.token(self._session))
            if token.version < self._version or (token.version == self._version and self._hash not in (None, token.hash)):
                raise self._rewound()
            if token.version == self._version:
                self._hash = token.hash
        self._began = True
        return found

    async def _page(self) -> list[Entry]:
        found: list[Entry] = []
        async with self._hub.budget(self._store.tenant):
            try:
                await self._read(found, include_deleted=False)
            except Deleted:
                if not self._began:
                    raise
                await self._read(found, include_deleted=True)
        return found

    async def _read(self, found: list[Entry], *, include_deleted: bool) -> None:
        history = self._store.history(
            self._session, after=self._version, limit=PAGE - len(found), control=True, include_deleted=include_deleted
        )
        async with aclosing(history) as commits:  # type: ignore[type-var]
            async for commit in commits:
                found.append(self._seen(commit))
                if commit.kind is Kind.tombstone:
                    self._ended = True
                    return

    def _seen(self, commit: Commit) -> Entry:
        """The next commit. Raises `Rewound` where it does not follow the one before."""
        if self._hash is not None and commit.version == self._version + 1 and commit.prev != self._hash:
            raise self._rewound()
        self._version, self._hash, self.position = commit.version, commit.hash, place_of(commit)
        return Entry(self._session, commit, self.position)

    def _rewound(self) -> Rewound:
        return Rewound(f"Version {self._version} of session {self._session!r} is not the one that was seen.", session=self._session)

    async def _caught_up(self) -> AsyncGenerator[Sequence[Entry], None]:
        while not self.is_over():
            page = await self._page()
            if page:
                yield page
            if self._ended:
                self._stopped = True
            if len(page) < PAGE:
                return

    def _join(self) -> tuple[Channel, bool]:
        return self._hub.watch(self._store, self._session, self._version, self.position)

    def _next(self, listener: Listener) -> list[Entry] | None:
        found: list[Entry] = []
        while listener.entries:
            entry = listener.entries.popleft()
            if entry.commit.version <= self._version:
                continue
            if entry.commit.version > self._version + 1 and self._version:
                return None
            if self._hash is not None and entry.commit.prev != self._hash:
                raise self._rewound()
            self._version, self._hash, self.position = entry.commit.version, entry.commit.hash, entry.position
            found.append(entry)
        return found


class ChangesFollowing(Following):
    """Follows all sessions of a tenant, after a cursor; `None`: from the start."""

    def __init__(self, hub: Hub, store: Store, heartbeat: float, cursor: str | None, choice: Choice, tags: dict[str, str]) -> None:
        """Raises `Invalid` for a cursor of another store or tenant."""
        super().__init__(hub, store, heartbeat)
        self._choice, self._tags = choice, tags
        self._delivered: dict[str, int] = {}
        """Versions that were given while the listener had begun to listen: they may be in its queue too."""
        self._follow(cursor)

    def _follow(self, cursor: str | None) -> None:
        choice = self._choice
        selection = make_selection(types=choice.types, prefix=choice.prefix, tags=self._tags, control=choice.control)
        self._follower = make_follower(self._store._context, cursor, selection, PAGE)
        self.position = self._follower.position() if cursor is None else cursor

    async def _caught_up(self) -> AsyncGenerator[Sequence[Entry], None]:
        listening = self._listener is not None
        if not listening and self.position != self._follower.position():
            self._follow(self.position)
        alone = bool(self._tags)  # Tags are looked up for each session: nobody shares that.
        pages = self._follower.pages(follow=alone)
        async with aclosing(pages):
            while not self.is_over():
                async with nullcontext() if alone else self._hub.budget(self._store.tenant):
                    page = await anext(pages, None)
                if page is None:
                    return
                for change in page:
                    if listening:
                        self._delivered[change.session] = change.commit.version
                self.position = self._follower.position()
                if page or alone:
                    yield [Entry(change.session, change.commit, change.cursor, many=True) for change in page]

    def _join(self) -> tuple[Channel, bool]:
        self._delivered.clear()
        return self._hub.changes(self._store, self.position)

    def _next(self, listener: Listener) -> list[Entry] | None:
        found: list[Entry] = []
        while listener.entries:
            entry = listener.entries.popleft()
            self.position = entry.position
            if entry.commit.version > self._delivered.get(entry.session, 0):
                found.append(entry)
        return found

    def _rest(self, channel: Channel) -> None:
        self.position = channel.position
