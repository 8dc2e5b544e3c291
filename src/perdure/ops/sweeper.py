"""The sweeper: looks at the sessions that are due, of all tenants, and does what their policies say. Any number may run at once.

It goes by its own clock. A round's work grows with what is due, not with what the store holds. After a kill, at whatever point, the next
round does what was left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import perdure.sync
from perdure.backends.spi import Query, Row, indexed
from perdure.engine.store import Store
from perdure.errors import Busy, Error, Invalid, Unavailable, Unknown, Unsupported
from perdure.model.commit import Status
from perdure.model.ids import is_system
from perdure.model.lifecycle import SECOND, YEAR
from perdure.ops.prefix_steps import apply, apply_changed, is_to_apply, prefix_policies
from perdure.ops.rows import Sweep, action
from perdure.ops.session_steps import look_at, postpone, purge
from perdure.ops.swept import Action, Swept
from perdure.redaction import shown_value

EVERY = 30.0
"""Seconds between two rounds, where the caller does not say."""
EVERY_MIN, EVERY_MAX = 0.1, 86_400.0
"""Least and most seconds between two rounds."""
JITTER = 0.1
"""Each pause is longer or shorter by up to this part, so that sweepers do not meet again and again."""
BACK_OFF_MAX = 600.0
"""Longest pause after rounds that failed, in seconds, or `every` where that is longer: each is twice as long as the one before."""
BATCH = 64
"""Sessions that are looked at together."""
LOG = logging.getLogger("perdure.ops")

Notify = Callable[[Action], None]
"""Called with each action, quick, on the loop of the sweeper."""


async def sweep(
    store: Store,
    *,
    every: float = EVERY,
    once: bool = False,
    dry_run: bool = False,
    existing: bool = False,
    notify: Notify | None = None,
) -> Swept:
    """Do what is due in a store, of every tenant, again and again, until it is cancelled; with `once`, or `dry_run`, one round.

    Returns how much was done. `every`: seconds between two rounds, 0.1 to 86,400. `dry_run`: nothing is changed. `existing`: before the
    first round each prefix policy is given to the sessions that were there before it, but for those with a policy of their own. `notify`
    is called with each `Action`.

    Each action is one conditional commit, or one conditional change of an index row: sweepers that meet do it once. What fails with one
    session is logged, counted, and tried again in five minutes. While the engine is away rounds come less often; with `once` that is
    raised. Raises `Unsupported` where the engine or the store's schema has no place for policies, `Invalid`, `Closed`.
    """
    if isinstance(every, bool) or not isinstance(every, int | float) or not EVERY_MIN <= every <= EVERY_MAX:
        raise Invalid(f"every takes {EVERY_MIN} to {EVERY_MAX:,.0f} seconds, not {shown_value(every)}.")
    if not isinstance(store, Store):
        raise Invalid("sweep takes an open store of the asynchronous API; sweep_blocking takes one of perdure.sync.")
    core = store._context.opened()
    if indexed(core.backend) is None:
        raise Unsupported(
            "This store does not list what is due: its engine cannot, or it has schema 1. For that, stop what uses it and run"
            " `perdure upgrade` on its URL.",
            advice="",
        )
    swept, failures = Swept(), 0
    while True:
        this = Sweep(core, core.clock.now(), dry_run)
        try:
            if existing:
                await _give_to_existing(this, swept, notify)
                existing = False
            await _round(this, swept, notify)
            failures = 0
        except (Unavailable, Unknown, Busy) as error:
            if once or dry_run:
                raise
            failures += 1
            core.telemetry.swept("failed")
            LOG.warning("A round of the sweeper failed: %s", error)
        if once or dry_run:
            return swept
        pause = min(every * 2 ** min(failures, 16), max(every, BACK_OFF_MAX))
        await asyncio.sleep(pause * (1 + JITTER * (core.clock.bits(16) / (1 << 15) - 1)))
        store._context.opened()


def sweep_blocking(
    store: perdure.sync.Store,
    *,
    every: float = EVERY,
    once: bool = False,
    dry_run: bool = False,
    existing: bool = False,
    notify: Notify | None = None,
) -> Swept:
    """As `sweep`, for a store of `perdure.sync`; blocks the thread. Called where an event loop runs it raises `Invalid`."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise Invalid("sweep_blocking would block the event loop that runs in this thread: await perdure.ops.sweep there.")
    if not isinstance(store, perdure.sync.Store):
        raise Invalid("sweep_blocking takes an open store of perdure.sync; sweep takes one of the asynchronous API.")
    return asyncio.run(sweep(store.asynchronous, every=every, once=once, dry_run=dry_run, existing=existing, notify=notify))


async def _round(sweep: Sweep, swept: Swept, notify: Notify | None) -> None:
    """Look at all that is due now: live sessions, then deleted ones."""
    due, late = swept.due, 0
    for status, step in ((None, _step), (int(Status.deleted), purge)):
        query, cursor = Query(None, status=status, order="due", due_before=sweep.now + 1), None
        while True:
            page = await sweep.core.backend.scan(query, cursor=cursor, limit=BATCH)
            for row, done in zip(page.items, await asyncio.gather(*[_guarded(sweep, row, step) for row in page.items]), strict=True):
                swept.add(done)
                sweep.core.telemetry.swept(done.action)
                if row.due_at is not None and row.due_at > YEAR and done.action != "waiting":
                    late = max(late, sweep.now - row.due_at)
                if notify is not None:
                    notify(done)
            cursor = page.cursor
            if cursor is None:
                break
    swept.rounds += 1
    swept.overdue_seconds = max(swept.overdue_seconds, late / SECOND)
    sweep.core.telemetry.sweep_round(swept.due - due, late / SECOND)


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


async def _give_to_existing(sweep: Sweep, swept: Swept, notify: Notify | None) -> None:
    """Give each prefix policy to the sessions that were there before it."""
    async for found in prefix_policies(sweep):
        count = await apply(sweep, found, None)
        swept.applied += count
        if notify is not None and not is_system(found.tenant):
            notify(Action(found.tenant, f"{found.prefix}*", "applied", f"to {count} sessions that were there before"))
