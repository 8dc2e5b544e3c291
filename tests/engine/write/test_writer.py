"""Group commit: what waits for what."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from typing import ClassVar

import msgspec
import pytest

from perdure.backends.conformance import behind
from perdure.backends.memory import MemoryBackend
from perdure.backends.spi import Append, Appended, Capabilities, Outcome
from perdure.clock import SeededClock
from perdure.engine.write.writer import Writer
from perdure.errors import TooLarge
from perdure.model.ids import SessionKey
from perdure.telemetry import Telemetry

FIRST, SLOW = SessionKey("acme", "first"), SessionKey("acme", "slow")


class Uneven(MemoryBackend):
    """An engine that answers a call with a slow session in it late."""

    batched = True

    def __init__(self) -> None:
        super().__init__(SeededClock(1))
        self.gate = asyncio.Event()
        self.calls = 0

    @property
    def capabilities(self) -> Capabilities:
        return msgspec.structs.replace(super().capabilities, batched=self.batched)

    async def append(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
        self.calls += 1
        if any(append.session in (FIRST, SLOW) for append in appends):
            await self.gate.wait()
        return await super().append(appends)


@pytest.mark.parametrize("batched", [True, False])
async def test_appends_of_an_engine_that_writes_each_by_itself_do_not_wait_for_one_another(batched: bool) -> None:
    """Where a call makes one write of several appends, they are handed over together; else each alone, and the slow one holds up nobody."""

    backend = Uneven()
    backend.batched = batched
    writer = Writer(backend, Telemetry(lambda: 0.0))
    sessions = [SessionKey("acme", f"s{number}") for number in range(5)]
    lone = asyncio.create_task(writer.append(behind(FIRST)))
    tasks = [asyncio.create_task(writer.append(behind(session))) for session in [SLOW, *sessions]]
    await asyncio.sleep(0.05)
    assert backend.calls == (2 if batched else 7)
    assert [task.done() for task in tasks] == [False, *[not batched] * 5]
    backend.gate.set()
    assert all(isinstance(outcome, Appended) for outcome in await asyncio.gather(lone, *tasks))


async def test_appends_of_different_servers_do_not_wait_for_one_another() -> None:
    """Where an engine spreads sessions over servers, those of each server are passed on together, and a slow one holds up no other."""

    class Two(Uneven):
        given: ClassVar[list[list[str]]] = []

        def server_of(self, session: SessionKey) -> Hashable:
            return session == SLOW or int(session.id[1:]) % 2

        async def append(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
            self.given.append([append.session.id for append in appends])
            return await super().append(appends)

    backend = Two()
    writer = Writer(backend, Telemetry(lambda: 0.0))
    lone = await held_up(writer)
    tasks = {id: asyncio.create_task(writer.append(behind(SessionKey("acme", id)))) for id in ("s0", "slow", "s1", "s2")}
    await asyncio.wait([tasks["s0"], tasks["s2"]], timeout=30)
    assert backend.given == [["first"], ["s0", "s2"], ["slow", "s1"]]
    assert {id: task.done() for id, task in tasks.items()} == {"s0": True, "slow": False, "s1": False, "s2": True}
    backend.gate.set()
    assert all(isinstance(outcome, Appended) for outcome in await asyncio.gather(lone, *tasks.values()))


async def test_those_who_were_answered_together_go_together_again() -> None:
    """After a crowd none of it goes ahead alone: a turn of all sessions is one call. A writer that is alone again goes at once."""

    class Counted(MemoryBackend):
        sizes: list[int]

        async def append(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
            self.sizes.append(len(appends))
            await asyncio.sleep(0)
            return await super().append(appends)

    backend = Counted(SeededClock(1))
    backend.sizes = []
    writer = Writer(backend, Telemetry(lambda: 0.0))

    async def session(number: int) -> None:
        for _ in range(5):
            await writer.append(behind(SessionKey("acme", f"s{number}")))

    await asyncio.gather(*[session(number) for number in range(8)])
    assert sum(backend.sizes) == 40
    assert len(backend.sizes) <= 7
    backend.sizes.clear()
    await writer.append(behind(FIRST))
    await writer.append(behind(FIRST))
    assert backend.sizes == [1, 1]
    assert not writer._queue(asyncio.get_running_loop()).batching


class Held(MemoryBackend):
    """An engine whose first call waits for a gate; it remembers what it was given."""

    def __init__(self) -> None:
        super().__init__(SeededClock(1))
        self.gate = asyncio.Event()
        self.given: list[list[SessionKey]] = []

    async def append(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
        self.given.append([append.session for append in appends])
        if len(self.given) == 1:
            await self.gate.wait()
        return await super().append(appends)


async def held_up(writer: Writer) -> asyncio.Task[Outcome]:
    """An append that has to wait, so that the next ones go as a batch."""
    lone = asyncio.create_task(writer.append(behind(FIRST)))
    await asyncio.sleep(0)
    return lone


async def test_what_cannot_be_made_fails_for_its_caller_alone() -> None:
    """An append that is too large is refused when the batch is made; the others of the batch are stored."""
    backend = Held()
    writer = Writer(backend, Telemetry(lambda: 0.0))
    lone = await held_up(writer)

    def make(session: SessionKey) -> Append:
        if session == SLOW:
            raise TooLarge(size=2, limit=1)
        return behind(session)

    sessions = [SessionKey("acme", "a"), SLOW, SessionKey("acme", "b")]
    first, failed, last = await asyncio.gather(*[writer.submit(make, session) for session in sessions])
    assert isinstance(failed, TooLarge)
    assert isinstance(first, Appended)
    assert isinstance(last, Appended)
    assert backend.given[1] == [sessions[0], sessions[2]]
    backend.gate.set()
    await lone


async def test_a_cancelled_caller_is_neither_waited_for_nor_sent() -> None:
    """Whoever is cancelled before the batch goes writes nothing, and nothing is made for it."""
    backend = Held()
    writer = Writer(backend, Telemetry(lambda: 0.0))
    lone = await held_up(writer)
    made: list[SessionKey] = []

    def make(session: SessionKey) -> Append:
        made.append(session)
        return behind(session)

    stays, goes = [asyncio.ensure_future(writer.submit(make, session)) for session in (SessionKey("acme", "stays"), SLOW)]
    goes.cancel()
    assert isinstance(await stays, Appended)
    assert made == [SessionKey("acme", "stays")]
    backend.gate.set()
    await lone


async def test_what_was_stored_is_noted_once_a_batch_before_anyone_is_answered() -> None:
    """Sessions and versions of all that was stored, in one call; what was refused is not among them."""
    noted: list[dict[SessionKey, int]] = []
    backend = Held()
    writer = Writer(backend, Telemetry(lambda: 0.0), lambda versions: noted.append(dict(versions)))
    lone = await held_up(writer)
    refused = Append(SLOW, lambda head: None)

    async def append(session: SessionKey) -> int:
        await writer.append(behind(session))
        return len(noted)

    sessions = [SessionKey("acme", "a"), SessionKey("acme", "b")]
    *counts, _ = await asyncio.gather(*[append(session) for session in sessions], writer.append(refused))
    assert noted == [dict.fromkeys(sessions, 1)]
    assert counts == [1, 1]
    backend.gate.set()
    await lone
    assert noted[1] == {FIRST: 1}
