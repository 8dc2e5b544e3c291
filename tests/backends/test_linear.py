"""The checker's own test: it accepts what an engine may do and catches engines that are broken."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from perdure.backends.memory import MemoryBackend
from perdure.backends.spi import Append, Appended, Outcome
from perdure.clock import SeededClock
from perdure.errors import Unknown
from tests.backends.test_kit_catches_mutants import KeyTwice, LostUpdate, StaleRead
from tests.support.backends.linearizability import Lookup, Position, Read, Refusal, Write, linearizable
from tests.support.backends.load import Load

A: Position = (1, b"a")
B: Position = (1, b"b")


def test_answers_in_any_order_of_overlapping_calls() -> None:
    """Two appends at once: one wins, the other is told of it, whichever came back first."""
    first = Write(0, None, A, "a", end=9)
    assert linearizable([first, Refusal(1, None, A, "b", end=2), Read(3, A, end=4)])
    assert linearizable([first, Read(1, None, end=2), Read(3, A, end=4), Lookup(5, "a", 1, end=6), Lookup(0, "b", None, end=9)])


def test_what_no_order_explains() -> None:
    """Two winners, a stale read after an acknowledgement, a refusal by a head that nobody made, a key that is forgotten."""
    first = Write(0, None, A, "a", end=1)
    assert not linearizable([first, Write(0, None, B, "b", end=1)])
    assert not linearizable([first, Read(2, None, end=3)])
    assert not linearizable([first, Refusal(2, None, B, "b", end=3)])
    assert not linearizable([first, Lookup(2, "a", None, end=3)])
    assert not linearizable([first, Write(2, A, (2, b"c"), "a", end=3)])


def test_a_call_without_an_answer_may_happen_later_or_never_or_once() -> None:
    """It explains a head that appears late; it is not needed; it cannot go away again."""
    unknown = Write(0, None, A, "a")
    assert linearizable([unknown, Read(5, None, end=6), Read(7, A, end=8)])
    assert linearizable([unknown, Write(1, None, B, "b", end=2)])
    assert not linearizable([unknown, Read(5, A, end=6), Read(7, None, end=8)])


class LostAck(MemoryBackend):
    """Acknowledges every fiftieth append and forgets it."""

    _count = 0

    async def append(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
        self._count += 1
        chain = self._chains.get(appends[0].session)
        kept = None if chain is None else list(chain.records)
        outcomes = await super().append(appends)
        if self._count % 50 == 0 and kept and isinstance(outcomes[0], Appended):
            self._chains[appends[0].session].records[:] = kept
        return outcomes


class Liar(MemoryBackend):
    """Says now and then that it does not know, having stored the record: as it may."""

    _count = 0

    async def append(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
        self._count += 1
        await asyncio.sleep(0)
        outcomes = await super().append(appends)
        return [Unknown("The answer was cut.") for _ in outcomes] if self._count % 10 == 0 else outcomes


async def history(kind: type[MemoryBackend], *arguments: Any) -> None:
    """Clients at one engine for a while, then the check."""
    backend = kind(*arguments)
    load = Load([backend])
    await load.more(600)
    await load.stop()
    await load.check()


@pytest.mark.parametrize("kind", [MemoryBackend, Liar])
async def test_a_sound_engine_passes(kind: type[MemoryBackend]) -> None:
    """The memory engine, also when answers are lost, passes under many clients."""
    await history(kind, SeededClock(1))


@pytest.mark.parametrize("kind", [LostUpdate, StaleRead, KeyTwice, LostAck])
async def test_a_broken_engine_is_caught(kind: Any) -> None:
    """An unconditional write, a stale read, a key applied twice, a lost acknowledgement: each fails."""

    class Broken(kind):  # type: ignore[misc]
        """The broken engine, whose calls take turns and sometimes lose their answers."""

        _turn = 0

        async def append(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
            self._turn += 1
            await asyncio.sleep(0)
            outcomes = await super().append(appends)
            return [Unknown("The answer was cut.") for _ in outcomes] if self._turn % 10 == 0 else outcomes

    with pytest.raises((AssertionError, TimeoutError)):
        await history(Broken, *([SeededClock(1)] if kind is LostAck else []))
