"""`perdure delete`: a session is closed with a tombstone."""

from __future__ import annotations

from perdure.cli.commands.append import receipt_row
from perdure.cli.common import COMMON, Common


def delete(session: str, /, *, actor: str | None = None, common: Common = COMMON) -> None:
    """Delete a session: from then on it is not found, and late writers are refused. Its bytes stay on disk until it is purged.

    Parameters
    ----------
    session
        Its id.
    actor
        Who did it.
    """
    terminal = common.terminal()
    with common.open() as store:
        receipt = store.delete(session, actor=actor)
    if terminal.json:
        terminal.object(receipt_row(session, receipt))
    elif not terminal.quiet:
        terminal.print(f"{session} was deleted at version {receipt.version}; its bytes are still stored")
