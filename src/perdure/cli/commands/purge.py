"""`perdure purge`: the bytes of a deleted session are removed."""

from __future__ import annotations

import sys

import msgspec

from perdure.cli.common import COMMON, Common
from perdure.cli.exits import OK, OTHER, UsageError


class PurgeRow(msgspec.Struct, frozen=True):
    """A session that was purged."""

    session: str
    """Its id, which stays dead."""
    purged: bool = True
    """That its bytes were removed."""


def purge(session: str, /, *, yes: bool = False, common: Common = COMMON) -> int:
    """Remove all bytes of a deleted session, of every life it had. Nothing brings them back.

    A stub stays: its id, and the tombstone's version, hash and time. A session that was not deleted is refused: run `perdure delete` first.

    What may remain elsewhere (backups, replicas, the server's logs) is said in docs/personal-data.md.

    Parameters
    ----------
    session
        Its id.
    yes
        Do not ask. Without it, and without a terminal to ask on, nothing is removed.
    """
    terminal = common.terminal()
    if not yes and not (sys.stdin is not None and sys.stdin.isatty()):
        raise UsageError("Purging cannot be undone: add --yes to do it without being asked.")
    with common.open() as store:
        if not yes and input(f"Remove all bytes of {session!r} for good? [y/N] ").strip().lower() not in ("y", "yes"):
            terminal.note("Nothing was removed.")
            return OTHER
        store.purge(session)
    if terminal.json:
        terminal.object(PurgeRow(session))
    elif not terminal.quiet:
        terminal.print(f"{session} was purged")
    return OK
