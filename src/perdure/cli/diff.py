"""`perdure diff`: what changed between two points of a session, as operations."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.cli.common import Common, opened, show_rows
from perdure.cli.show import point
from perdure.model.diff import diff as difference


class OpRow(msgspec.Struct, frozen=True):
    """`op`, `path` (JSON Pointer) and `value` of one operation."""

    op: str
    path: str
    value: Any


def diff(session: str, since: str, until: str | None = None, /, *, common: Common | None = None) -> int:
    """Show the operations that lead from one point (a version or a time) to another, by default the head."""
    common = common or Common()
    with opened(common) as store:
        old = store.read(session, at=point(since)).state
        new = store.read(session, at=point(until)).state
    show_rows(common, (OpRow(op.kind, op.path, op.value) for op in difference(old, new)), ["op", "path", "value"])
    return 0
