"""The true heads of appends that were refused on a head that was only remembered, and the keys that were applied up to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from perdure.backends.remote.driver import Driver
from perdure.backends.remote.loop import gather_all
from perdure.backends.remote.pending import Pending
from perdure.backends.spi import Outcome
from perdure.errors import Corrupt, Error

Answer = Callable[[Pending, Outcome | BaseException], None]
"""Gives an append its outcome."""


async def verify_heads(driver: Driver, unverified: Sequence[Pending], answer: Answer) -> None:
    """Read the heads of these appends where they are not verified, then look up their keys; those whose key is known are answered.

    A head that refused a write is true, but the write may have looked for the key before that head was there.
    """

    async def look_up(pending: Pending, key: str) -> None:
        try:
            known = await driver.find_key(pending.append.session, key)
        except Error as error:
            answer(pending, error)
            return
        if known is not None:
            answer(pending, known)

    remembered = [pending for pending in unverified if not pending.verified]
    if remembered:
        await _read_heads(driver, remembered, answer)
    # The heads come first: what is refused on one must not have had its key applied up to it.
    await gather_all(*[look_up(one, one.append.key) for one in unverified if one.append.key is not None and not one.answered])
    for pending in unverified:
        pending.new = True


async def _read_heads(driver: Driver, remembered: Sequence[Pending], answer: Answer) -> None:
    """A head that is damaged is the error of its own append alone: the others are read in halves."""
    try:
        heads = await driver.heads([pending.append.session for pending in remembered])
    except Corrupt as error:
        if len(remembered) == 1:
            answer(remembered[0], error)
            return
        half = len(remembered) // 2
        await _read_heads(driver, remembered[:half], answer)
        await _read_heads(driver, remembered[half:], answer)
        return
    for pending, head in zip(remembered, heads, strict=True):
        pending.head, pending.verified = head, True
