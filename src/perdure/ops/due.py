"""What is due, when and why, as the index rows say it. Nothing is changed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any

import msgspec

from perdure.backends.spi import Query, Row, indexed, served
from perdure.engine.core import Core
from perdure.engine.options import check_count, check_time
from perdure.engine.store import Store
from perdure.errors import Unsupported
from perdure.model.commit import Status
from perdure.model.control import decode_control
from perdure.model.lifecycle import YEAR, look_of, policy_of, reasons
from perdure.model.timestamps import moment, to_datetime, to_nanoseconds
from perdure.ops.prefix_steps import is_to_apply

PAGE = 100
"""Rows that an engine is asked for at once."""


TIME_END = 1 << 63
"""The end of time as engines count it, in nanoseconds: the year 2262."""


class DueSession(msgspec.Struct, frozen=True):
    """A session that somebody has to look at."""

    tenant: str
    session: str
    due_at: datetime | None
    """When (UTC); `None`: at once, because no sweeper has looked at it since its policy was set."""
    why: str
    """`look`: to see how it stands; `expire`, `wake`, `claim` (an alarm for a worker), `keep` (old commits may be there), `purge`, `apply`
    (a prefix policy was changed)."""
    at: datetime | None
    """When that is to happen, as far as the last look knows; an append moves it."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON can say it: times as RFC 3339."""
        shown = {name: None if found is None else moment(found) for name, found in (("due_at", self.due_at), ("at", self.at))}
        return {"tenant": self.tenant, "session": self.session, "due_at": shown["due_at"], "why": self.why, "at": shown["at"]}


async def due(
    store: Store,
    *,
    prefix: str = "",
    before: datetime | None = None,
    every_tenant: bool = False,
    deleted: bool = False,
    limit: int | None = None,
) -> AsyncGenerator[DueSession, None]:
    """The sessions of this store's tenant, or of `every_tenant` with Perdure's own, that are due, the earliest first.

    `before`: only those that are due before this aware datetime. `deleted`: the expired ones that wait for their purge, in place of live
    ones. Raises `Invalid`, and `Unsupported` where the engine does not list what is due.
    """
    core = store._context.opened()
    if limit is not None:
        check_count("limit", limit)
    status = int(Status.deleted) if deleted else None
    query = Query(None if every_tenant else store.tenant, prefix, status=status, order="due", due_before=until(before))
    if every_tenant and served(core.backend) is not None:
        raise Unsupported("A service shows one tenant's sessions, that of the credentials: ask for every tenant's at the engine's URL.")
    left = limit
    if left == 0:
        return
    async for row in due_rows(core, query):
        yield due_session(row)
        left = None if left is None else left - 1
        if left == 0:
            return


def until(before: datetime | None) -> int | None:
    """`Query.due_before` for a time. Raises `Invalid`."""
    return None if before is None else min(max(to_nanoseconds(check_time("before", before)) - 999, 0), TIME_END - 1)


async def due_rows(core: Core, query: Query, cursor: str | None = None) -> AsyncGenerator[Row, None]:
    """The rows of a query in the order `due`, after an engine's cursor. Raises `Unsupported`."""
    if indexed(core.backend) is None:
        raise Unsupported("This store does not list what is due: its engine cannot, or it has schema 1, which `perdure upgrade` changes.")
    while True:
        page = await core.backend.scan(query, cursor=cursor, limit=PAGE)
        for row in page.items:
            yield row
        cursor = page.cursor
        if cursor is None:
            return


def due_session(row: Row) -> DueSession:
    """What a row says of why it is due."""
    due_at = row.due_at or 0
    shown = None if due_at < YEAR else to_datetime(due_at)
    if row.head.status == Status.deleted:
        return DueSession(*row.session, shown, "purge", shown)
    if is_to_apply(row):
        return DueSession(*row.session, shown, "apply", None)
    control = decode_control(row.control)
    policy = policy_of(control)
    at, why = min(reasons(policy, look_of(control)), default=(None, "look"))
    if policy is not None and policy.keeps and (at is None or at > due_at):
        at, why = None, "keep"
    return DueSession(*row.session, shown, "look" if shown is None else why, None if at is None else to_datetime(at))
