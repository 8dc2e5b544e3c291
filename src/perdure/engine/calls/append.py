"""`append` and `find`: events of the caller's own making, and the receipt of an idempotency key."""

from __future__ import annotations

from perdure.backends.spi import Durability
from perdure.engine.context import Context
from perdure.engine.options import Options, check_events, check_options
from perdure.engine.views import Receipt
from perdure.engine.write.drafts import base_at
from perdure.engine.write.request import Mode, WriteRequest, has_ops
from perdure.errors import Invalid
from perdure.model.events import Event
from perdure.model.policy import OnConflict

_PLAIN = Options()


async def append(
    context: Context,
    session: str,
    events: tuple[Event, ...],
    expect: int | None,
    key: str | None,
    actor: str | None,
    on_conflict: OnConflict,
    durability: Durability | str | None,
    *,
    recreate: bool,
) -> Receipt:
    """See `Store.append`."""
    core = context.opened()
    target = context.key(session)
    options = _PLAIN
    if expect is not None or key is not None or actor is not None or on_conflict != "merge" or recreate:
        options = check_options(Options(expect=expect, key=key, actor=actor, on_conflict=on_conflict, recreate=recreate))
    level = context.durability(durability)
    checked = check_events(events)
    with core.telemetry.span("append", *target):
        mode, base = Mode.events, None
        if has_ops(checked):
            mode = Mode.any_state if expect is None else Mode.rebase
            if expect:
                base = await base_at(core.reader, target, options, await core.reader.cached(target))
        request = WriteRequest(
            session=target,
            events=checked,
            mode=mode,
            options=options,
            durability=level,
            expected_version=expect,
            base=base,
            compare_request=True,
        )
        return await core.committer.commit(request)


async def find(context: Context, session: str, key: str, *, include_deleted: bool) -> Receipt | None:
    """See `Store.find`."""
    core, target = context.opened(), context.key(session)
    if key is None:
        raise Invalid("find needs the idempotency key to look for.")
    check_options(Options(key=key))
    with core.telemetry.span("find", *target):
        return await core.keys.find_receipt(target, key, core.durability, include_deleted=include_deleted)
