"""`archive`, `restore` and `compact`: what goes to the archive, and what comes back."""

from __future__ import annotations

from datetime import timedelta

from perdure.backends.spi import served
from perdure.engine.archive.retention import check_keep
from perdure.engine.calls import nodes
from perdure.engine.context import Context
from perdure.engine.options import Options, check_options
from perdure.engine.views import Archived


async def archive(context: Context, session: str, actor: str | None) -> Archived:
    """See `Store.archive`."""
    core, target = context.opened(), context.key(session)
    check_options(Options(actor=actor))
    with core.telemetry.span("archive", *target):
        if (service := served(core.backend)) is not None:
            return await nodes.archive(service, target, actor)
        return await core.archiver.archive(target, actor)


async def restore(context: Context, session: str, actor: str | None) -> bool:
    """See `Store.restore`."""
    core, target = context.opened(), context.key(session)
    check_options(Options(actor=actor))
    with core.telemetry.span("restore", *target):
        return await core.archiver.restore(target, actor)


async def compact(context: Context, session: str, keep: int | timedelta, actor: str | None, *, drop: bool) -> Archived:
    """See `Store.compact`."""
    core, target = context.opened(), context.key(session)
    check_options(Options(actor=actor))
    checked = check_keep(keep)
    with core.telemetry.span("compact", *target):
        if (service := served(core.backend)) is not None:
            return await nodes.compact(service, target, checked, actor, drop=drop)
        return await core.retention.compact(target, checked, actor, drop=drop)
