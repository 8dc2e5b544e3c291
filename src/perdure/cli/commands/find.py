"""`perdure find`: whether an idempotency key was applied, and by which commit."""

from __future__ import annotations

from perdure.cli.commands.append import receipt_row
from perdure.cli.common import COMMON, Common
from perdure.cli.exits import OK, status_of
from perdure.errors import NotFound


def find(session: str, key: str, /, *, common: Common = COMMON) -> int:
    """Find the commit that an idempotency key was applied by: what became of a call whose answer was lost.

    Leaves with 0 if the key was applied, with 3 if it was not: then the call can be sent again.

    Parameters
    ----------
    session
        The session's id.
    key
        The idempotency key.
    """
    terminal = common.terminal()
    with common.open() as store:
        receipt = store.find(session, key)
    if receipt is None:
        terminal.note(f"The key {key!r} was not applied to session {session!r}.")
        return status_of(NotFound.code)
    row = receipt_row(session, receipt)
    if terminal.json:
        terminal.object(row)
    else:
        terminal.print(f"{row.session} version {row.version}, {terminal.when(row.at)} UTC")
    return OK
