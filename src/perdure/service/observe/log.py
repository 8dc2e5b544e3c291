"""The log: JSON lines, or for people at a terminal; one line a request. What nobody reads is dropped: a full pipe stops no node."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, MutableMapping
from types import TracebackType
from typing import Any, Self, TextIO

import msgspec
import structlog

LINES_MAX = 10_000
"""Lines that wait for the stream; what comes then is dropped and counted."""
LINGER = 0.02
"""Seconds that the first of these lines waits for others: to wake the thread for each of them costs more than to write it."""
WRITTEN_MAX = 256
"""Most lines that go in one write."""
ACCESS = "perdure.access"
"""The logger of the lines of requests."""
QUIET = frozenset(("/healthz", "/readyz", "/metrics"))
"""Routes whose answers are noted with `--log-level debug` only, unless they fail."""


class LineWriter:
    """Writes lines to a stream in a thread of its own."""

    def __init__(self, stream: TextIO, on_drop: Callable[[int], None] = lambda _: None) -> None:
        """`on_drop` is called with how many lines were dropped."""
        self._stream, self.on_drop = stream, on_drop
        self._lines: deque[str] = deque()
        """Those that wait, and those that are being written."""
        self._more, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._write, name="perdure-log", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Write what waits, for a second at most: nobody may be reading."""
        self._ending.set()
        self._more.set()
        self._thread.join(1)

    def __call__(self, line: str) -> None:
        """Write a line, soon."""
        if len(self._lines) >= LINES_MAX:
            self.on_drop(1)
            return
        self._lines.append(line)
        if not self._more.is_set():
            self._more.set()

    def _write(self) -> None:
        while self._lines or not self._ending.is_set():
            self._more.wait()
            self._ending.wait(LINGER)
            self._more.clear()  # Before the lines are looked for: one that comes now is found, or sets it again.
            while self._lines:
                self._write_some()

    def _write_some(self) -> None:
        lines = [self._lines[number] for number in range(min(len(self._lines), WRITTEN_MAX))]
        try:
            self._stream.write("\n".join(lines) + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # The reader went away.
            self.on_drop(len(lines))
        for _ in lines:
            self._lines.popleft()


def renderer(*, json: bool) -> Callable[[Any, str, MutableMapping[str, Any]], Any]:
    """From an entry to its line."""
    if json:
        return structlog.processors.JSONRenderer(sort_keys=False)
    return structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)


class _Handler(logging.Handler):
    """Takes the log of libraries, and Perdure's own."""

    def __init__(self, write: LineWriter, level: int) -> None:
        super().__init__(level)
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(self.format(record))
        except Exception:  # noqa: BLE001 - logging's own way
            self.handleError(record)


def install(write: LineWriter, level: str, *, json: bool | None = None) -> None:
    """All of the process's log goes through this writer. `json`: whether as JSON lines; without it where stderr is no terminal."""
    as_json = not sys.stderr.isatty() if json is None else json
    shared: list[Any] = [structlog.stdlib.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True)]
    errors: list[Any] = [structlog.processors.format_exc_info] if as_json else []
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *errors, renderer(json=as_json)],
    )
    number = logging.getLevelName(level.upper())
    handler = _Handler(write, number)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)


def access_logger(write: Callable[[str], None], level: str, *, json: bool) -> Any:
    """The logger of the lines of requests: straight to the writer, past what the log of libraries needs."""
    return structlog.wrap_logger(
        _Lines(write),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(_json_line) if json else renderer(json=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        cache_logger_on_first_use=True,
    ).bind(logger=ACCESS)


def _json_line(said: Any, **_: Any) -> str:
    """In ASCII, as the lines of libraries are: nobody knows what the stream's reader takes."""
    line = msgspec.json.encode(said).decode()
    return line if line.isascii() else json.dumps(said)


class _Lines:
    """What structlog asks of the logger that it wraps."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.debug = self.info = self.warning = self.error = write
