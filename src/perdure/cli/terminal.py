"""Output: JSON lines for machines, rich tables for people, from the same typed rows; errors and progress to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import msgspec
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

R = TypeVar("R", bound=msgspec.Struct)

TABLE_ROWS = 500
"""Rows that are laid out together; a longer listing goes on in a table of its own, so that it starts at once and fits in memory."""


class _Console(Console):
    """A console on whatever stdout is now, for which a reader that went away is the caller's to handle."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Column(NamedTuple, Generic[R]):
    """A column for people: its title, and the text of its cell from a row."""

    title: str
    cell: Callable[[R], Any]
    style: str = ""
    justify: Literal["left", "right"] = "left"
    wrap: bool = False


class Terminal:
    """Where a command's answer goes. `json`: JSON lines instead of tables; `quiet`: notes and progress are left out."""

    def __init__(self, *, json: bool, quiet: bool) -> None:
        self.json = json
        self.quiet = quiet
        self.console = make_console()

    def rows(self, rows: Iterable[R], *columns: Column[R]) -> int:
        """Print rows as they come: a JSON object a line, or tables. The number of rows."""
        count = 0
        if self.json:
            for row in rows:
                self.object(row)
                count += 1
            return count
        items = iter(rows)
        while part := list(islice(items, TABLE_ROWS)):
            count += len(part)
            table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(column.title for column in columns))
            for column in columns:
                overflow: Literal["fold", "ellipsis"] = "fold" if column.wrap else "ellipsis"
                table.add_column(column.title, style=column.style, justify=column.justify, no_wrap=not column.wrap, overflow=overflow)
            for row in part:
                table.add_row(*(_cell(column.cell(row)) for column in columns))
            self.console.print(table)
        return count

    def object(self, row: msgspec.Struct) -> None:
        """One row as a line of JSON."""
        sys.stdout.write(msgspec.json.encode(row).decode() + "\n")

    def print(self, *things: RenderableType) -> None:
        """Something for people. Text is printed as it is: no markup, no control characters."""
        for thing in things:
            self.console.print(clean(thing) if isinstance(thing, str) else thing, soft_wrap=isinstance(thing, (str, Text)))

    def note(self, text: str) -> None:
        """A remark beside the answer, to stderr, for people only."""
        if not self.quiet and not self.json:
            print(text, file=sys.stderr)

    @contextmanager
    def progress(self, title: str, total: float | None) -> Iterator[Callable[[float], None]]:
        """A bar on stderr while the block runs, if that is a terminal; call what it gives with each piece of work that is done."""
        if self.quiet or not sys.stderr.isatty():
            yield lambda _: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=total)
            yield lambda step: bar.advance(task, step)


def make_console() -> Console:
    """A console on stdout that adds no colours of its own to what it prints."""
    return _Console(highlight=False, markup=False, emoji=False)


def _cell(value: Any) -> Text:
    return value if isinstance(value, Text) else Text(clean(str(value)))


def clean(text: str) -> str:
    """The text without what could steer a terminal: control and formatting characters are shown as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape", "replace").decode() for char in text)


def pretty_json(value: Any) -> str:
    """A JSON value over several lines, for people."""
    return clean(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def say_error(code: str, message: str) -> None:
    """One line on stderr: `perdure: <code>: <what happened, and what to do next>`."""
    sys.stderr.write(f"perdure: {code}: {clean(' '.join(message.split()))}\n")


def size(count: int) -> str:
    """Bytes for people."""
    value, units = float(count), iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while value >= 1024 and unit != "TiB":
        value, unit = value / 1024, next(units)
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
