"""`perdure fork`: a new session that goes on from a version of another."""

from __future__ import annotations

import msgspec

from perdure.cli.common import COMMON, Common, parse_version


class ForkRow(msgspec.Struct, frozen=True):
    """A fork."""

    session: str
    """The new session's id."""
    parent: str
    """The session that it goes on from."""
    at: int
    """The version of the parent that it shares."""
    version: int
    """The new session's own version."""


def fork(session: str, /, *, at: int | None = None, id: str | None = None, actor: str | None = None, common: Common = COMMON) -> None:
    """Fork a session: the cost does not grow with its history.

    Parameters
    ----------
    session
        The id of the session to fork.
    at
        The version to go on from; without it, the newest.
    id
        The new session's id; without it, a UUIDv7.
    actor
        Who did it.
    """
    terminal = common.terminal()
    if at is not None:
        parse_version(at, "--at")
    with common.open() as store:
        child = store.fork(session, at=at, id=id, actor=actor)
        version = store.read(child).version
    row = ForkRow(child, session, version - 1, version)
    if terminal.json:
        terminal.object(row)
    elif terminal.quiet:
        terminal.print(row.session)
    else:
        terminal.print(f"{row.session} goes on from {row.parent} version {row.at}")
