"""Appends over a network, on a driver that loses requests and answers: three outcomes and no fourth."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from perdure.backends.conformance import CASES, Case, behind, expecting, record
from perdure.backends.remote import Answer, Attempt, HeadMismatch
from perdure.backends.remote.appender import Appender
from perdure.backends.spi import Append, Appended, Known, Refused
from perdure.errors import Closed, Error, Unauthorized, Unavailable, Unknown
from perdure.model.ids import SessionKey
from tests.support.backends.load import Load
from tests.support.backends.memory_driver import LossyDriver, MemoryDriver, memory, opened

S = SessionKey("acme", "s")


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))


@pytest.mark.parametrize(("lanes", "batch_max"), [(1, 64), (3, 1)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_driver_of_conditional_writes_is_a_whole_engine(case: Case, lanes: int, batch_max: int) -> None:
    """The shared half makes an engine that conforms out of a driver that only compares heads, through two handles where asked."""
    data = memory()
    case.run(
        lambda: opened(MemoryDriver(data, lanes=lanes, batch_max=batch_max)),
        lambda _: opened(MemoryDriver(data, lanes=lanes, batch_max=batch_max)),
    )


@pytest.mark.parametrize("seed", range(24))
async def test_nothing_is_lost_or_doubled_while_answers_are(seed: int) -> None:
    """Through lost requests, lost answers and writes that land late, what was acknowledged is in the chain once, what was said not to
    be written is not in it, and what is unknown is in it at most once. A key is applied once however often it is sent."""
    data, acknowledged, refused, unknown = memory(), set(), set(), set()

    async def one(backend, task: int, turn: int) -> None:
        session, key = SessionKey("acme", f"s{(task + turn) % 3}"), f"{task}-{turn}" if turn % 2 else None
        for attempt in range(6):
            made = []

            def finish(head, made=made, attempt=attempt):
                made.append(record(session, head, key=key, salt=f"{task}-{turn}-{attempt}-{len(made)}".encode()))
                return made[-1:]

            try:
                (outcome,) = await backend.append([Append(session, finish, key)])
                if isinstance(outcome, Exception):
                    raise outcome
            except Unavailable:
                refused.update((session, item.id) for item in made)
            except Unknown:
                unknown.update((session, item.id) for item in made)
                if key is None:
                    return
            else:
                if isinstance(outcome, Appended):
                    acknowledged.add((session, outcome.id))
                elif isinstance(outcome, Known):
                    acknowledged.add((session, key))
                return

    async def scenario() -> None:
        drivers = [LossyDriver(data, seed), LossyDriver(data, seed + 1000)]
        async with opened(drivers[0]) as first, opened(drivers[1]) as second:
            await asyncio.gather(*(one((first, second)[task % 2], task, turn) for task in range(6) for turn in range(8)))
        for driver in drivers:
            driver.odds = 1 << 30
            for zombie in driver.zombies:
                await driver.apply(zombie)
        assert len({*drivers[0].faults, *drivers[1].faults}) > 2

    await scenario()
    stored: list[tuple[SessionKey, bytes | str]] = []
    for session, chain in data._chains.items():
        assert [item.head.version for item in chain.records] == list(range(1, len(chain.records) + 1))
        stored += [(session, item.id) for item in chain.records]
        keys = [(session, item.key) for item in chain.records if item.key is not None]
        assert len(keys) == len(set(keys))
        stored += keys
    assert len(stored) == len(set(stored))
    assert acknowledged <= set(stored)
    assert not refused & set(stored)


class Deaf(MemoryDriver):
    """Applies writes and never answers the first `lost` of them."""

    def __init__(self, lost: int) -> None:
        super().__init__(memory())
        self.lost, self.sent = lost, []

    async def write(self, attempts: list[Attempt]) -> list[Answer]:
        self.sent += attempts
        answers = await super().write(attempts)
        if self.lost:
            self.lost -= 1
            raise Unknown("the answer was lost")
        return answers


async def test_a_lost_answer_is_read_back() -> None:
    """A write that landed without an answer is found by its id: one record, one send, an ordinary outcome."""

    driver = Deaf(1)
    async with opened(driver) as backend:
        (outcome,) = await backend.append([behind(S)])
        assert isinstance(outcome, Appended)
        assert outcome.head.version == 1
        assert len(driver.sent) == 1


async def test_what_is_sent_again_is_the_identical_attempt() -> None:
    """While its place is free, a write whose answer was lost is sent again as the very record it was."""

    class Swallowing(MemoryDriver):
        sent: list[Attempt] = []  # noqa: RUF012 - one driver, one test

        async def write(self, attempts):
            self.sent += attempts
            if len(self.sent) < 3:
                raise Unknown("swallowed")
            return await super().write(attempts)

    driver = Swallowing(memory())
    async with opened(driver) as backend:
        (outcome,) = await backend.append([behind(S, key="k")])
        assert isinstance(outcome, Appended)
    assert len(driver.sent) == 3
    assert driver.sent[0] is driver.sent[1] is driver.sent[2]


async def test_while_nobody_can_be_asked_it_is_unknown() -> None:
    """When neither the write nor a read is answered until the time is up, the outcome is `Unknown`; nothing hangs."""

    class Dead(MemoryDriver):
        async def write(self, attempts):
            raise Unknown("no answer")

        async def read(self, *_, **__):
            raise Unavailable("no connection")

    async with opened(Dead(memory()), timeout=0.2) as backend:
        (outcome,) = await backend.append([behind(S)])
        assert isinstance(outcome, Unknown)


@pytest.mark.parametrize("asked", ["read", "written"])
async def test_a_lost_answer_stays_unknown_whatever_the_engine_says_later(asked: str) -> None:
    """The write landed, its answer was lost, the rights are gone when it is looked for, or sent again: nobody may say it was refused."""

    class Revoked(MemoryDriver):
        landed = False

        async def write(self, attempts):
            if self.landed:
                return [Unauthorized("not any more") for _ in attempts]
            self.landed = True
            if asked == "read":
                await super().write(attempts)
            raise Unknown("no answer")

        async def heads(self, sessions):
            if self.landed and asked == "read":
                raise Unauthorized("not any more")
            return await self.backend.heads(sessions)

    async with opened(Revoked(memory()), timeout=5) as backend:
        (outcome,) = await backend.append([behind(S)])
        assert isinstance(outcome, Unknown)


async def test_a_verdict_on_a_remembered_head_is_judged_again() -> None:
    """Another handle moved the head: what is refused on the remembered one is finished on the true one, and a known key is found first."""

    data = memory()
    async with opened(MemoryDriver(data)) as here, opened(MemoryDriver(data)) as there:
        await here.append([behind(S)])
        ((won),) = await there.append([behind(S, key="k")])
        assert isinstance(await first(here.append([expecting(S, won.head)])), Appended)
        assert isinstance(await first(there.append([expecting(S, None, key="k")])), Known)
        refused = await first(there.append([expecting(S, won.head)]))
        assert isinstance(refused, Refused)
        assert refused.head.version == 3


class LandsLate(MemoryDriver):
    """Another's write becomes visible while the heads are read."""

    def __init__(self) -> None:
        super().__init__(memory())
        self.late: Append | None = None

    async def heads(self, sessions):
        await asyncio.sleep(0.01)
        late, self.late = self.late, None
        if late is not None:
            await self.backend.append([late])
        return await self.backend.heads(sessions)


