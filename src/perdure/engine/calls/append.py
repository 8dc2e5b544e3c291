"""`append` and `find`: events of the caller's own making, and the receipt of an idempotency key."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import msgspec

from perdure.backends.spi import Durability
from perdure.engine.context import Context
from perdure.engine.core import Core
from perdure.engine.leasing.lease import Lease
from perdure.engine.options import Options, check_events, check_options
from perdure.engine.views import Receipt
from perdure.engine.write.drafts import base_at
from perdure.engine.write.request import EVENTS, Mode, WriteRequest, has_ops
from perdure.errors import Invalid
from perdure.model.events import Event
from perdure.model.policy import OnConflict

_PLAIN = Options()


def append(
    context: Context,
    session: str,
    events: tuple[Event, ...],
    expect: int | str | None,
    key: str | None,
    actor: str | None,
    on_conflict: OnConflict,
    durability: Durability | str | None,
    *,
    recreate: bool,
    create: bool,
    lease: Lease | None,
) -> Coroutine[Any, Any, Receipt]:
    """See `Store.append`. What was passed is checked at once."""
    core = context.opened()
    target = context.key(session)
    options = _PLAIN
    begin = context.begin
    plain = expect is None and key is None and actor is None and on_conflict == "merge" and lease is None
    if not plain or recreate or not create or begin is not None:
        expect, hash = context.expected(expect, target)
        options = check_options(
            Options(
                expect=expect,
                expect_hash=hash,
                key=key,
                actor=actor,
                on_conflict=on_conflict,
                recreate=recreate,
                create=create,
                fence=context.fence(lease, target),
                begin=begin,
            )
        )
    level = context.durability(durability)
    checked = check_events(events)
    mode = EVENTS
    if has_ops(checked):
        mode = Mode.any_state if options.expect is None else Mode.rebase
    request = WriteRequest(
        session=target,
        events=checked,
        mode=mode,
        options=options,
        durability=level,
        expected_version=options.expect,
        compare_request=True,
    )
    work = _commit_on(core, request) if options.expect and mode is Mode.rebase else core.committer.commit(request)
    return core.telemetry.spanned("append", target, core.in_order(target, work))


async def _commit_on(core: Core, request: WriteRequest) -> Receipt:
    """Commit operations that were made on the state at a version."""
    base = await base_at(core.reader, request.session, request.options, await core.reader.cached(request.session))
    return await core.committer.commit(msgspec.structs.replace(request, base=base))


async def find(context: Context, session: str, key: str, *, include_deleted: bool) -> Receipt | None:
    """See `Store.find`."""
    core, target = context.opened(), context.key(session)
    if key is None:
        raise Invalid("find needs the idempotency key to look for.")
    check_options(Options(key=key))
    with core.telemetry.span("find", *target):
        return await core.keys.find_receipt(target, key, core.durability, include_deleted=include_deleted)
