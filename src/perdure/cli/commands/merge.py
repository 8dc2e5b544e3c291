"""`perdure merge`: what a fork did, carried into its parent."""

from __future__ import annotations

from perdure.cli.commands.append import receipt_row
from perdure.cli.common import COMMON, Common


def merge(
    session: str, /, *, into: str, key: str | None = None, actor: str | None = None, durability: str | None = None, common: Common = COMMON
) -> None:
    """Carry what a fork did since it was made, or last merged, into its parent, as one commit.

    Parameters
    ----------
    session
        The fork's id.
    into
        The parent's id.
    key
        An idempotency key: a second call with it changes nothing and answers with the first one's receipt.
    actor
        Who did it.
    durability
        The least level the receipt may name: memory, buffered, local or quorum.
    """
    terminal = common.terminal()
    with common.open() as store:
        receipt = store.merge(session, into=into, key=key, actor=actor, durability=durability)
    if receipt is None:
        terminal.note(f"There is nothing to merge: {session} has done nothing that {into} does not have.")
    elif terminal.json:
        terminal.object(receipt_row(into, receipt))
    elif not terminal.quiet:
        terminal.print(f"{session} was merged into {into}, now version {receipt.version}")
