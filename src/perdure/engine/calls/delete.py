"""`delete`: the commit that ends a session's life."""

from __future__ import annotations

from collections.abc import Awaitable

from perdure.backends.spi import NEVER, Index
from perdure.engine.context import Context
from perdure.engine.options import Options, check_options
from perdure.engine.views import Receipt
from perdure.engine.write.once import Keyed, once
from perdure.model.commit import Kind, Status
from perdure.model.control import DELETED
from perdure.model.events import Event


async def delete(context: Context, session: str, actor: str | None, key: str | None) -> Receipt:
    """See `Store.delete`."""
    core, target = context.opened(), context.key(session)
    check_options(Options(actor=actor))
    nothing = Index({}, due_at=NEVER, control=b"")

    def write(keyed: Keyed | None) -> Awaitable[Receipt]:
        return core.controls.write(
            target,
            Kind.tombstone,
            Event(DELETED),
            status=Status.deleted,
            index=nothing,
            actor=actor,
            durability=core.durability,
            keyed=keyed,
        )

    with core.telemetry.span("delete", *target):
        return await core.in_order(target, once(core.keys, target, key, Event(DELETED), core.durability, write, ends=True))
