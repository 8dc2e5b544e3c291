"""What became of an attempt whose answer was lost.

The position is read back: it holds this attempt's record, another's, or none yet. While it is free the *identical* attempt is sent again,
for a write whose time ran out may land later. It fails for good once the head has moved, so it is never stored twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import chain, repeat

from perdure.backends.remote.driver import Attempt, Driver, FinalAnswer, HeadMismatch, RetryLater, Stored
from perdure.backends.spi import Known
from perdure.errors import Error, Unavailable, Unknown

RESEND_AFTER = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Seconds between two tries; the last one repeats."""


async def settle(
    driver: Driver, attempt: Attempt, lost: Unknown, *, timeout: float, tick: Callable[[], float], answered: Callable[[], bool]
) -> FinalAnswer | None:
    """The answer to an attempt that had `lost` for one, within about `timeout` seconds; `None` once its caller has been answered.

    Where it cannot be found, `lost` itself. It has the fact `settled` from then on: there is no use in looking again at once.
    """
    answer: FinalAnswer = lost
    until = tick() + timeout
    for wait in chain(RESEND_AFTER, repeat(RESEND_AFTER[-1])):
        try:
            answer = await _look_or_resend(driver, attempt)
        except Error as error:
            answer = error
        if answered():
            return None
        if not isinstance(answer, Error):
            break
        # Whatever the engine says of itself now (away, no rights any more), what became of the first write is as unknown as before.
        final, answer = not isinstance(answer, Unknown | Unavailable), lost
        if final or tick() + wait > until:
            break
        await asyncio.sleep(wait)
    if isinstance(answer, Stored) and answer.durability < attempt.durability:
        answer = lost
    lost.facts["settled"] = True
    return answer


async def _look_or_resend(driver: Driver, attempt: Attempt) -> FinalAnswer:
    found = await _look(driver, attempt)
    if found is not None:
        return found
    (answer,) = await driver.write([attempt])
    if isinstance(answer, RetryLater):
        return answer.error
    if isinstance(answer, HeadMismatch | Known):
        return await _look(driver, attempt) or answer  # The record in the way may be this attempt's own, which landed late.
    return answer


async def _look(driver: Driver, attempt: Attempt) -> FinalAnswer | None:
    """Whose record follows the expected head: this attempt's, another's (with the head of now), or none yet (`None`)."""
    (head,) = await driver.heads([attempt.session])
    if head == attempt.expected:
        return None
    # The head comes first: once it has moved, the record at the position never changes.
    first = attempt.records[0]
    version = first.head.version
    found = await driver.read(attempt.session, version - 1, version + 1, 1, reverse=False)
    if found and found[0].id == first.id:
        return Stored(driver.durability_read)
    if attempt.key is not None and (known := await driver.find_key(attempt.session, attempt.key)) is not None:
        return known
    return HeadMismatch(head, driver.proves_heads)
