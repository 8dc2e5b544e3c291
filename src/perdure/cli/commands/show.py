"""`perdure show`: a session's state, now or as it was."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.cli.common import COMMON, Common, parse_at
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


def show(session: str, /, *, at: str | None = None, path: str = "", include_deleted: bool = False, common: Common = COMMON) -> None:
    """Show a session's state.

    Parameters
    ----------
    session
        Its id.
    at
        The version, or the time (2026-11-23T14:02:10Z), to show it as of; without it, now.
    path
        A JSON Pointer: only the value there.
    include_deleted
        Also of a deleted session, and with --at of a life before the last deletion: for audit.
    """
    terminal = common.terminal()
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
