"""Reading a log of which `keep=` with `drop=True` has removed the beginning: what is left of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from typing import cast

from perdure.engine.store import Store
from perdure.errors import Truncated
from perdure.model.commit import Commit


async def kept(
    store: Store,
    session: str,
    *,
    after: int = 0,
    before: int | None = None,
    types: Collection[str] | None = None,
    newest_first: bool = False,
    control: bool = False,
) -> AsyncGenerator[Commit, None]:
    """As `Store.history`, without the commits that were dropped: it begins with the first one that is left, or ends with it.

    With `control` versions follow each other. A gap then means that commits were dropped, or that an earlier life of the session ended.
    """
    while True:
        history = store.history(session, after=after, before=before, types=types, newest_first=newest_first, control=control)
        try:
            async with aclosing(cast(AsyncGenerator[Commit, None], history)) as commits:
                async for commit in commits:
                    after = after if newest_first else commit.version
                    yield commit
            return
        except Truncated as error:
            if newest_first or error.first <= after + 1:
                return
            after = error.first - 1


async def dropped_until(store: Store, session: str) -> int:
    """The newest version that was dropped, whose state can still be read; 0 where nothing was dropped. Raises `NotFound`, `Deleted`."""
    try:
        history = store.history(session, limit=1, control=True)
        async with aclosing(cast(AsyncGenerator[Commit, None], history)) as commits:
            async for _ in commits:
                break
    except Truncated as error:
        return int(error.first) - 1
    return 0
