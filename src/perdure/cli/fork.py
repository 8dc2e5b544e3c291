"""`perdure fork`: a new session that goes on from a point of another."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import Parameter

from perdure.cli.common import Common, opened, show_row


class ForkRow(msgspec.Struct, frozen=True):
    """`session`, the new id; `parent`; and `version`, where they part."""

    session: str
    parent: str
    version: int


def fork(
    session: str,
    /,
    *,
    at: Annotated[int | None, Parameter(help="The version to go on from. Default: the head.")] = None,
    id: Annotated[str | None, Parameter(help="The new session's id. Default: a fresh UUIDv7.")] = None,
    actor: Annotated[str | None, Parameter(help="Who did it.")] = None,
    common: Common | None = None,
) -> int:
    """Fork a session."""
    common = common or Common()
    with opened(common) as store:
        version = store.read(session).version if at is None else at
        show_row(common, ForkRow(store.fork(session, at=version, id=id, actor=actor), session, version))
    return 0
