"""`sizes`: where a session's bytes are."""

from __future__ import annotations

from perdure.backends.spi import served
from perdure.codec.out_of_line import is_reference, unwrap_reference
from perdure.engine.calls import nodes
from perdure.engine.calls.read import require_live
from perdure.engine.context import Context
from perdure.engine.options import check_count
from perdure.engine.views import Part, Sizes
from perdure.model.weights import heavy_parts

LEAST_SHARE = 0.01
"""A part of the state is named if it has at least this share of it."""


async def sizes(context: Context, session: str, parts: int, *, include_deleted: bool) -> Sizes:
    """See `Store.sizes`."""
    core, target = context.opened(), context.key(session)
    check_count("parts", parts)
    with core.telemetry.span("sizes", *target):
        if (service := served(core.backend)) is not None:
            return await nodes.sizes(service, target, parts, include_deleted=include_deleted)
        now = require_live(target, await core.reader.read_head(target), include_deleted=include_deleted)
        loaded = await core.backend.load(target, now.head.version)
        snapshot = None if loaded is None else loaded.snapshot
        kept = 0 if snapshot is None else snapshot.version
        log, old, bodies = [0, 0], [0, 0], [0, 0]
        after = 0
        while records := await core.backend.read(target, after=after, before=now.head.version + 1):
            for record in records:
                _add(log if record.head.version > kept else old, record.stored_bytes)
                if is_reference(record.body):
                    _add(bodies, unwrap_reference(record.body).size)
            after = records[-1].head.version
        core.check_process()
        return Sizes(
            session=session,
            version=now.head.version,
            state_bytes=core.codec.state_bytes(now.state),
            snapshot_bytes=0 if snapshot is None else len(snapshot.body),
            snapshot_version=None if snapshot is None else kept,
            log_bytes=log[0],
            log_commits=log[1],
            old_bytes=old[0],
            old_commits=old[1],
            blob_bytes=bodies[0],
            blob_commits=bodies[1],
            parts=tuple(Part(each.path, each.bytes, each.members) for each in heavy_parts(now.state, least=LEAST_SHARE, limit=parts)),
        )


def _add(total: list[int], size: int) -> None:
    total[0] += size
    total[1] += 1
