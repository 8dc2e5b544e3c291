"""The sweeper: looks at the sessions that are due, of all tenants, and does what their policies say. Any number may run at once.

It goes by its own clock. A round's work grows with what is due, not with what the store holds. After a kill, at whatever point, the next
round does what was left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

import perdure.sync
from perdure.backends.spi import served
from perdure.engine.core import Core
from perdure.engine.store import Store
from perdure.errors import Busy, Invalid, Unavailable, Unknown
from perdure.model.lifecycle import SECOND
from perdure.ops.rounds import STATUSES, Given, Step, give_to_existing, look_at_page, require_able
from perdure.ops.rows import Sweep
from perdure.ops.swept import Action, Swept
from perdure.redaction import shown_value
from perdure.wire import LONG_SECONDS

EVERY = 30.0
"""Seconds between two rounds, where the caller does not say."""
EVERY_MIN, EVERY_MAX = 0.1, 86_400.0
"""Least and most seconds between two rounds."""
JITTER = 0.1
"""Each pause is longer or shorter by up to this part, so that sweepers do not meet again and again."""
BACK_OFF_MAX = 600.0
"""Longest pause after rounds that failed, in seconds, or `every` where that is longer: each is twice as long as the one before."""
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
    raised. Through a service its nodes do the rounds, of the store's tenant, and of what Perdure keeps for it: the credentials need the
    scope `admin`. Raises `Unsupported` where the engine or the store's schema has no place for policies, `Invalid`, `Closed`.
    """
    if isinstance(every, bool) or not isinstance(every, int | float) or not EVERY_MIN <= every <= EVERY_MAX:
        raise Invalid(f"every takes {EVERY_MIN} to {EVERY_MAX:,.0f} seconds, not {shown_value(every)}.")
    if not isinstance(store, Store):
        raise Invalid("sweep takes an open store of the asynchronous API; sweep_blocking takes one of perdure.sync.")
    core = store._context.opened()
    require_able(core)
    swept, failures = Swept(), 0
    while True:
        this = Sweep(core, core.clock.now(), dry_run)
        try:
            if served(core.backend) is not None:
                await _served_round(core, store.tenant, swept, notify, dry_run=dry_run, existing=existing)
            else:
                if existing:
                    _give(swept, notify, await give_to_existing(this, None))
                    existing = False
                await _round(this, swept, notify)
            existing, failures = False, 0
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
    """Look at all that is due now, of every tenant."""
    due, late = swept.due, 0
    for status in STATUSES:
        cursor = None
        while True:
            looked = await look_at_page(sweep, None, status, cursor)
            _note(swept, notify, looked.actions)
            late, cursor = max(late, looked.late), looked.cursor
            if cursor is None:
                break
    _end(sweep.core, swept, due, late / SECOND)


async def _served_round(core: Core, tenant: str, swept: Swept, notify: Notify | None, *, dry_run: bool, existing: bool) -> None:
    """Have a node look at all that is due now of a tenant, a step a request."""
    due, late, cursor = swept.due, 0.0, None
    nodes = served(core.backend)
    while nodes is not None:
        asked = {"dry_run": dry_run, "existing": existing, "cursor": cursor}
        said = await nodes.ask("POST", "/v1/sweep", tenant=tenant, body=asked, seconds=LONG_SECONDS, repeatable=True)
        step = msgspec.convert(said, Step)
        _give(swept, notify, step.given)
        _note(swept, notify, step.actions)
        late, cursor = max(late, step.overdue_seconds), step.cursor
        if cursor is None:
            break
    _end(core, swept, due, late)


def _note(swept: Swept, notify: Notify | None, actions: Sequence[Action]) -> None:
    for done in actions:
        swept.add(done)
        if notify is not None:
            notify(done)


def _give(swept: Swept, notify: Notify | None, given: Sequence[Given]) -> None:
    for each in given:
        swept.applied += each.sessions
        if notify is not None:
            notify(each.action)


def _end(core: Core, swept: Swept, due: int, late: float) -> None:
    """A round is over; `late`: how many seconds the session had been due that waited longest."""
    swept.rounds += 1
    swept.overdue_seconds = max(swept.overdue_seconds, late)
    core.telemetry.sweep_round(swept.due - due, late)
