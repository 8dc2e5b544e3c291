"""`lease`, `leases` and `break_lease`: who may work on a session."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial

from perdure.backends.spi import Query, indexed
from perdure.engine.calls.listing import PAGE, check_id_part
from perdure.engine.context import Context
from perdure.engine.core import Core
from perdure.engine.leasing.lease import Leasing
from perdure.engine.leasing.rules import Claim
from perdure.engine.options import Options, check_options
from perdure.engine.views import LeaseInfo
from perdure.errors import Invalid, Unsupported
from perdure.model.control import decode_control
from perdure.model.epoch import is_held
from perdure.model.ids import check_name, uuid_text
from perdure.model.lease import holder
from perdure.redaction import shown_value

TTL_MIN, TTL_MIN_POLLED, TTL_MAX = 3.0, 10.0, 86_400.0
"""Shortest ttl in seconds, on an engine that notifies and on one that does not, and longest: a day."""
WAIT_MAX = 86_400.0
"""Longest wait for a lease, in seconds: a day."""
HOLD_MAX = 366 * 86_400.0
"""Largest `max_hold`, in seconds: a year."""


def lease(context: Context, session: str, owner: str, ttl: float, wait: float, max_hold: float | None, *, exclusive: bool) -> Leasing:
    """See `Store.lease`."""
    core, target = context.opened(), context.key(session)
    wait = seconds("wait", wait, 0.0, WAIT_MAX)
    max_hold = None if max_hold is None else seconds("max_hold", max_hold, 0.0, HOLD_MAX)
    begins = None
    if core.prefixes.may_apply(target, context.begin):
        begins = partial(core.prefixes.begins, target, context.begin)
    return Leasing(core.leases, target, make_claim(core, owner, ttl, exclusive=exclusive), wait, max_hold, begins)


def make_claim(core: Core, owner: str, ttl: float, *, exclusive: bool) -> Claim:
    """A claim to hold one session. Raises `Invalid`, `Unsupported`."""
    check_name("An owner", owner)
    least = TTL_MIN if core.backend.capabilities.notification else TTL_MIN_POLLED
    ttl = seconds("ttl", ttl, least, TTL_MAX)
    if type(exclusive) is not bool:
        raise Invalid(f"exclusive must be true or false, not {exclusive!r}.")
    _check_place(core)
    return Claim(uuid_text(core.committer.new_id()), owner, ttl, exclusive)


def _check_place(core: Core) -> None:
    """Raise `Unsupported` for a store whose rows have no place for leases: writers that know nothing of them may write to it too."""
    if indexed(core.backend) is None:
        raise Unsupported(
            "This store has schema 1, which has no place for leases, and is open to writers that ignore them: stop what uses it, and run"
            " `perdure upgrade` on its URL.",
            advice="",
        )


def seconds(name: str, value: object, least: float, most: float) -> float:
    """A number of seconds within bounds. Raises `Invalid`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise Invalid(f"{name} must be {least:g} to {most:,.0f} seconds on this engine, not {shown_value(value)}.")
    return float(value)


async def leases(context: Context, prefix: str) -> AsyncGenerator[LeaseInfo, None]:
    """See `Store.leases`."""
    core = context.opened()
    check_id_part("prefix", prefix)
    query, cursor = Query(context.tenant, prefix), None
    while True:
        with core.telemetry.span("leases", context.tenant, prefix):
            page = await core.backend.scan(query, cursor=cursor, limit=PAGE)
        for row in page.items:
            if is_held(row.head.epoch):
                yield LeaseInfo.of(row.session.id, row.head.epoch, holder(decode_control(row.control), row.head.epoch))
                core.check_process()
        cursor = page.cursor
        if cursor is None:
            return


async def break_lease(context: Context, session: str, actor: str | None) -> LeaseInfo | None:
    """See `Store.break_lease`."""
    core, target = context.opened(), context.key(session)
    check_options(Options(actor=actor))
    _check_place(core)
    with core.telemetry.span("break_lease", *target):
        return await core.leases.break_lease(target, actor, core.durability)