async def test_a_key_that_lands_while_a_refusal_is_judged_is_known() -> None:
    """An append that is refused on a head, up to which its key was applied, is `Known`: keys are looked up behind the heads."""

    driver = LandsLate()
    async with opened(driver) as backend:
        (made,) = await backend.append([behind(S)])
        driver.late = behind(S, key="k")
        (outcome,) = await backend.append([expecting(S, None, key="k")])
        assert isinstance(outcome, Known) and (made.head.version, outcome.version) == (1, 2)


class WaitsForTheHead(MemoryDriver):
    """Its writes look for keys, then wait for the head: what moved it meanwhile is in the head they find, not in the keys."""

    def __init__(self) -> None:
        super().__init__(memory())
        self.late: Append | None = None

    async def apply(self, attempt: Attempt) -> Answer:
        late, self.late = self.late, None
        if late is None:
            return await super().apply(attempt)
        (moved,) = await self.backend.append([late])
        return HeadMismatch(moved.head)


async def test_a_head_that_refuses_a_write_is_asked_for_its_key() -> None:
    """A write is refused by a head that came with the write's own key: that is `Known`, not a conflict."""

    driver = WaitsForTheHead()
    async with opened(driver) as backend:
        driver.late = behind(S, key="k")
        (outcome,) = await backend.append([expecting(S, None, key="k")])
        assert isinstance(outcome, Known) and outcome.version == 1
        driver.late = behind(S, key="other")
        (outcome,) = await backend.append([expecting(S, outcome.head, key="mine")])
        assert isinstance(outcome, Refused) and outcome.head.version == 2


