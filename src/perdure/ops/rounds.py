"""A sweeper's round, a page at a time: which rows are looked at in which order, and where it goes on.

A direct sweeper's round is of all tenants. A node does the rounds of one tenant for a client, a step a request; see `step`.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from perdure.backends.spi import Query, Row, indexed
from perdure.engine.core import Core
from perdure.engine.store import Store
from perdure.engine.write.prefixes import PrefixPolicy
from perdure.errors import Busy, Error, Invalid, Unavailable, Unknown, Unsupported
from perdure.model.commit import Status
from perdure.model.control import decode_control
from perdure.model.ids import is_system, system_tenant
from perdure.model.lifecycle import SECOND, YEAR
from perdure.ops.prefix_steps import apply, apply_changed, apply_page, is_ready, is_to_apply, note_applied, prefix_policies
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


Done = TypeVar("Done")


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
    """Prefix policies are given to sessions, and the next one is that of this prefix, or the first one after it. Then `cursor` is that of
    its sessions. `None`: all are given."""
    existing: bool = False
    """Whether all prefix policies are given, to all of their sessions, and not only those that were changed to those since."""
    count: int = 0
    """To how many sessions the policy of `prefix` was given in earlier steps."""


def require_able(core: Core) -> None:
    """Raise `Unsupported` where the engine or the store's schema has no place for policies."""
    if indexed(core.backend) is None:
        raise Unsupported(
            "This store does not list what is due: its engine cannot, or it has schema 1. For that, stop what uses it and run"
            " `perdure upgrade` on its URL.",
            advice="",
        )


async def look_at_page(
    sweep: Sweep, tenant: str | None, status: int | None, cursor: str | None, *, leave: Callable[[Row], bool] | None = None
) -> Looked:
    """Look at a page of what is due; `tenant` of `None`: of all tenants. Rows of which `leave` is true are left alone."""
    query = Query(tenant, status=status, order="due", due_before=sweep.now + 1)
    page = await sweep.core.backend.scan(query, cursor=cursor, limit=BATCH)
    rows = [row for row in page.items if leave is None or not leave(row)]
    actions = await asyncio.gather(*[_guarded(sweep, row, _step if status is None else purge) for row in rows])
    return Looked(actions, max([0, *map(partial(_noted, sweep), rows, actions)]), page.cursor)


def _noted(sweep: Sweep, row: Row, done: Action) -> int:
    """Count an action; for how long its session had been due, in nanoseconds."""
    sweep.core.telemetry.swept(done.action)
    return sweep.now - row.due_at if row.due_at is not None and row.due_at > YEAR and done.action != "waiting" else 0


async def _step(sweep: Sweep, row: Row) -> Action:
    return await (apply_changed if is_to_apply(row) else look_at)(sweep, row)


async def _guarded(sweep: Sweep, row: Row, step: Callable[[Sweep, Row], Awaitable[Done]]) -> Done | Action:
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

    Each step looks at 64 sessions at most. A round begins with steps that give prefix policies to sessions, each for about a second: those
    that were changed to the sessions that were started since, and with `existing` all of them to all that they are for. What is given
    stays given, so that a round that begins again passes over it.
    Raises `Invalid` for what is no cursor, `Unsupported`, `Unavailable`, `Unknown`: then the step may be done again.
    """
    core, tenant = store._context.opened(), store.tenant
    require_able(core)
    parts = [(each, status) for each in (tenant, system_tenant(tenant)) for status in STATUSES]
    begins = _Place(core.clock.now(), 0, None, "", existing)
    place = begins if cursor is None else _place_of(cursor, len(parts))
    sweep = Sweep(core, min(place.now, core.clock.now()), dry_run)  # Who asks does not say what time it is.
    giving = _Giving(sweep, place)
    if place.prefix is not None and not await giving.run(tenant, place.prefix):
        return Step(giving.actions, giving.given, giving.late / SECOND, _text_of(giving.place))
    place = giving.place
    looked = await look_at_page(sweep, *parts[place.part], place.cursor, leave=partial(is_ready, now=sweep.now))
    part = place.part if looked.cursor is not None else place.part + 1
    following = None if part == len(parts) else _text_of(_Place(place.now, part, looked.cursor))
    return Step([*giving.actions, *looked.actions], giving.given, max(giving.late, looked.late) / SECOND, following)


class _Giving:
    """Prefix policies are given to sessions for a while, from a place on."""

    def __init__(self, sweep: Sweep, place: _Place) -> None:
        self._sweep = sweep
        self.place = place
        """Where to go on."""
        self.given: list[Given] = []
        self.actions: list[Action] = []
        self.late = 0

    async def run(self, tenant: str, prefix: str) -> bool:
        """Whether all are given. `prefix` is that of the place."""
        sweep, place = self._sweep, self.place
        until = sweep.core.clock.monotonic() + SLICE_SECONDS
        rows = [row async for row in sweep.core.prefixes.rows(tenant)]
        policies = [PrefixPolicy.of(row.session, decode_control(row.control)) for row in rows]
        for found, row in sorted(zip(policies, rows, strict=True), key=lambda each: each[0].prefix):
            if found.prefix < prefix or not (place.existing or is_ready(row, sweep.now)):
                continue
            mine = place if found.prefix == prefix else msgspec.structs.replace(place, cursor=None, prefix=found.prefix, count=0)
            if place.existing:
                self.place = await self._give(mine, found, policies, until)
                self.given.append(Given(tenant, found.prefix, self.place.count - mine.count))
                if self.place.cursor is None and is_ready(row, sweep.now):
                    self._done(row, await _guarded(sweep, row, partial(note_applied, count=0)))
            else:
                self.place = msgspec.structs.replace(mine, cursor=None)  # As it is where this one fails.
                self._done(row, await _guarded(sweep, row, partial(self._apply, mine, found, policies, until)))
            if self.place.cursor is None:
                self.place = msgspec.structs.replace(place, cursor=None, prefix=found.prefix + _NEXT, count=0)
            if sweep.core.clock.monotonic() >= until:
                return False
        self.place = _Place(place.now, 0, None)
        return True

    async def _give(self, place: _Place, found: PrefixPolicy, policies: Sequence[PrefixPolicy], until: float) -> _Place:
        """Give a policy, page by page until the time is over; the place after that, without a cursor where it is given."""
        since = None if place.existing or found.apply is None else found.apply.since
        while True:
            page, cursor = await apply_page(self._sweep, found, policies, since, place.cursor)
            place = msgspec.structs.replace(place, cursor=cursor, count=place.count + page)
            if cursor is None or self._sweep.core.clock.monotonic() >= until:
                return place

    async def _apply(
        self, place: _Place, found: PrefixPolicy, policies: Sequence[PrefixPolicy], until: float, sweep: Sweep, row: Row
    ) -> Action | None:
        """Give a policy that was changed; `None`: there are more sessions."""
        self.place = await self._give(place, found, policies, until)
        return await note_applied(sweep, row, self.place.count) if self.place.cursor is None else None

    def _done(self, row: Row, done: Action | None) -> None:
        if done is not None:
            self.actions.append(done)
            self.late = max(self.late, _noted(self._sweep, row, done))


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
