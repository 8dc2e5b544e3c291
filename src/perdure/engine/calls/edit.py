"""`edit` and `update`: drafts that become commits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import msgspec

from perdure.backends.spi import Durability
from perdure.engine.context import Context
from perdure.engine.core import Core
from perdure.engine.leasing.lease import Lease
from perdure.engine.options import Options, check_events, check_options
from perdure.engine.read.cache import CachedState
from perdure.engine.unentered import Asynchronous
from perdure.engine.views import Receipt
from perdure.engine.write.drafts import Draft, finish, start
from perdure.errors import Conflict, Invalid
from perdure.model.events import Event
from perdure.model.ids import SessionKey

PAYLOAD = "payload"
"""The type of what stands for a request whose events differ from try to try. It is compared, never stored."""


class Edit(Asynchronous):
    """`async with store.edit(...) as draft`: loads the session, commits at the end of the block, once.

    An exception in the block writes nothing and is raised again.
    """

    _right = "async with store.edit(...) as draft"

    def __init__(self, core: Core, session: SessionKey, options: Options, durability: Durability) -> None:
        self._core, self._session, self._options, self._durability = core, session, options, durability
        self._draft: Draft | None = None
        self._base: CachedState | None = None

    async def __aenter__(self) -> Draft:
        if self._draft is not None:
            raise Invalid("An edit is used once: call store.edit again.")
        await self._core.settled(self._session)
        self._draft, self._base = await start(self._core.reader, self._session, self._options, newest=True)
        if self._options.key is not None:
            self._draft.receipt = await self._core.keys.repeated(self._session, self._options, self._durability)
        return self._draft

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        draft = self._draft
        if draft is None:
            return
        draft._closed = True
        if kind is not None or draft.receipt is not None:
            return
        self._core.check_process()
        with self._core.telemetry.span("edit", *self._session):
            work = finish(self._core.committer, draft, self._base, self._session, self._options, self._durability, operation="edit")
            draft.receipt = await self._core.in_order(self._session, work)


def edit(
    context: Context,
    session: str,
    options: Options,
    expect: int | str | None,
    payload: Any,
    durability: Durability | str | None,
    lease: Lease | None,
) -> Edit:
    """See `Store.edit`."""
    core, target = context.opened(), context.key(session)
    options = _with_request(context, target, options, expect, payload)
    return Edit(core, target, _under(context, lease, target, options), context.durability(durability))


def _with_request(context: Context, session: SessionKey, options: Options, expect: int | str | None, payload: Any) -> Options:
    """The options with what the caller decided on, and what a repeated call must ask for. Raises `Invalid`."""
    version, hash = context.expected(expect, session)
    said = None if payload is None else check_events((Event(PAYLOAD, payload),))
    return check_options(msgspec.structs.replace(options, expect=version, expect_hash=hash, payload=said))


def _under(context: Context, lease: Lease | None, session: SessionKey, options: Options) -> Options:
    fence = context.fence(lease, session)
    return options if fence is None else msgspec.structs.replace(options, fence=fence)


async def update(
    context: Context,
    session: str,
    function: Callable[[Draft], Any],
    options: Options,
    expect: int | str | None,
    payload: Any,
    durability: Durability | str | None,
    attempts: int,
    lease: Lease | None,
) -> tuple[Receipt | None, Any]:
    """See `Store.update`."""
    core, target = context.opened(), context.key(session)
    options = _under(context, lease, target, _with_request(context, target, options, expect, payload))
    if not callable(function):
        raise Invalid(f"update needs a function that takes a draft, not {function!r}.")
    if type(attempts) is not int or attempts < 1:
        raise Invalid(f"attempts must be at least 1, not {attempts!r}.")
    level = context.durability(durability)
    with core.telemetry.span("update", *target):
        work = _update(core, target, function, options, level, attempts)
        receipt, answer = await core.in_order(target, work)
        if receipt is not None:
            core.saw(target, receipt.version)
        return receipt, answer


async def _update(
    core: Core, session: SessionKey, function: Callable[[Draft], Any], options: Options, durability: Durability, attempts: int
) -> tuple[Receipt | None, Any]:
    """Run `function` on the newest state until its commit follows the very state that it saw.

    The first run uses the cached state. From the second run on, the other writes of this process wait, for as long as slots are waited for.
    """
    committer, reader = core.committer, core.reader
    if options.key is not None and (receipt := await core.keys.repeated(session, options, durability)) is not None:
        return receipt, None

    async def run(*, newest: bool) -> tuple[Receipt | None, Any] | Conflict:
        draft, base = await start(reader, session, options, newest=newest)
        try:
            answer = function(draft)
            if isinstance(answer, Awaitable):
                answer = await answer
        finally:
            draft._closed = True
        try:
            draft.receipt = await finish(committer, draft, base, session, options, durability, operation="update", exact=True)
        except Conflict as conflict:
            return conflict
        return draft.receipt, answer

    since = committer.now()
    outcome = await run(newest=False)
    for _ in range(attempts - 1):
        if not isinstance(outcome, Conflict) or options.expect is not None:
            break
        async with committer.slot(session):
            await committer.pause(session)
            outcome = await run(newest=True)
    if not isinstance(outcome, Conflict):
        return outcome
    raise outcome if options.expect is not None or not outcome.commits else committer.busy(session, attempts, since)