async def test_a_verdict_that_cannot_be_judged_again_is_unavailable() -> None:
    """While neither the head nor the key can be read, the caller gets the engine's own error, not a bundle of them."""

    class Mute(MemoryDriver):
        async def heads(self, sessions):
            raise Unavailable("no connection")

        async def find_key(self, session, key):
            raise Unavailable("no connection")

    async with opened(Mute(memory())) as backend:
        await backend.append([behind(S)])
        assert isinstance(await first(backend.append([expecting(S, None, key="k")])), Unavailable)


@pytest.mark.parametrize("seed", range(8))
async def test_what_clients_saw_has_one_order(seed: int) -> None:
    """Two handles on a network that loses requests and answers: the checker finds an order for all that clients saw."""

    data = memory()
    async with opened(LossyDriver(data, seed), timeout=0.3) as here, opened(LossyDriver(data, seed + 100), timeout=0.3) as there:
        load = Load([here, there], seed=seed)
        await load.more(300)
        await load.stop()
        for backend in (here, there):
            backend.driver.odds = 1 << 62
        await load.check()


async def first(call):
    return (await call)[0]


async def test_what_waits_goes_together() -> None:
    """While one write is under way 63 others wait, and all of them go in the next one."""

    begun, gate, batches = threading.Event(), threading.Event(), []

    class Gated(MemoryDriver):
        async def write(self, attempts):
            batches.append(len(attempts))
            begun.set()
            await asyncio.to_thread(gate.wait)
            return await super().write(attempts)

    async with opened(Gated(memory())) as backend:
        calls = [asyncio.create_task(backend.append([behind(SessionKey("acme", "s0"))]))]
        await asyncio.to_thread(begun.wait)
        calls += [asyncio.create_task(backend.append([behind(SessionKey("acme", f"s{i}"))])) for i in range(1, 64)]
        await asyncio.sleep(0)
        await backend.run(asyncio.sleep(0))
        gate.set()
        await asyncio.gather(*calls)
        assert batches == [1, 63]


async def test_a_write_of_many_is_followed_by_one_of_many() -> None:
    """After a write of 40 the next one waits until 32 have come, or for half the time that the last one took; closing does not wait."""
    now = [0.0]

    class Slow(MemoryDriver):
        async def write(self, attempts):
            sizes.append(len(attempts))
            now[0] += 1_000 if len(attempts) > 1 else 0
            return await super().write(attempts)

    sizes: list[int] = []

    def sessions(start: int, end: int) -> list[Append]:
        return [behind(SessionKey("acme", f"s{number}")) for number in range(start, end)]

    appender = Appender(Slow(memory()), timeout=1e6, tick=lambda: now[0])
    await appender.append(sessions(0, 40))
    few = asyncio.create_task(appender.append(sessions(0, 31)))
    for _ in range(20):
        await asyncio.sleep(0)
    assert sizes == [40]
    await asyncio.gather(few, appender.append(sessions(31, 32)))
    assert sizes == [40, 32]
    last = asyncio.create_task(appender.append(sessions(0, 1)))
    for _ in range(20):
        await asyncio.sleep(0)
    assert sizes == [40, 32]
    await appender.drain()
    assert isinstance((await last)[0], Appended)
    await appender.append(sessions(0, 1))


async def test_close_finishes_what_was_handed_over() -> None:
    """Closing waits for appends under way, refuses later calls with `Closed`, and may be called twice."""

    data = memory()
    async with opened(MemoryDriver(data)) as backend:
        under_way = asyncio.create_task(backend.append([behind(S)]))
        await asyncio.sleep(0)
        await backend.close()
        assert isinstance((await under_way)[0], Appended)
        for call in (backend.append([behind(S)]), backend.heads([S]), backend.load(S)):
            with pytest.raises(Closed):
                await call
    assert len(data._chains[S].records) == 1


async def test_a_driver_that_breaks_breaks_no_one_else() -> None:
    """An unforeseen exception of a driver reaches those who wait for that write; the next append is served."""

    class Broken(MemoryDriver):
        broken = True

        async def write(self, attempts):
            if self.broken:
                raise ZeroDivisionError
            return await super().write(attempts)

    driver = Broken(memory())
    async with opened(driver) as backend:
        outcomes = await backend.append([behind(S), behind(S)])
        assert [type(outcome) for outcome in outcomes] == [ZeroDivisionError] * 2
        driver.broken = False
        (outcome,) = await backend.append([behind(S)])
        assert isinstance(outcome, Appended)
        assert not isinstance(outcome, Error)
