"""Sessions that have expired: to a framework they are not there, and what it writes begins them again.

A session that somebody deleted stays deleted: a worker that still writes to it is refused. When its bytes are purged, which a sweeper
does after the grace of one that has expired, nothing says any more why it went: then it may begin again in any case.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

from perdure.engine.store import Store
from perdure.engine.views import Receipt
from perdure.errors import Deleted, NotFound, Truncated
from perdure.model.commit import Commit, Kind
from perdure.model.events import Event

EXPIRED = "expired"
"""What a sweeper's tombstone says in its data."""


async def expired_at(store: Store, session: str) -> int | None:
    """The version of the tombstone, if the session has expired, or was purged; `None` if it lives, is not there, or somebody deleted it."""
    history = store.history(session, newest_first=True, limit=1, include_deleted=True)
    try:
        async with aclosing(cast(AsyncGenerator[Commit, None], history)) as commits:
            async for commit in commits:
                return commit.version if _says_expired(commit) else None
    except (NotFound, Deleted):
        pass
    return None


async def follows_expiry(store: Store, session: str) -> bool:
    """Whether the session's present life began after an earlier one had expired. Reads the life's log."""
    history = store.history(session, newest_first=True, include_deleted=True)
    try:
        async with aclosing(cast(AsyncGenerator[Commit, None], history)) as commits:
            async for commit in commits:
                if commit.kind is Kind.tombstone:
                    return _says_expired(commit)
    except (NotFound, Deleted, Truncated):
        pass
    return False


def _says_expired(commit: Commit) -> bool:
    said = [event.data for event in commit.events]
    return commit.kind is Kind.tombstone and (not said or any(isinstance(data, dict) and EXPIRED in data for data in said))


async def append_or_begin(store: Store, session: str, *events: Event, **options: Any) -> Receipt:
    """As `Store.append`; a session that has expired begins again. Raises as `Store.append`."""
    try:
        return await store.append(session, *events, **options)
    except Deleted:
        tombstone = await expired_at(store, session)
        if tombstone is None:
            raise
    if options.get("expect") == 0 and not any(event.ops for event in events):
        options["expect"] = tombstone  # Events alone are refused after data commits that they do not know, of an earlier life too.
    return await store.append(session, *events, recreate=True, **options)
