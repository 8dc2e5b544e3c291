"""The index rows of sessions that are due, as a round of a sweeper sees and changes them."""

from __future__ import annotations

import msgspec

from perdure.backends.spi import NEVER, Index, Row, indexed
from perdure.engine.core import Core
from perdure.engine.write.controls import Basis
from perdure.model.control import Control, decode_control
from perdure.model.epoch import is_exclusive, is_held
from perdure.model.lifecycle import DAY, SECOND, Look, with_look
from perdure.model.timestamps import rfc3339
from perdure.ops.swept import Action, What

ACTOR = "perdure sweep"
"""The actor of a sweeper's commits."""
HELD_DELAY = 300 * SECOND
"""How long a session is left alone on which a lease is held, in nanoseconds."""
LEASE_TTL = 60.0
"""The ttl of the lease, in seconds, that a sweeper takes from a holder that does not answer. It lets go of it at once."""
FORKED_DELAY = DAY
"""How long a deleted session is left alone that a fork still reads through, in nanoseconds."""
UNFINISHED_DELAY = 600 * SECOND
"""When a session is looked at again of which bytes are being removed, in nanoseconds: the sweeper that does it may die."""
FAILED_DELAY = 300 * SECOND
"""How long a session is left alone with which something was wrong, in nanoseconds."""


class Sweep(msgspec.Struct, frozen=True):
    """One round: the store's parts, the sweeper's time in nanoseconds, and whether nothing is to be changed."""

    core: Core
    now: int
    dry_run: bool = False


def action(row: Row, what: What, detail: str = "") -> Action:
    """What was done to the session of this row."""
    return Action(row.session.tenant, row.session.id, what, detail)


def basis_of(row: Row) -> Basis:
    """What the row says of its session. The sweeper's decisions ask neither in which life it is nor who holds it."""
    return Basis(row.head, decode_control(row.control), 0, None)


def lease_forbids(epoch: int, *, ending: bool) -> bool:
    """Whether a lease forbids the sweeper to write now: an exclusive one any commit, every other one to end the session's life."""
    return is_exclusive(epoch) or (ending and is_held(epoch))


async def move_on(
    sweep: Sweep,
    row: Row,
    due_at: int,
    *,
    look: Look | None = None,
    control: Control | None = None,
    what: What = "looked",
    detail: str = "",
) -> Action:
    """Change when the session is due, and with `look` what was seen, if the row is still the one that was seen."""
    if not sweep.dry_run and (backend := indexed(sweep.core.backend)) is not None:
        cell = None if look is None or control is None else with_look(control, look).encode()
        if not await backend.change_index(row, Index(due_at=due_at, control=cell)):
            return action(row, "overtaken")
    return action(row, what, detail or ("not due any more" if due_at == NEVER else f"due again at {rfc3339(due_at)}"))
