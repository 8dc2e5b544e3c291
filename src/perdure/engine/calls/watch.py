"""`watch`: the commits of one session, those that are there and those to come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from typing import Any

from perdure.engine.context import Context
from perdure.engine.options import check_count, check_types
from perdure.engine.views import only
from perdure.model.commit import Commit, Kind


async def watch(
    context: Context, session: object, after: Any, types: Collection[str] | None, *, include_deleted: bool, control: bool
) -> AsyncGenerator[Commit, None]:
    """See `Store.watch`."""
    core, target = context.opened(), context.key(session)
    check_count("after", after)
    check_types(types)
    async with aclosing(core.watchers.follow(target, after, include_deleted=include_deleted, need=core.codec.needs(types))) as commits:
        async for commit in commits:
            if commit.kind is Kind.lease and not control:
                continue
            chosen = only(core.codec.upcast(commit), types)
            if chosen is not None:
                yield chosen
                core.check_process()
