"""Appends to sessions that are moving: nothing was done, so they are judged anew, and hold up nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from perdure.backends.conformance import behind
from perdure.backends.remote import Answer, Attempt, RetryLater
from perdure.backends.spi import Append, Appended, Head
from perdure.errors import Unavailable, Unknown
from perdure.model.ids import SessionKey
from tests.support.backends.memory_driver import MemoryDriver, memory, opened

MOVING, STILL = SessionKey("acme", "moving"), SessionKey("acme", "still")


class Mover(MemoryDriver):
    """Answers `RetryLater` for the session that moves until it `arrived`; loses the first answers, on request, before they say anything."""

    def __init__(self, *, lost: int = 0) -> None:
        super().__init__(memory())
        self.arrived, self.asked, self.lost = False, 0, lost

    async def apply(self, attempt: Attempt) -> Answer:
        if attempt.session == MOVING and not self.arrived:
            self.asked += 1
            return RetryLater(Unavailable("it is moving"))
        return await super().apply(attempt)

    async def write(self, attempts: Sequence[Attempt]) -> Sequence[Answer]:
        if self.lost:
            self.lost -= 1
            raise Unknown("no answer")
        return await super().write(attempts)


@pytest.mark.parametrize("lost", [0, 1])
async def test_what_moves_is_stored_when_it_has_arrived_and_holds_up_nobody(lost: int) -> None:
    """On the only lane others pass the append that waits; it is stored once its session has arrived, also if its first answer was lost."""

    driver = Mover(lost=lost)
    async with opened(driver) as backend:
        waiting = asyncio.ensure_future(backend.append([behind(MOVING, key="k")]))
        while driver.asked < 3:
            (outcome,) = await backend.append([behind(STILL)])
            assert isinstance(outcome, Appended)
        assert not waiting.done()
        driver.arrived = True
        (outcome,) = await waiting
        assert isinstance(outcome, Appended)
        assert outcome.head.version == 1


async def test_what_moves_for_too_long_says_why_and_was_not_written() -> None:
    """When the time is up the error is the driver's own, and nothing was stored; one whose first answer was lost stays `Unknown`."""

    for lost, error in ((0, Unavailable), (1, Unknown)):
        async with opened(Mover(lost=lost), timeout=0.2) as backend:
            (outcome,) = await backend.append([behind(MOVING)])
            assert type(outcome) is error
            assert str(outcome).startswith("it is moving" if error is Unavailable else "no answer")
            assert await backend.heads([MOVING]) == [None]


async def test_among_others_what_moves_is_refused_at_once_and_from_then_on_handed_over_by_itself() -> None:
    """In one call with others it is `Unavailable` at once, and they are stored: their answers wait for nobody. The engine then asks to be
    given appends one by one, and together again when nothing has moved for a while."""

    driver = Mover()
    async with opened(driver) as backend:
        assert backend.capabilities.batched
        while backend.capabilities.batched:
            moving, still = await backend.append([behind(MOVING), behind(STILL)])
            assert isinstance(moving, Unavailable)
            assert isinstance(still, Appended)
        driver.arrived = True
        while not backend.capabilities.batched:
            moving, still = await backend.append([behind(MOVING), behind(STILL)])
            assert isinstance(moving, Appended) and isinstance(still, Appended)


async def test_closing_waits_for_what_moves() -> None:
    """`close` ends when the append that waits has its outcome."""

    driver = Mover()
    async with opened(driver, timeout=0.5) as backend:
        waiting = asyncio.ensure_future(backend.append([behind(MOVING)]))
        while not driver.asked:
            await backend.append([behind(STILL)])
    assert isinstance((await waiting)[0], Unavailable)


class Slow(MemoryDriver):
    """Answers no question for heads before it `may`."""

    def __init__(self) -> None:
        super().__init__(memory())
        self.may = asyncio.Event()
        self.asked = asyncio.Event()

    async def heads(self, sessions: Sequence[SessionKey]) -> Sequence[Head | None]:
        self.asked.set()
        await self.may.wait()
        return await self.backend.heads(sessions)


async def test_what_was_told_as_not_sent_is_not_sent_when_its_batch_goes_on() -> None:
    """An append waits in one batch with another whose head has to be read first. Its time is up: `Unavailable`, and it is never stored."""

    driver = Slow()
    async with opened(driver, timeout=0.2) as backend:
        stale = Append(MOVING, lambda head: None if head is None else (), None)
        ready, unsure = await backend.append([behind(STILL), stale])
        assert driver.asked.is_set()
        assert [type(outcome) for outcome in (ready, unsure)] == [Unavailable, Unavailable]
        driver.may.set()
        (outcome,) = await backend.append([behind(MOVING)])
        assert isinstance(outcome, Appended)
        assert await backend.heads([STILL]) == [None]
