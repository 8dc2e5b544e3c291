"""`delete`: the commit that ends a session's life."""

from __future__ import annotations

from perdure.backends.spi import NEVER, Index
from perdure.engine.context import Context
from perdure.engine.options import Options, check_options
from perdure.engine.views import Receipt
from perdure.model.commit import Kind, Status
from perdure.model.control import DELETED
from perdure.model.events import Event


async def delete(context: Context, session: str, actor: str | None) -> Receipt:
    """See `Store.delete`."""
    core, target = context.opened(), context.key(session)
    check_options(Options(actor=actor))
    nothing = Index({}, due_at=NEVER, control=b"")
    with core.telemetry.span("delete", *target):
        work = core.controls.write(
            target, Kind.tombstone, Event(DELETED), status=Status.deleted, index=nothing, actor=actor, durability=core.durability
        )
        return await core.in_order(target, work)
