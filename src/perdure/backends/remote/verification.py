"""The true heads of appends, where those that were remembered, or that refused a write, would decide; and the keys applied up to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from perdure.backends.remote.driver import Driver
from perdure.backends.remote.loop import gather_all
from perdure.backends.remote.pending import Pending
from perdure.backends.remote.proof import HeadProof
from perdure.backends.spi import Outcome
from perdure.errors import Corrupt, Error

Answer = Callable[[Pending, Outcome | BaseException], None]
"""Gives an append its outcome."""


async def verify_heads(driver: Driver, proof: HeadProof, refused: Sequence[Pending], answer: Answer) -> None:
    """Read the heads of appends that were refused on one that was only remembered, prove them all, then look up the keys; those whose key
    is known are answered.

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

    remembered = [pending for pending in refused if not pending.verified]
    if remembered:
        await _read_heads(driver, proof, remembered, answer)
    await prove_heads(proof, refused, answer)
    # The heads come first: what is refused on one must not have had its key applied up to it.
    await gather_all(*[look_up(one, one.append.key) for one in refused if one.append.key is not None and not one.answered])
    for pending in refused:
        pending.new = True


async def prove_heads(proof: HeadProof, strange: Sequence[Pending], answer: Answer) -> None:
    """Compare the heads of appends with their newest records. A head that differs is the error of its own append alone."""

    async def prove(pending: Pending) -> None:
        try:
            pending.head = await proof.prove(pending.append.session, pending.head)
        except Error as error:
            answer(pending, error)
        pending.verified = pending.proven = pending.trusted = True

    await gather_all(*[prove(pending) for pending in strange if not pending.proven and not pending.answered])


async def _read_heads(driver: Driver, proof: HeadProof, remembered: Sequence[Pending], answer: Answer) -> None:
    """A head that is damaged is the error of its own append alone: the others are read in halves."""
    try:
        heads = await driver.heads([pending.append.session for pending in remembered])
    except Corrupt as error:
        if len(remembered) == 1:
            answer(remembered[0], error)
            return
        half = len(remembered) // 2
        await _read_heads(driver, proof, remembered[:half], answer)
        await _read_heads(driver, proof, remembered[half:], answer)
        return
    for pending, head in zip(remembered, heads, strict=True):
        pending.head, pending.verified, pending.proven = head, True, proof.by_driver
