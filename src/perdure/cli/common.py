"""What every command shares: which store, how to print, and how bytes and times read."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from perdure import sync
from perdure.backends.sqlite.schema import parse_url
from perdure.config import default_url
from perdure.engine.views import to_datetime
from perdure.errors import NotFound


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every command."""

    url: Annotated[str | None, Parameter(help="The store. Default: the environment's PERDURE_URL, else sqlite:///perdure.db.")] = None
    tenant: Annotated[str, Parameter(help="Whose sessions.")] = "default"
    json: Annotated[bool, Parameter(help="JSON lines, one object a row; the default where the output is no terminal.")] = False

    @property
    def store_url(self) -> str:
        """The URL that is meant."""
        return self.url or default_url()

    @property
    def machine(self) -> bool:
        """Whether to print for machines."""
        return self.json or not sys.stdout.isatty()


@contextlib.contextmanager
def opened(common: Common, *, create: bool = False) -> Iterator[sync.Store]:
    """The store, open. Unless `create`, a file that is not there is `NotFound`: a command that reads must not make one."""
    url = common.store_url
    if not create and url.startswith("sqlite:"):
        path = Path(parse_url(url).path)
        if not path.exists():
            raise NotFound(f"There is no store at {path.absolute()}.")
    with sync.open(url, tenant=common.tenant) as store:
        yield store


def show_rows(common: Common, rows: Iterable[msgspec.Struct], columns: Sequence[str], *, title: str | None = None) -> int:
    """Print rows: every field as JSON lines for machines, the named columns as a table for people. Returns how many."""
    count = 0
    if common.machine:
        for row in rows:
            print(msgspec.json.encode(row).decode())
            count += 1
        return count
    table = Table(title=title, header_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*[_cell(getattr(row, column)) for column in columns])
        count += 1
    Console().print(table)
    return count


def show_row(common: Common, row: msgspec.Struct) -> None:
    """Print one row: JSON for machines, a line a field for people."""
    if common.machine:
        print(msgspec.json.encode(row).decode())
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for field in row.__struct_fields__:
        table.add_row(f"[bold]{field.replace('_', ' ')}[/]", _cell(getattr(row, field)))
    Console().print(table)


def moment(at: int) -> str:
    """Nanoseconds since 1970 as RFC 3339 in UTC, with microseconds."""
    return to_datetime(at).isoformat(timespec="microseconds").replace("+00:00", "Z")


def preview(value: Any, width: int = 60) -> str:
    """A value in a few words. A message reads as people think of it: role, then text."""
    if isinstance(value, dict) and isinstance(value.get("role"), str):
        said = value.get("content")
        if not said and value.get("tool_calls"):
            said = f"calls {', '.join(_tool(call) for call in value['tool_calls'])}"
        text = f"{value['role']}: {said if isinstance(said, str) else msgspec.json.encode(said).decode()}"
    elif value is None:
        return ""
    else:
        text = msgspec.json.encode(value).decode()
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _tool(call: Any) -> str:
    function = call.get("function", call) if isinstance(call, dict) else {}
    return str(function.get("name", "a tool")) if isinstance(function, dict) else "a tool"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value.replace("[", "\\[")
    return msgspec.json.encode(value).decode().replace("[", "\\[")
