"""What reads: a session's state and history, what comes to it, and which sessions there are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from datetime import datetime
from typing import Literal, overload

from perdure.engine.calls.changes import changes, watch_many
from perdure.engine.calls.history import history
from perdure.engine.calls.listing import list_sessions
from perdure.engine.calls.read import newest_token, read
from perdure.engine.calls.sizes import sizes
from perdure.engine.calls.verify import verify
from perdure.engine.calls.watch import watch
from perdure.engine.store.bound import Bound
from perdure.engine.views import Change, Info, Sizes, Verified, View
from perdure.model.commit import Commit, Status


class Reading(Bound):
    """See `Store`."""

    async def read(
        self,
        session: str,
        *,
        at: int | datetime | None = None,
        consistency: Literal["strong", "eventual"] = "strong",
        max_staleness: float | None = None,
        at_least: str | None = None,
        include_deleted: bool = False,
    ) -> View:
        """The session's state at its head, at a version, or at a time (the last version not later; an aware datetime).

        `strong` sees every commit acknowledged before the call, by any process. `eventual` answers from memory where this process knew
        the state to be the newest within the last `max_staleness` seconds (default and most: the setting `cache_ttl`), by its own
        monotonic clock; else it looks at the head. It never answers with less than this store has acknowledged, or shown by `read`,
        `history` or `watch`.
        `at_least` is the `token` of a `View`, of any process: an answer that would be older looks at the head first.
        `include_deleted` reads a deleted session, and with `at` what was before a deletion, for audit.
        Raises `NotFound`, `Deleted`, `Truncated`, `Invalid`, and `Rewound` where the chain has lost the token's commit.
        """
        return await read(self._context, session, at, consistency, max_staleness, at_least, include_deleted=include_deleted)

    async def token(self, session: str) -> str:
        """The token of the session's newest version, as `View.token`, without its state. One round trip. Raises `NotFound`, `Deleted`."""
        return await newest_token(self._context, session)

    def history(
        self,
        session: str,
        *,
        after: int = 0,
        before: int | None = None,
        types: Collection[str] | None = None,
        newest_first: bool = False,
        limit: int | None = None,
        include_deleted: bool = False,
        control: bool = False,
    ) -> AsyncIterator[Commit]:
        """The session's commits with `after < version < before`, checked link by link, through forks to their parents.

        Those of its present life; `include_deleted` gives all that are left, of a deleted session too, for audit. `types` keeps the
        commits that have an event of one of these types, and of their events only those. `control` gives the commits of leases too, which
        are left out else. `limit` counts commits. Read a page at a time. Raises `NotFound`, `Deleted`, `Truncated`, `Corrupt`.
        """
        return history(
            self._context,
            session,
            after=after,
            before=before,
            types=types,
            newest_first=newest_first,
            limit=limit,
            include_deleted=include_deleted,
            control=control,
        )

    @overload
    def watch(
        self,
        session: str,
        *,
        after: int = 0,
        types: Collection[str] | None = None,
        include_deleted: bool = False,
        control: bool = False,
    ) -> AsyncIterator[Commit]: ...

    @overload
    def watch(
        self,
        *,
        prefix: str = "",
        tags: Mapping[str, str] | None = None,
        after: str | None = None,
        types: Collection[str] | None = None,
        control: bool = False,
    ) -> AsyncIterator[Change]: ...

    def watch(
        self,
        session: str | None = None,
        *,
        after: int | str | None = 0,
        types: Collection[str] | None = None,
        include_deleted: bool = False,
        control: bool = False,
        prefix: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Commit] | AsyncIterator[Change]:
        """The session's commits with a version above `after`, then those to come as they come, by whomever they are written.

        Nothing is skipped and nothing comes twice: go on later with `after=` the last version seen. Begins with the session's present
        life and ends after its tombstone (`include_deleted`: neither); break off whenever you like. `types` and `control` as in
        `history`. Waits out an engine that is away, for `watch_outage` seconds.

        With `prefix` or `tags` in place of a session it gives `Change`s of every session whose id begins so and that has these tags: the
        same as `changes`, with a cursor as `after`.

        Raises `NotFound`, `Deleted`, `Truncated`, `Corrupt`, `Unavailable`, `Closed`, and `Rewound` when the store has lost what was seen.
        """
        if prefix is None and tags is None:
            return watch(self._context, session, after, types, include_deleted=include_deleted, control=control)
        return watch_many(self._context, session, after, types, prefix, tags, include_deleted=include_deleted, control=control)

    def changes(
        self,
        *,
        after: str | None = None,
        types: Collection[str] | None = None,
        prefix: str = "",
        tags: Mapping[str, str] | None = None,
        control: bool = False,
        follow: bool = True,
    ) -> AsyncIterator[Change]:
        """The commits of every session of this tenant, from the start or after a cursor, then those to come; each with a cursor to go on.

        At least once: one session's commits come in the order of their versions, and some may come again after a cursor was taken up: also
        all that the archive has of a session, where some of it may have gone there unread.
        Between sessions there is no promised order. Deleted sessions are among them up to their tombstone; of a purged one only the
        tombstone is left. With `follow=False` it ends when there are no more.

        `types` as in `history` (a deletion is an event of the type "deleted"). `prefix`: ids that begin so. `tags`: sessions that have them
        when their commits are read here; every tombstone of a session whose tags are not known any more comes too. `control`: lease commits
        too. Go on with the same choice. The engine's feed has all tenants' commits, and those of others are passed over.

        Waits out an engine that is away, for `watch_outage` seconds. Raises `Invalid` for a cursor of another store or tenant, `Rewound`
        when the store has lost commits that were seen, `Truncated` (with a `cursor` to go on without them) when commits were truncated
        before they were read, or may have been, `Corrupt`, `Unavailable`, `Closed`.
        """
        return changes(self._context, after, types=types, prefix=prefix, tags=tags, control=control, follow=follow)

    def list(
        self,
        *,
        prefix: str = "",
        tags: Mapping[str, str] | None = None,
        status: Status | str | None = None,
        updated_after: datetime | None = None,
        updated_before: datetime | None = None,
        order: str = "id",
        limit: int | None = None,
        cursor: str | None = None,
    ) -> AsyncIterator[Info]:
        """This tenant's sessions by id prefix, tags (all must match), status (default: all but deleted and moved) and the time of their
        newest commit (aware datetimes, both exclusive; looked at row by row on every engine).

        Go on after the last id seen by passing it as `cursor`. Raises `Invalid`, `Unsupported` for an order the engine lacks.
        """
        return list_sessions(
            self._context,
            prefix=prefix,
            tags=tags,
            status=status,
            after=updated_after,
            before=updated_before,
            order=order,
            limit=limit,
            cursor=cursor,
        )

    async def verify(self, session: str) -> Verified:
        """Prove the session: each commit's hash and place, and each snapshot against the fold. Reads everything.

        Works on deleted sessions too. Raises `Corrupt` naming what is wrong, `NotFound`.
        """
        return await verify(self._context, session)

    async def sizes(self, session: str, *, parts: int = 20, include_deleted: bool = False) -> Sizes:
        """Where the session's bytes are: its state, with at most `parts` of its heaviest parts, its snapshot, its commits and its bodies
        out of line. Reads all records, and no body that it does not have to fold. Raises `NotFound`, `Deleted`, `Invalid`.
        """
        return await sizes(self._context, session, parts, include_deleted=include_deleted)
