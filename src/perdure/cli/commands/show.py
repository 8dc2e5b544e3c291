"""`perdure show`: a session's state, now or as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from perdure.cli.common import COMMON, Common, parse_at
from perdure.cli.exits import UsageError
from perdure.cli.output.terminal import NARROW, WIDE, Column, Terminal
from perdure.cli.output.text import size as readable
from perdure.errors import NotFound
from perdure.model.pointer import is_index, parse


class StateRow(msgspec.Struct, frozen=True):
    """A session as of one version."""

    session: str
    """Its id."""
    version: int
    """The version that the state is of."""
    hash: str
    """The hash of that commit, hexadecimal."""
    status: str
    """active, idle or archived."""
    tags: dict[str, str]
    """Its tags."""
    created_at: str
    """Its first commit, RFC 3339 in UTC."""
    updated_at: str
    """Its newest commit, RFC 3339 in UTC."""
    at: str
    """The commit of this version, RFC 3339 in UTC."""
    path: str
    """The part that was asked for, a JSON Pointer; "" for all of it."""
    state: Any
    """The JSON value there."""


class PartRow(msgspec.Struct, frozen=True):
    """A part of a state."""

    path: str
    """Its JSON Pointer; "" for the whole state."""
    bytes: int
    """What it takes as JSON."""
    members: int | None
    """How many members it has; null: it is no container."""


class SizeRow(msgspec.Struct, frozen=True):
    """Where a session's bytes are."""

    session: str
    """Its id."""
    version: int
    """The head that was measured."""
    state_bytes: int
    """The state, encoded, not compressed."""
    snapshot_bytes: int
    """The newest snapshot as it is stored; 0: there is none."""
    snapshot_version: int | None
    """The version of that snapshot."""
    log_bytes: int
    """The commits after it, as they are stored."""
    log_commits: int
    """How many they are."""
    old_bytes: int
    """The commits up to it, as they are stored."""
    old_commits: int
    """How many they are."""
    blob_bytes: int
    """Bodies out of line, of all commits."""
    blob_commits: int
    """How many they are."""
    parts: list[PartRow]
    """The heaviest parts of the state, heaviest first, each after its container."""


class Bar(msgspec.Struct, frozen=True):
    """A line of the drawing: what it is, its bytes, how many of what, and its share of the largest."""

    name: str
    bytes: int
    note: str
    share: float


PARTS = 12
"""Parts of a state that are drawn."""


def show(
    session: str,
    /,
    *,
    at: str | None = None,
    path: str = "",
    size: bool = False,
    include_deleted: bool = False,
    common: Common = COMMON,
) -> None:
    """Show a session's state, or where its bytes are.

    Parameters
    ----------
    session
        Its id.
    at
        The version, or the time (2026-11-23T14:02:10Z), to show it as of; without it, now.
    path
        A JSON Pointer: only the value there.
    size
        In place of the state: how many bytes it, its heaviest parts, the snapshot, the commits and the bodies out of line take, now.
    include_deleted
        Also of a deleted session, and with --at of a life before the last deletion: for audit.
    """
    terminal = common.terminal()
    if size:
        if at is not None or path:
            raise UsageError("--size measures all of a session as it is now: leave --at and --path out.")
        _show_size(terminal, common, session, include_deleted=include_deleted)
        return
    moment_or_version = parse_at(at)
    with common.open() as store:
        view = store.read(session, at=moment_or_version, include_deleted=include_deleted)
        row = StateRow(**{**view.to_dict(), "path": path, "state": resolve(view.state, path)})
    if terminal.json:
        terminal.object(row)
        return
    tags = "".join(f", {name}={value}" for name, value in row.tags.items())
    terminal.note(f"{row.session} version {row.version}, {row.status}, {terminal.when(row.at)} UTC{tags}")
    terminal.pretty(row.state)


def _show_size(terminal: Terminal, common: Common, session: str, *, include_deleted: bool) -> None:
    with common.open() as store:
        row = msgspec.convert(store.sizes(session, parts=PARTS, include_deleted=include_deleted), SizeRow, from_attributes=True)
    if terminal.json:
        terminal.object(row)
        return
    terminal.note(f"{row.session} version {row.version}; the state as JSON, everything else as it is stored")
    bars = list(_bars(row))
    width = 10 if terminal.width < NARROW else 20 if terminal.width < WIDE else 40
    terminal.rows(
        bars,
        Column("", lambda bar: bar.name, style="cyan", share="cut"),
        Column("bytes", lambda bar: readable(bar.bytes), justify="right"),
        Column("", lambda bar: "█" * max(round(width * bar.share), bar.bytes > 0), most=width),
        Column("", lambda bar: bar.note, most=40),
    )


def _bars(row: SizeRow) -> Iterator[Bar]:
    """The state, its parts below their containers, and what is stored."""
    largest = max(row.state_bytes, row.snapshot_bytes, row.log_bytes, row.old_bytes, row.blob_bytes, 1)
    stored = [
        ("snapshot", row.snapshot_bytes, "none" if row.snapshot_version is None else f"at version {row.snapshot_version}"),
        ("commits since", row.log_bytes, _counted(row.log_commits, "commit")),
        ("older commits", row.old_bytes, _counted(row.old_commits, "commit")),
        ("bodies out of line", row.blob_bytes, _counted(row.blob_commits, "commit")),
    ]
    members = row.parts[0].members if row.parts else None
    yield Bar("state", row.state_bytes, "" if members is None else _counted(members, "member"), row.state_bytes / largest)
    for part, depth in _tree(row.parts, "", 1):
        note = "" if part.members is None else _counted(part.members, "member")
        yield Bar(f"{'  ' * depth}/{part.path.rpartition('/')[2]}", part.bytes, note, part.bytes / largest)
    for name, count, note in stored:
        yield Bar(name, count, note, count / largest)


def _tree(parts: Sequence[PartRow], above: str, depth: int) -> Iterator[tuple[PartRow, int]]:
    """The parts below a path, each followed by those below itself, with their depth."""
    for part in parts:
        if part.path and part.path.rpartition("/")[0] == above:
            yield part, depth
            yield from _tree(parts, part.path, depth + 1)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + "s" * (count != 1)


def resolve(state: Any, path: str) -> Any:
    """The value at a JSON Pointer. Raises `Invalid` for a malformed pointer, `NotFound` where nothing is there."""
    value = state
    for token in parse(path):
        if isinstance(value, list) and is_index(token) and int(token) < len(value):
            value = value[int(token)]
        elif isinstance(value, dict) and token in value:
            value = value[token]
        else:
            raise NotFound(f"The state has nothing at {path!r}.", advice="")
    return value
