"""`configure` and `delete`: commits that change no state."""

from __future__ import annotations

from collections.abc import Mapping

from perdure.backends.spi import NEVER, Index
from perdure.engine.calls.listing import check_tags
from perdure.engine.context import Context
from perdure.engine.leasing.lease import Lease
from perdure.engine.options import Options, check_options
from perdure.engine.views import Receipt
from perdure.errors import Invalid
from perdure.model.commit import Kind, Status
from perdure.model.events import Event


async def configure(context: Context, session: str, tags: Mapping[str, str] | None, actor: str | None, lease: Lease | None) -> Receipt:
    """See `Store.configure`."""
    core, target = context.opened(), context.key(session)
    check_options(Options(actor=actor))
    if tags is None:
        raise Invalid("There is nothing to configure: pass tags.")
    checked, fence = check_tags(tags), context.fence(lease, target)
    with core.telemetry.span("configure", *target):
        event = Event("configured", {"tags": checked})
        work = core.controls.write(
            target, Kind.configure, event, index=Index(checked), actor=actor, durability=core.durability, fence=fence
        )
        return await core.in_order(target, work)


async def delete(context: Context, session: str, actor: str | None) -> Receipt:
    """See `Store.delete`."""
    core, target = context.opened(), context.key(session)
    check_options(Options(actor=actor))
    nothing = Index({}, due_at=NEVER, control=b"")
    with core.telemetry.span("delete", *target):
        work = core.controls.write(
            target, Kind.tombstone, Event("deleted"), status=Status.deleted, index=nothing, actor=actor, durability=core.durability
        )
        return await core.in_order(target, work)
