"""What all commands share: the common options, opening a store, words that become values."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Group, Parameter

import perdure.sync
from perdure.backends.registry import is_served
from perdure.backends.sqlite.schema import parse_url
from perdure.cli.exits import UsageError
from perdure.cli.output.terminal import Terminal, write_error
from perdure.cli.output.text import json_line, one_line
from perdure.config import ENVIRONMENT_ARCHIVE, ENVIRONMENT_BLOBS, ENVIRONMENT_URL, default_url, shown_url
from perdure.engine.options import VERSION_MAX
from perdure.errors import Invalid, NotFound, Unsupported

MAKES_NOTHING = ", and create=False makes nothing"
"""What the library says of an argument that a command line does not have."""


@Parameter(name="*", group=Group("Common options", sort_key=100))
@dataclass(frozen=True)
class Common:
    """Options that every command takes."""

    url: Annotated[str | None, Parameter(show_default=False)] = None
    """Which store. Without it: the environment's PERDURE_URL, else sqlite:///perdure.db."""
    tenant: str = "default"
    """Whose sessions."""
    archive: Annotated[str | None, Parameter(show_default=False)] = None
    """The place of archived commits, such as file:///folder or s3://bucket/prefix. Without it: the environment's PERDURE_ARCHIVE."""
    blobs: Annotated[str | None, Parameter(show_default=False)] = None
    """The place of large bodies: file:///folder, s3://bucket/prefix, as it is opened with. Without it: the environment's PERDURE_BLOBS."""
    json: Annotated[bool | None, Parameter(negative="--no-json", show_default=False)] = None
    """JSON lines, or tables. Without it: JSON lines when stdout is no terminal."""
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative=(), show_default=False)] = False
    """No notes and no progress; answers and errors only."""

    @property
    def address(self) -> str:
        """The store's URL."""
        return default_url() if self.url is None else self.url

    @property
    def place(self) -> str | None:
        """The URL of the place for large bodies."""
        return os.environ.get(ENVIRONMENT_BLOBS) or None if self.blobs is None else self.blobs

    @property
    def archive_place(self) -> str | None:
        """The URL of the archive; `None`: there is none."""
        return os.environ.get(ENVIRONMENT_ARCHIVE) or None if self.archive is None else self.archive

    def terminal(self) -> Terminal:
        """Where the answer goes."""
        return Terminal(json=not sys.stdout.isatty() if self.json is None else self.json, quiet=self.quiet)

    def open(self) -> perdure.sync.Store:
        """The store, which has to be there: nothing is made. Raises `NotFound`."""
        try:
            return self._opened(create=False)
        except NotFound as error:
            raise not_there(error) from None

    def open_archive(self, *, write: bool) -> perdure.sync.Store:
        """The store, which has to be there, and its archive, which is made where it is not there and `write` is true. A service has one of
        its own.

        Raises `NotFound`, `Unsupported`.
        """
        if not write or is_served(self.address):
            return self.open()
        if self.archive_place is None:
            raise Unsupported(f"There is no archive: name a folder or a bucket with --archive or {ENVIRONMENT_ARCHIVE}.")
        try:
            perdure.sync.open(self.address, tenant=self.tenant, blobs=self.place, create=False).close()
        except NotFound as error:
            raise not_there(error) from None
        return self._opened()

    def _opened(self, *, create: bool = True) -> perdure.sync.Store:
        return perdure.sync.open(self.address, tenant=self.tenant, blobs=self.place, archive=self.archive_place, create=create)

    @contextmanager
    def open_or_make(self) -> Iterator[perdure.sync.Store]:
        """The store; one that is not there is made, and said to have been when the block has done its work."""
        made = False
        try:
            store = self._opened(create=False)
        except (NotFound, Unsupported) as error:
            made = isinstance(error, NotFound) and error.facts.get("missing") != "place"
            store = self._opened()
        with store:
            yield store
        if made and not self.quiet:
            url = shown_url(self.address)
            write_error(json_line({"made": url}) if self.json else one_line(f"perdure: the store {url} was not there and was made."))


COMMON = Common()


def not_there(error: NotFound) -> NotFound:
    """What to say where there is no store, for people who are at a shell."""
    hint = f"Name yours with --url or {ENVIRONMENT_URL}, or start one with `perdure append`."
    return NotFound(f"{error.detail.replace(MAKES_NOTHING, '')} {hint}", **{**error.facts, "advice": ""})


def store_file(url: str) -> Path | None:
    """The file of a SQLite store; `None` for other engines. Raises `Invalid` for a malformed URL."""
    if not url.startswith("sqlite:"):
        return None
    options = parse_url(url)
    return None if options.vfs else Path(options.path)


def parse_at(text: str | None) -> int | datetime | None:
    """A version, or a moment as RFC 3339 writes it."""
    if text is not None and text.isascii() and text.removeprefix("-").isdecimal():
        return parse_version(int(text), "--at")
    return parse_time(text, "neither a version nor a time")


def parse_time(text: str | None, what: str = "no time") -> datetime | None:
    """A moment as RFC 3339 writes it."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise Invalid(f"{text!r} is {what} such as 2026-11-23T14:02:10Z.") from None
    if found.tzinfo is None:
        raise Invalid(f"The time {text!r} has no zone: write {found.isoformat()}Z for UTC, or an offset such as {found.isoformat()}+01:00.")
    return found


def parse_version(value: int, option: str) -> int:
    """A version that can be asked for. Raises `Invalid`."""
    if not 1 <= value <= VERSION_MAX:
        raise Invalid(f"{option} takes a version, and versions count from 1: not {value}.")
    return value


def counts(**options: int | None) -> None:
    """Raise `Invalid` unless each of these options is a whole number from 0."""
    for name, value in options.items():
        if value is not None and not 0 <= value <= VERSION_MAX:
            raise Invalid(f"{name if name.isupper() else f'--{name}'} takes a whole number, 0 or more: not {value}.")


def parse_pairs(pairs: list[str] | None, said: str = "--tag takes") -> dict[str, str]:
    """NAME=VALUE words as a mapping."""
    found = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"{said} NAME=VALUE, not {pair!r}.")
        found[name] = value
    return found


def parse_json(text: str | bytes, what: str) -> Any:
    """A JSON value. Raises `Invalid`."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        shown = text[:40] if isinstance(text, str) else text[:40].decode(errors="replace")
        raise Invalid(f"{what} must be JSON, and {shown!r} is not: {_why(error)}. A string needs its own quotes: '\"hello\"'.") from None


def _why(error: Exception) -> str:
    match error:
        case RecursionError():
            return "it is too deep"
        case UnicodeError():
            return "its bytes are no UTF-8"
        case _:
            return str(error).removeprefix("JSON is malformed: ").rstrip(".")
