"""Output: JSON lines for machines, rich tables for people, from the same typed rows; errors and progress to stderr."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import msgspec
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.highlighter import JSONHighlighter
from rich.table import Table
from rich.text import Text

from perdure.cli.output.text import ERRORS, clean, json_line, json_pages, one_line

R = TypeVar("R", bound=msgspec.Struct)

TABLE_ROWS = 500
"""Rows that are laid out together; a longer listing goes on in a table of its own, so that it starts at once and fits in memory."""
NARROW = 80
"""Below this width a time is shown without year and seconds."""
WIDE = 120
"""From this width on there is room for what is rarely asked for."""
GAP = 2
"""Blanks between two columns."""


class _Console(Console):
    """A console on whatever stdout is now, for which a reader that went away is the caller's to handle."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Column(NamedTuple, Generic[R]):
    """A column for people: its title, and the text of its cell from a row.

    `share`: its width is what the others leave, and its text is cut ("cut") or goes on below ("wrap"). Any other column is as wide as its
    longest text, at most `most`. `spare`: left out where it is empty.
    """

    title: str
    cell: Callable[[R], Any]
    style: str = ""
    justify: Literal["left", "right"] = "left"
    share: Literal["", "cut", "wrap"] = ""
    most: int = 24
    spare: bool = False


class Terminal:
    """Where a command's answer goes. `json`: JSON lines instead of tables; `quiet`: notes and progress are left out."""

    def __init__(self, *, json: bool, quiet: bool) -> None:
        self.json = json
        self.quiet = quiet
        self.console = make_console()

    @property
    def width(self) -> int:
        """How many characters a line has."""
        return self.console.width

    def when(self, text: str) -> str:
        """An RFC 3339 time for people: to the second, or to the minute without the year where there is little room."""
        shown = text[:19].replace("T", " ")
        return shown if self.width >= NARROW else shown[5:16]

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
            cells = [[_cell(column.cell(row)) for column in columns] for row in part]
            self.console.print(_table(columns, cells, self.width))
        return count

    def object(self, row: msgspec.Struct) -> None:
        """One row as a line of JSON."""
        sys.stdout.write(json_line(row) + "\n")

    def print(self, *things: RenderableType) -> None:
        """Something for people. Text is printed as it is: no markup, no control characters."""
        for thing in things:
            self.console.print(clean(thing, "\n\t") if isinstance(thing, str) else thing, soft_wrap=isinstance(thing, (str, Text)))

    def pretty(self, value: Any) -> None:
        """A JSON value over several lines, in colours where there are some."""
        text = json_pages(value)
        self.print(JSONHighlighter()(Text(text)) if self.console.is_terminal else Text(text))

    def note(self, text: str) -> None:
        """A remark beside the answer, to stderr, for people only."""
        if not self.quiet and not self.json:
            write_error(one_line(text))

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


def _table(columns: tuple[Column[R], ...], cells: list[list[Text]], width: int) -> Table:
    """A table in which narrow columns keep their width and those that share divide what is left."""
    natural = [max(cell_len(line) for row in cells for line in row[place].plain.split("\n")) for place in range(len(columns))]
    shown = [place for place, column in enumerate(columns) if natural[place] or not column.spare]
    widths = {place: min(max(natural[place], cell_len(columns[place].title)), columns[place].most) for place in shown}
    sharing = [place for place in shown if columns[place].share]
    left = width - GAP * (len(shown) - 1) - sum(widths[place] for place in shown if not columns[place].share)
    for number, place in enumerate(sorted(sharing, key=natural.__getitem__)):
        wanted = max(natural[place], cell_len(columns[place].title))
        widths[place] = max(1, min(wanted, left // (len(sharing) - number)))
        left -= widths[place]
    table = Table(
        box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", show_header=any(column.title for column in columns)
    )
    for place in shown:
        column = columns[place]
        wrap = column.share == "wrap"
        table.add_column(
            column.title,
            style=column.style,
            justify=column.justify,
            width=widths[place],
            no_wrap=not wrap,
            overflow="fold" if wrap else "ellipsis",
        )
    for row in cells:
        table.add_row(*(row[place] for place in shown))
    return table


def make_console() -> Console:
    """A console on stdout that adds no colours of its own to what it prints."""
    return _Console(highlight=False, markup=False, emoji=False)


def _cell(value: Any) -> Text:
    if isinstance(value, Text):
        return value
    return Text(clean(str(value)))


class ErrorRow(msgspec.Struct, frozen=True):
    """An error, on stderr, where `--json` was asked for."""

    code: str
    """The error's code, or usage."""
    message: str
    """What happened, and what to do next."""
    retryable: bool
    """Whether the same command may succeed if it is run again."""
    exit: int
    """The exit status."""
    facts: dict[str, Any] = {}
    """What the error knows, by name: the session, the versions, the paths."""


def say_error(code: str, message: str) -> None:
    """One line on stderr: `perdure: <code>: <what happened, and what to do next>`."""
    write_error(f"perdure: {code}: {one_line(message)}")


def write_error(line: str) -> None:
    """A line on stderr, if it can be written: what cannot be said there cannot be said anywhere."""
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except OSError:
        silence(sys.stderr)


def prepare_streams() -> None:
    """Make stdout and stderr take every text. One that is closed goes nowhere, and no file that is opened later gets its number."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(_nowhere(number), "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ERRORS)


def _nowhere(number: int) -> int:
    opened = os.open(os.devnull, os.O_WRONLY)
    if opened != number:
        with contextlib.suppress(OSError):
            os.fstat(number)
            return opened
        os.dup2(opened, number)
        os.close(opened)
    return number


def silence(stream: Any) -> None:
    """Let what is still in the stream go nowhere: the interpreter flushes it once more at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
