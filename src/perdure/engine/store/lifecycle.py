"""What becomes of a session: its policy, deletion, the archive."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

from msgspec import UNSET, UnsetType

from perdure.engine.branch.fork import purge
from perdure.engine.calls.archive import archive, compact, restore
from perdure.engine.calls.configure import configure, policy, wanted
from perdure.engine.calls.delete import delete
from perdure.engine.leasing.lease import Lease
from perdure.engine.store.bound import Bound
from perdure.engine.views import Archived, Policy, Receipt


class Lifecycle(Bound):
    """See `Store`."""

    async def configure(
        self,
        session: str | None = None,
        *,
        prefix: str | None = None,
        expire_after: timedelta | float | UnsetType | None = UNSET,
        archive_after: timedelta | float | UnsetType | None = UNSET,
        wake_at: datetime | UnsetType | None = UNSET,
        wake_every: timedelta | float | UnsetType | None = UNSET,
        wake: Literal["sweep", "claim"] | UnsetType | None = UNSET,
        keep: timedelta | int | UnsetType | None = UNSET,
        drop: bool | UnsetType | None = UNSET,
        grace: timedelta | float | UnsetType | None = UNSET,
        tags: Mapping[str, str] | UnsetType | None = UNSET,
        key: str | None = None,
        actor: str | None = None,
        lease: Lease | None = None,
    ) -> Receipt:
        """Set a session's tags, and what is to become of it by itself, which `perdure sweep` then does. What is left out stays as it is;
        `None` removes. Durations: a `timedelta` or seconds, from 1 second to 100 years. One commit.

        `tags`: all of them, in place of those it had; they are indexed, see `list`. `expire_after`: so long after its last data commit the
        session is deleted, and after `grace` (7 days) purged. `wake_at`, an aware datetime, and `wake_every`: when it is woken, by a commit
        with the event `woken`; `wake="claim"` leaves that to a worker that claims it. `keep`: the age, as a `timedelta`, or the number of
        the commits that it keeps; with `drop=True` older ones are removed, without it they go to the archive. `archive_after`: so long
        after its last data commit all of the session goes there, and its next write brings it back. Both need `open(archive=...)`.

        With `prefix` in place of the session: what this tenant's sessions begin with whose ids begin so. Writers learn it within 30
        seconds, and a sweeper gives it to sessions that were started meanwhile. Older ones stay as they are: see `perdure sweep
        --existing`. The longest prefix decides; `tags` and `wake_at` are a session's own.

        `key` and `lease` as in `append`; the key of a prefix's policy is its own. Raises `NotFound`, `Deleted`, `Fenced`, `Invalid`,
        `KeyReused`, `Busy`, and `Unsupported` where the engine, or the store's schema, has no place for it.
        """
        asked = wanted(expire_after, archive_after, wake_at, wake_every, wake, keep, drop, grace)
        return await configure(self._context, session, prefix, tags, asked, actor, lease, key)

    async def policy(self, session: str | None = None, *, prefix: str | None = None) -> Policy:
        """What is to become of a session by itself, or of those that begin with a prefix: what `configure` set. Strongly consistent.

        Raises `NotFound`, `Deleted`, `Invalid`.
        """
        return await policy(self._context, session, prefix)

    async def delete(self, session: str, *, key: str | None = None, actor: str | None = None) -> Receipt:
        """Close the session with a tombstone: later calls raise `Deleted`, a late writer too; versions never start again.

        Its keys, history, forks and watches end here for ordinary calls, and its tags. Its commits stay in the store until
        `purge`. Its lease ends too. `key`: an idempotency key; a second call with it gets the first one's receipt, also in a later life of
        the session, which it does not end. Raises `NotFound`, `Deleted`, `KeyReused`.
        """
        return await delete(self._context, session, actor, key)

    async def archive(self, session: str, *, actor: str | None = None) -> Archived:
        """Move all of a session to the store's archive: only its index row, its idempotency keys and one commit stay in the engine.

        `read`, `history`, `find` and `fork` go on as before, through the archive. The first write restores the session by itself. Nothing
        happens where it is archived already. A crash at any point leaves the session whole; the next call goes on with it.
        Raises `NotFound`, `Deleted`, `Busy` while somebody writes to the session or holds its lease, or a consumer has not read it
        (`error.consumers` names them), `Unsupported` without `open(archive=...)`, `Unavailable`, and `Corrupt` for a segment that does not
        read as it was written.
        """
        return await archive(self._context, session, actor)

    async def restore(self, session: str, *, actor: str | None = None) -> bool:
        """Make an archived session live again, as its first write does; whether it was archived. Its older commits stay in the archive.

        Raises `NotFound`, `Deleted`, `Unsupported` without `open(archive=...)`, `Unavailable`, and `Corrupt` for a segment that is missing
        or damaged.
        """
        return await restore(self._context, session, actor)

    async def compact(self, session: str, *, keep: int | timedelta, drop: bool = False, actor: str | None = None) -> Archived:
        """Move commits to the archive but for the newest: so many, or those of so long a time. With `drop` they go for good.

        What is in the archive reads as before. What was dropped is `Truncated`; the state at the head stays, and idempotency keys stay
        known. What is in the archive already is dropped once all of it is older. `drop` is refused with `Invalid` while a fork reads its
        past from this session. Nothing happens where there is nothing older.
        Raises as `archive`, and `Invalid` for a negative `keep`.
        """
        return await compact(self._context, session, keep, actor, drop=drop)

    async def purge(self, session: str) -> None:
        """Remove all bytes of a deleted session, of every life it had, but a stub: its id, and the tombstone's version, hash and time.

        The stub keeps the id dead and refuses late writers; `recreate=True` goes on from it. What may remain elsewhere (free pages,
        backups, replicas, the server's logs) is in the docs of each engine. Raises `NotFound`, and `Invalid` when the session is not
        deleted, or has a fork that is alive or not purged, which reads its past here. Segments of the archive go first: `Unsupported`
        where there are some and the store was opened without `archive`.
        """
        await purge(self._context, session)
