"""The upgrade in steps, on a header in memory: its lock, its order, and what becomes of those that are killed or slow."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from perdure.backends.common.upgrade import SchemaState, require_writer, upgrade
from perdure.errors import Busy, Invalid

SECONDS = 0.2
"""How long a lock stands still here before it is taken over."""


class Memory:
    """A header that several share. `seen` is every state that it had."""

    def __init__(self, state: SchemaState) -> None:
        self.state = state
        self.seen: list[SchemaState] = []

    async def read(self) -> SchemaState:
        await asyncio.sleep(0)
        return self.state

    async def swap(self, old: SchemaState, new: SchemaState) -> bool:
        await asyncio.sleep(0)
        if self.state != old:
            return False
        self.state = new
        self.seen.append(new)
        return True


def ignored(what: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


async def test_the_order() -> None:
    """First the lock and the writers, then the steps, then the schema; the lock is free in the end, and progress was said."""
    headers, said = Memory(SchemaState(1)), list[tuple[str, int, int]]()

    async def step() -> None:
        assert (headers.state.schema, headers.state.min_writer, bool(headers.state.lock)) == (1, 2, True)

    await upgrade(headers, 1, [("rows", step), ("index", step)], lambda *said_now: said.append(said_now))
    assert headers.state == SchemaState(2, 2)
    assert said == [("rows", 0, 2), ("index", 1, 2), ("writing it down", 2, 2)]


async def test_nothing_to_do_and_no_way() -> None:
    """A store that is upgraded already stays as it is; one of another schema is refused."""
    headers = Memory(SchemaState(2, 2))
    await upgrade(headers, 1, [], ignored)
    with pytest.raises(Invalid):
        await upgrade(headers, 3, [], ignored)
    assert not headers.seen


async def test_writers_settle_before_the_first_step() -> None:
    """No step begins before every writer has had the time to see the new least version."""
    headers, begun = Memory(SchemaState(1)), list[int]()

    async def step() -> None:
        begun.append(headers.state.min_writer)

    waiting = asyncio.create_task(upgrade(headers, 1, [("rows", step)], ignored, settle_seconds=3_600))
    await asyncio.sleep(SECONDS)
    assert (headers.state.min_writer, begun) == (2, [])
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_a_second_one_is_busy_while_the_first_works() -> None:
    """However long a step takes: while its holder lives, the lock is not taken over."""
    headers, going, end = Memory(SchemaState(1)), asyncio.Event(), asyncio.Event()

    async def long() -> None:
        going.set()
        await end.wait()

    first = asyncio.create_task(upgrade(headers, 1, [("rows", long)], ignored, lock_seconds=SECONDS))
    await going.wait()
    for _ in range(2):
        with pytest.raises(Busy, match="at work"):
            await upgrade(headers, 1, [], ignored, lock_seconds=SECONDS)
    end.set()
    await first
    assert headers.state == SchemaState(2, 2)


@pytest.mark.parametrize("steps_done", [0, 1, 2])
async def test_a_killed_one_is_taken_over(steps_done: int) -> None:
    """Who was killed leaves its lock: the next one takes it when it stood still for long enough, and does every step."""
    headers, done, last = Memory(SchemaState(1)), list[int](), asyncio.Event()

    async def dies() -> None:
        last.set()
        await asyncio.Event().wait()

    async def step(number: int) -> None:
        done.append(number)

    steps = [("a step", lambda number=number: step(number)) for number in range(2)]
    dying = asyncio.create_task(upgrade(headers, 1, [*steps[:steps_done], ("the last", dies)], ignored, lock_seconds=SECONDS))
    await last.wait()
    dying.cancel()
    await asyncio.wait([dying])
    assert headers.state.schema == 1
    done.clear()
    await upgrade(headers, 1, steps, ignored, lock_seconds=SECONDS)
    assert done == [0, 1]
    assert headers.state == SchemaState(2, 2)


async def test_one_that_lost_its_lock_stops() -> None:
    """Who stood still and comes back finds that another took over: its step is stopped, and it writes no schema."""
    headers, going = Memory(SchemaState(1)), asyncio.Event()

    async def long() -> None:
        going.set()
        await asyncio.Event().wait()

    slow = asyncio.create_task(upgrade(headers, 1, [("rows", long)], ignored, lock_seconds=SECONDS))
    await going.wait()
    headers.state = msgspec.structs.replace(headers.state, lock="another", count=0)
    with pytest.raises(Busy, match="took this one over"):
        await slow
    assert headers.state.schema == 1
    assert headers.state.lock == "another"


async def test_a_step_that_fails_leaves_the_old_schema() -> None:
    """What a step raises is raised; the store has the old schema, and the next upgrade goes through."""
    headers = Memory(SchemaState(1))

    async def fails() -> None:
        raise Invalid("no")

    with pytest.raises(Invalid):
        await upgrade(headers, 1, [("rows", fails)], ignored, lock_seconds=SECONDS)
    assert headers.state.schema == 1
    await upgrade(headers, 1, [], ignored, lock_seconds=SECONDS)
    assert headers.state.schema == 2


async def test_the_least_writer_never_falls() -> None:
    """Of two that require writers at once the newer one holds."""
    headers = Memory(SchemaState(2, 2))
    await asyncio.gather(*[require_writer(headers, version) for version in (3, 5, 4, 1)])
    assert headers.state == SchemaState(2, 5)
