"""`changes`, and `watch` of many sessions: the commits of all sessions of a tenant, those that are there and those to come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from typing import Any

from perdure.engine.calls.listing import check_id_part, check_tags
from perdure.engine.context import Context
from perdure.engine.live.changes import PAGE, Follower, Selection
from perdure.engine.options import check_types
from perdure.engine.views import Change
from perdure.errors import Invalid


async def changes(
    context: Context,
    after: str | None,
    *,
    types: Collection[str] | None,
    prefix: str,
    tags: Mapping[str, str] | None,
    control: bool,
    follow: bool,
) -> AsyncGenerator[Change, None]:
    """See `Store.changes`."""
    core = context.opened()
    follower = make_follower(context, after, make_selection(types=types, prefix=prefix, tags=tags, control=control))
    async with aclosing(follower.pages(follow=follow)) as pages:
        async for page in pages:
            for change in page:
                yield change
                core.check_process()


async def watch_many(
    context: Context,
    session: object,
    after: Any,
    types: Collection[str] | None,
    prefix: str | None,
    tags: Mapping[str, str] | None,
    *,
    include_deleted: bool,
    control: bool,
) -> AsyncGenerator[Change, None]:
    """See `Store.watch`, with `prefix` or `tags`."""
    if session is not None:
        raise Invalid("watch takes a session, or prefix= and tags= for many, not both.")
    if include_deleted:
        raise Invalid("include_deleted= is for one session: with prefix= or tags= the commits of deleted sessions come anyway.")
    cursor = None if after == 0 and isinstance(after, int) else after
    selected = changes(context, cursor, types=types, prefix=prefix or "", tags=tags, control=control, follow=True)
    async with aclosing(selected) as found:
        async for change in found:
            yield change


def make_selection(*, types: Collection[str] | None, prefix: str, tags: Mapping[str, str] | None, control: bool) -> Selection:
    """Which changes are wanted. Raises `Invalid`."""
    check_types(types)
    check_id_part("prefix", prefix)
    return Selection(
        types=None if types is None else frozenset(types), prefix=prefix or "", tags=check_tags(tags or {}), control=bool(control)
    )


def make_follower(context: Context, after: str | None, selection: Selection, page: int = PAGE) -> Follower:
    """A follower of the tenant's changes. Raises `Invalid` for a cursor of another store or tenant."""
    return context.opened().follower(context.tenant, selection, after, page)
