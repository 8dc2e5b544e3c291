"""A sweeper's round, a page at a time: which rows are looked at in which order, and where it goes on.

A direct sweeper's round is of all tenants. A node does the rounds of one tenant for a client, a step a request; see `step`.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from perdure.backends.spi import Query, Row, indexed
from perdure.engine.core import Core
from perdure.engine.store import Store
from perdure.errors import Busy, Error, Invalid, Unavailable, Unknown, Unsupported
from perdure.model.commit import Status
from perdure.model.ids import is_system, system_tenant
from perdure.model.lifecycle import SECOND, YEAR
from perdure.ops.prefix_steps import apply, apply_changed, apply_page, is_to_apply, prefix_policies
from perdure.ops.rows import Sweep, action
from perdure.ops.session_steps import look_at, postpone, purge
from perdure.ops.swept import Action

BATCH = 64
"""Sessions that are looked at together."""
STATUSES = (None, int(Status.deleted))
"""Live sessions are looked at first, then deleted ones."""
SLICE_SECONDS = 1.0
"""For how long a step gives prefix policies to sessions; a page of them that was begun is finished."""
LOG = logging.getLogger("perdure.ops")
_CURSOR_CHARACTERS_MAX = 4_096
_NEXT = "\0"
"""A prefix followed by this is the least text after it; no prefix has one."""


class Looked(msgspec.Struct, frozen=True):
    """A page of sessions that were due."""

    actions: Sequence[Action]
    late: int
    """For how long the session had been due that waited longest, in nanoseconds."""
    cursor: str | None
    """The engine's, of the next page; `None`: it was the last one."""


class Given(msgspec.Struct, frozen=True):
    """A prefix policy that was given to sessions that were there before it."""

    tenant: str
    prefix: str
    sessions: int
    """To how many, in this step."""

    @property
    def action(self) -> Action:
        """As an action, for who is shown them."""
        return Action(self.tenant, f"{self.prefix}*", "applied", f"to {self.sessions} sessions that were there before")


class Step(msgspec.Struct, frozen=True):
    """A part of a round."""

    actions: Sequence[Action]
    given: Sequence[Given]
    overdue_seconds: float
    """For how long the session had been due that waited longest."""
    cursor: str | None
    """What the next step takes; `None`: the round is over."""


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a round goes on: its time in nanoseconds, the number of its part, and the engine's cursor in it."""

    now: int
    part: int
    cursor: str | None
    prefix: str | None = None
    """Prefix policies are given to sessions that were there before, and the next one is that of this prefix, or the first one after it.
    Then `cursor` is that of its sessions. `None`: all are given."""


def require_able(core: Core) -> None:
    """Raise `Unsupported` where the engine or the store's schema has no place for policies."""
    if indexed(core.backend) is None:
        raise Unsupported(
            "This store does not list what is due: its engine cannot, or it has schema 1. For that, stop what uses it and run"
            " `perdure upgrade` on its URL.",
            advice="",
        )


async def look_at_page(sweep: Sweep, tenant: str | None, status: int | None, cursor: str | None) -> Looked:
    """Look at a page of what is due; `tenant` of `None`: of all tenants."""
    query = Query(tenant, status=status, order="due", due_before=sweep.now + 1)
    page = await sweep.core.backend.scan(query, cursor=cursor, limit=BATCH)
    actions = await asyncio.gather(*[_guarded(sweep, row, _step if status is None else purge) for row in page.items])
    late = 0
    for row, done in zip(page.items, actions, strict=True):
        sweep.core.telemetry.swept(done.action)
        if row.due_at is not None and row.due_at > YEAR and done.action != "waiting":
            late = max(late, sweep.now - row.due_at)
    return Looked(actions, late, page.cursor)


async def _step(sweep: Sweep, row: Row) -> Action:
    return await (apply_changed if is_to_apply(row) else look_at)(sweep, row)


