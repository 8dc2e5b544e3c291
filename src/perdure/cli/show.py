"""`perdure show`: a session's state, at its head or at any point."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.json import JSON

from perdure.cli.common import Common, opened
from perdure.errors import Invalid


class ViewRow(msgspec.Struct, frozen=True):
    """`session`, `version`, `hash` (hex), `status`, `tags`, and `state`, the JSON document."""

    session: str
    version: int
    hash: str
    status: str
    tags: dict[str, str]
    state: Any


def show(
    session: str,
    /,
    *,
    at: Annotated[str | None, Parameter(help="A version, or a time in RFC 3339 with its zone.")] = None,
    common: Common | None = None,
) -> int:
    """Show a session's state."""
    common = common or Common()
    with opened(common) as store:
        view = store.read(session, at=point(at))
    row = ViewRow(view.session, view.version, view.hash.hex(), view.status.name, dict(view.tags), view.state)
    if common.machine:
        print(msgspec.json.encode(row).decode())
        return 0
    console = Console()
    console.print(f"[bold]{row.session}[/]  version {row.version}  {row.status}  {row.hash[:16]}")
    console.print(JSON(msgspec.json.encode(row.state).decode()))
    return 0


def point(text: str | None) -> int | datetime | None:
    """A version or a moment, as people write it. Raises `Invalid`."""
    if text is None or text.isdecimal():
        return None if text is None else int(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"{text!r} is neither a version nor a time such as 2026-01-31T12:00:00Z.") from None
