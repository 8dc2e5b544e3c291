"""Following all sessions of a tenant: the engine's feed page by page, checked, then a notification or a poll, and on.

Each session's commits are checked against the one before as far as it is remembered: what the feed repeats is dropped, a gap is `Truncated`
and a commit that follows another one than was seen is `Rewound`. A session that is not remembered may have lost commits to the archive
since the cursor: where the engine has nothing below the first record that comes, all that the archive has comes before that.

Whether the store still has the newest commit that was passed is looked up when a cursor is taken up, after an outage, and at each page
where a failover may drop commits (`capabilities.failover_loss`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence

import msgspec

from perdure.backends.spi import Backend, Page, Query, served
from perdure.backends.spi import Change as FeedEntry
from perdure.clock import Clock
from perdure.codec.codec import Codec
from perdure.codec.out_of_line import is_reference
from perdure.concurrency.replies import Reply
from perdure.config import Settings
from perdure.engine.live.cursor import HASH_BYTES, Cursors, Place, Proof, all_passed, passed
from perdure.engine.live.watch import POLL_SELDOM, RETRY_AFTER, Watchers
from perdure.engine.read.bodies import Bodies
from perdure.engine.read.chains import FORKED, Chains
from perdure.engine.views import Change, only
from perdure.errors import Deleted, Error, Rewound, Truncated, Unavailable
from perdure.lru import LruMap
from perdure.model.commit import Commit, Kind
from perdure.model.ids import SessionKey
from perdure.model.record import Record

PAGE, PAGE_FIRST = 128, 16
"""Records that an engine is asked for at once: at most, and at first. Each full page doubles the number."""
PAGE_BYTES = 4 << 20
"""After a page with more bytes than this the next one is asked for with half as many records."""
SEEN_MAX = 4096
"""Sessions whose newest commit is remembered, in 32 bytes each; and whose tags are, where the follower chooses by tags."""


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which changes a follower wants. See `Store.changes`."""

    types: Collection[str] | None = None
    prefix: str = ""
    tags: Mapping[str, str] = {}
    control: bool = False

    def of(self, commit: Commit) -> Commit | None:
        """What the follower gets of a commit: the events of its types; `None` where that is nothing."""
        return None if commit.kind is Kind.lease and not self.control else only(commit, self.types)