async def _guarded(sweep: Sweep, row: Row, step: Callable[[Sweep, Row], Awaitable[Action]]) -> Action:
    """Do a step. What is wrong with one session does not stop the others; an engine that is away stops the round."""
    try:
        return await step(sweep, row)
    except Busy:
        return action(row, "overtaken")
    except (Unavailable, Unknown):
        raise
    except Error as error:
        LOG.warning("The sweeper could not handle session %r of tenant %r: %s", row.session.id, row.session.tenant, error)
        return await postpone(sweep, row, str(error))


async def give_to_existing(sweep: Sweep, tenant: str | None) -> list[Given]:
    """Give each prefix policy, of this tenant or of all, to the sessions that were there before it."""
    given = []
    async for found in prefix_policies(sweep, tenant):
        count = await apply(sweep, found, None)
        if not is_system(found.tenant):
            given.append(Given(found.tenant, found.prefix, count))
    return given


async def step(store: Store, *, dry_run: bool, existing: bool, cursor: str | None) -> Step:
    """One step of a round of this store's tenant, and of what Perdure keeps for it; `cursor` is that of the step before.

    Each step looks at 64 sessions at most. With `existing` a round begins with steps that give prefix policies to the sessions that they
    are for, each for about a second. What is given stays given, so that a round that begins again passes over it.
    Raises `Invalid` for what is no cursor, `Unsupported`, `Unavailable`, `Unknown`: then the step may be done again.
    """
    core, tenant = store._context.opened(), store.tenant
    require_able(core)
    parts = [(each, status) for each in (tenant, system_tenant(tenant)) for status in STATUSES]
    begins = _Place(core.clock.now(), 0, None, "" if existing else None)
    place = begins if cursor is None else _place_of(cursor, len(parts))
    sweep = Sweep(core, min(place.now, core.clock.now()), dry_run)  # Who asks does not say what time it is.
    if place.prefix is not None:
        given, place = await _give_slice(sweep, tenant, place, place.prefix)
        return Step([], given, 0.0, _text_of(place))
    looked = await look_at_page(sweep, *parts[place.part], place.cursor)
    part = place.part if looked.cursor is not None else place.part + 1
    following = None if part == len(parts) else _text_of(_Place(place.now, part, looked.cursor))
    return Step(looked.actions, [], looked.late / SECOND, following)


async def _give_slice(sweep: Sweep, tenant: str, place: _Place, prefix: str) -> tuple[list[Given], _Place]:
    """Give prefix policies to sessions that were there before for a while, from a place on; what was given, and the next place."""
    until = sweep.core.clock.monotonic() + SLICE_SECONDS
    policies = sorted([found async for found in prefix_policies(sweep, tenant)], key=lambda found: found.prefix)
    given = []
    for found in policies:
        if found.prefix < prefix:
            continue
        cursor, count = place.cursor if found.prefix == prefix else None, 0
        while True:
            page, cursor = await apply_page(sweep, found, policies, None, cursor)
            count += page
            over = sweep.core.clock.monotonic() >= until
            if over or cursor is None:
                break
        given.append(Given(found.tenant, found.prefix, count))
        if over:
            following = found.prefix + _NEXT if cursor is None else found.prefix
            return given, _Place(place.now, 0, cursor, following)
    return given, _Place(place.now, 0, None)


def _text_of(place: _Place) -> str:
    return urlsafe_b64encode(msgspec.msgpack.encode(place)).rstrip(b"=").decode()


def _place_of(cursor: str, parts: int) -> _Place:
    try:
        coded = cursor[:_CURSOR_CHARACTERS_MAX]
        place = msgspec.msgpack.decode(urlsafe_b64decode(coded + "=" * (-len(coded) % 4)), type=_Place)
    except (ValueError, msgspec.MsgspecError):
        place = _Place(-1, 0, None)
    if not 0 <= place.now < 1 << 63 or not 0 <= place.part < parts:
        raise Invalid(f"{cursor[:40]!r} is no cursor of a round: take the one of the step before, or leave it out to begin.", advice="")
    return place
