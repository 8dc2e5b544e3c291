"""`perdure ls`: the sessions of a store."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import Parameter

from perdure.cli.common import Common, opened, show_rows
from perdure.engine.views import Info
from perdure.errors import Invalid


class SessionRow(msgspec.Struct, frozen=True):
    """`session` (id), `version` of its head, `status`, `tags`, `created_at` and `updated_at` (RFC 3339, UTC)."""

    session: str
    version: int
    status: str
    tags: dict[str, str]
    created_at: str
    updated_at: str

    @classmethod
    def of(cls, info: Info) -> SessionRow:
        """From what the store answers."""
        created, updated = (time.isoformat().replace("+00:00", "Z") for time in (info.created_at, info.updated_at))
        return cls(info.session, info.version, info.status.name, dict(info.tags), created, updated)


def ls(
    *,
    prefix: Annotated[str, Parameter(help="Only ids that begin like this.")] = "",
    tag: Annotated[list[str] | None, Parameter(help="Only sessions with this tag, NAME=VALUE; may be repeated.")] = None,
    status: Annotated[str | None, Parameter(help="Only this status: active, idle, archived, deleted or moved.")] = None,
    limit: Annotated[int | None, Parameter(help="At most so many.")] = None,
    common: Common | None = None,
) -> int:
    """List sessions by id."""
    common = common or Common()
    tags = dict(_tag(text) for text in tag or [])
    with opened(common) as store:
        rows = (SessionRow.of(info) for info in store.list(prefix=prefix, tags=tags, status=status, limit=limit))
        show_rows(common, rows, ["session", "version", "status", "tags", "updated_at"])
    return 0


def _tag(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise Invalid(f"A tag is written NAME=VALUE, not {text!r}.")
    return name, value