class Follower:
    """One reader of a tenant's changes. It goes on after the cursor `after`; `None`: from the start."""

    def __init__(
        self,
        backend: Backend,
        codec: Codec,
        bodies: Bodies,
        chains: Chains,
        watchers: Watchers,
        clock: Clock,
        settings: Settings,
        tenant: str,
        selection: Selection,
        after: str | None,
        page: int = PAGE,
    ) -> None:
        """`page` is the most records that the engine is asked for at once. Raises `Invalid` for a cursor of another store or tenant."""
        self._backend, self._codec, self._bodies, self._chains, self._watchers = backend, codec, bodies, chains, watchers
        self._clock, self._settings, self._tenant, self._selection = clock, settings, tenant, selection
        self._cursors = Cursors(backend.store_id, tenant)
        place = Place(None, None, b"") if after is None else self._cursors.read(after)
        self._feed, self._proof, self._passed = place.feed, place.proof, place.passed
        self._limit, self._limit_max = min(PAGE_FIRST, page), page
        self._seen = LruMap[bytes, tuple[int, bytes]](SEEN_MAX)
        for mark, version, hash in all_passed(place.passed):
            self._seen.put(mark, (version, hash))
        self._from_start = after is None
        self._tags = LruMap[str, Mapping[str, str]](SEEN_MAX)
        self._unproven = True
        self._proven = clock.monotonic()

    def after(self, cursor: str) -> Follower:
        """Another one that is after the same, from this cursor on. Raises `Invalid`."""
        parts = self._backend, self._codec, self._bodies, self._chains, self._watchers, self._clock, self._settings
        return Follower(*parts, self._tenant, self._selection, cursor, self._limit_max)

    async def pages(self, *, follow: bool) -> AsyncGenerator[Sequence[Change], None]:
        """The changes, some at a time, and an empty page whenever there are no more; without `follow` that is the end.

        With `follow` an engine that is `Unavailable` is asked again for `watch_outage` seconds. Raises `Rewound`, `Truncated`, `Corrupt`,
        `Unavailable`, `Closed`, each after what could be given before it.
        """
        away: float | None = None
        pause = self._settings.watch_every
        with self._watchers.following_tenant(self._tenant) as signal:
            while True:
                signal.arm()
                try:
                    if follow:
                        await self._watchers.listen()
                    page = await self._backend.feed(self._feed, self._limit)
                    await self._prove(page)
                    away = None
                    found, error = await self._read(page)
                    if found:
                        yield found
                    if error is not None:
                        raise error
                    if page.items:
                        continue
                    yield ()
                    if not follow:
                        return
                    # What the engine has notified of may be in its feed a little later.
                    hinted = await signal.notified(min(pause, self._watchers.patience()))
                    pause = self._settings.watch_every if hinted else min(2 * pause, POLL_SELDOM)
                    self._watchers.check_open()
                except Unavailable:
                    now = self._clock.monotonic()
                    away = now if away is None else away
                    if not follow or now - away >= self._settings.watch_outage:
                        raise
                    self._unproven = True
                    await Reply[None]().within(RETRY_AFTER)

    def position(self) -> str:
        """A cursor to go on after what was given so far, for one who was given nothing for a while."""
        return self._cursor()

    async def _prove(self, page: Page[FeedEntry]) -> None:
        """Raise `Rewound` if the store does not have the newest commit that was passed. It is looked up after a page was read."""
        now = self._clock.monotonic()
        loses = self._backend.capabilities.failover_loss is not None and (page.items or now - self._proven >= POLL_SELDOM)
        if self._proof is None or not (self._unproven or loses):
            return
        session = SessionKey(self._tenant, self._proof.session)
        (head,) = await self._backend.heads([session])
        if head is None or head.version < self._proof.version:
            raise self._rewound(session, self._proof.version)
        hash = head.hash
        if head.version > self._proof.version:
            version = self._proof.version
            records = await self._backend.read(session, after=version - 1, before=version + 1, limit=1)
            hash = records[0].head.hash if records else self._proof.hash  # It was truncated or purged since.
        if hash[:HASH_BYTES] != self._proof.hash:
            raise self._rewound(session, self._proof.version)
        self._unproven, self._proven = False, now

    async def _read(self, page: Page[FeedEntry]) -> tuple[list[Change], Error | None]:
        """What the follower gets of a page, and what it meets there. After an error the place is the one just before it."""
        found: list[Change] = []
        try:
            for entry in page.items:
                if entry.session.tenant == self._tenant:
                    expected = await self._expected(entry.session, entry.record)
                    async for record in self._with_archived(entry.session, entry.record, expected):
                        commit = await self._next(entry.session, record, expected)
                        expected = max(expected, record.head.version + 1)
                        if commit is not None:
                            found.append(Change(entry.session.id, commit, self._cursor()))
        except Error as error:
            return found, error
        size = sum(entry.record.stored_bytes for entry in page.items)
        if size > PAGE_BYTES:
            self._limit = max(1, self._limit // 2)
        elif len(page.items) >= self._limit:
            self._limit = min(self._limit_max, 2 * self._limit)
        self._feed, self._passed = self._feed if page.cursor is None else page.cursor, b""
        if found:
            found[-1] = msgspec.structs.replace(found[-1], cursor=self._cursor())
        return found, None

    def _cursor(self, more: bytes = b"") -> str:
        return self._cursors.write(Place(self._feed, self._proof, self._passed + more))

    async def _next(self, session: SessionKey, record: Record, expected: int) -> Commit | None:
        """What the follower gets of a record; from now on it is passed. `expected`: the version that is to come next."""
        head, hash = record.head, record.head.hash[:HASH_BYTES]
        wanted = session.id.startswith(self._selection.prefix)
        commit = None
        if wanted:
            mark = self._cursors.mark(session.id)
            commit = self._open(session, record, mark, expected)
            if commit is None:
                return None
            if self._selection.tags and not await self._has_tags(session, commit):
                commit = None
            elif is_reference(record.body):
                commit = await self._with_body(session, record)
            self._seen.put(mark, (head.version, hash))
            self._pass(mark, head.version, hash)
        self._proof = Proof(session.id, head.version, hash)
        return None if commit is None else self._selection.of(self._codec.upcast(commit))

    async def _with_archived(self, session: SessionKey, record: Record, first: int) -> AsyncGenerator[Record, None]:
        """The record, and before it those of its session from the version `first` on that the archive has."""
        version = record.head.version
        while first < version and not record.is_stub:
            archived = await self._chains.read(session, after=first - 1, before=version, limit=self._limit_max)
            if not archived:
                break  # They are gone, or those of a fork's parent.
            for each in archived:
                yield each
            first = archived[-1].head.version + 1
        yield record

    async def _expected(self, session: SessionKey, record: Record) -> int:
        """The version of the first commit that should come before this record, or its own."""
        version = record.head.version
        if not session.id.startswith(self._selection.prefix):
            return version
        known = self._seen.get(self._cursors.mark(session.id))
        if known is not None:
            return known[0] + 1
        return 1 if self._is_whole() or await self._is_lowest(session, record) else version

    async def _is_lowest(self, session: SessionKey, record: Record) -> bool:
        """Whether the engine has let go of all that came before a record of a session that is not remembered. What went may have come after
        the cursor. Where something is left below the record, the feed would have had it, if it had come after the cursor."""
        if record.is_stub or self._chains.is_start(session, record):
            return False
        lowest = await self._first_held(session)
        return lowest is None or lowest >= record.head.version

    async def _first_held(self, session: SessionKey) -> int | None:
        """The version of the first record that the engine holds."""
        if (nodes := served(self._backend)) is not None:
            return await nodes.first_held(session)
        records = await self._backend.read(session, limit=1)
        return records[0].head.version if records else None

    def _pass(self, mark: bytes, version: int, hash: bytes) -> None:
        """Note the newest commit of a session that was passed in this page, once."""
        entry = passed(mark, version, hash)
        if self._passed[-len(entry) :].startswith(mark):
            self._passed = self._passed[: -len(entry)]
        self._passed += entry

    def _open(self, session: SessionKey, record: Record, mark: bytes, expected: int) -> Commit | None:
        """The commit, checked; `None` if it was passed before. Raises `Corrupt`, `Rewound`, `Truncated`."""
        version, known = record.head.version, self._seen.get(mark)
        if known is not None:
            if version <= known[0]:
                if version == known[0] and record.head.hash[:HASH_BYTES] != known[1]:
                    raise self._rewound(session, version)
                return None
            if version == known[0] + 1 and self._codec.prev(record)[:HASH_BYTES] != known[1]:
                raise self._rewound(session, known[0])
        commit = self._codec.open_record(session, record, partial=True)
        if version > expected and not record.is_stub and not _is_fork(commit):
            may = "were" if known is not None or self._from_start else "may have been"
            raise Truncated(
                f"Versions {expected} to {version - 1} of session {session.id!r} {may} truncated before they were read here.",
                session=session.id,
                first=version,
                cursor=self._cursor(passed(mark, version - 1, commit.prev[:HASH_BYTES])),
                advice="To go on without them, follow the changes after the error's `cursor`.",
            )
        return commit

    async def _with_body(self, session: SessionKey, record: Record) -> Commit | None:
        """The commit of a record whose body lies elsewhere, without events if those are not wanted; `None` where it was purged just now."""
        try:
            bodies = await self._bodies.fetch(session, [record], self._codec.needs(self._selection.types))
        except Deleted:
            return None
        return self._codec.open_record(session, record, body=bodies.get(record.head.version), partial=True)

    def _is_whole(self) -> bool:
        """Whether what is not remembered was never seen."""
        return self._from_start and len(self._seen) < SEEN_MAX

    async def _has_tags(self, session: SessionKey, commit: Commit) -> bool:
        """Whether the session has the tags, as its index row says when its commits are read; after a change of tags it is read again."""
        tags = self._tags.get(session.id)
        if tags is None or commit.kind is Kind.configure:
            page = await self._backend.scan(Query(self._tenant, prefix=session.id), limit=1)
            tags = next((row.tags for row in page.items if row.session == session), None)
            if tags is None:  # It is deleted. A tombstone is shown to all: who followed it has to know.
                return commit.kind is Kind.tombstone
            self._tags.put(session.id, tags)
        if commit.kind is Kind.tombstone:
            self._tags.pop(session.id)
        return self._selection.tags.items() <= tags.items()

    def _rewound(self, session: SessionKey, version: int) -> Rewound:
        return Rewound(
            f"Version {version} of session {session.id!r}, which was seen, is not in the store: it was restored or lost its newest writes.",
            session=session.id,
            advice="Follow the changes from the start, or after a cursor from before the loss.",
        )


def _is_fork(commit: Commit) -> bool:
    return commit.kind is Kind.configure and bool(commit.events) and commit.events[0].type == FORKED
