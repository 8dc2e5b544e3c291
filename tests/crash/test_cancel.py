"""Cancellation at every await: a commit or nothing, a store that goes on, and no task, thread or future left behind."""

from __future__ import annotations

import asyncio
import functools
import threading
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event, op

STEPS = 14


async def edit(store: perdure.Store) -> None:
    async with store.edit("s", key="the-call") as draft:
        draft.state["list"].append("x")


async def history(store: perdure.Store) -> None:
    async for _ in store.history("s"):
        pass


CALLS: dict[str, Callable[[perdure.Store], Awaitable[Any]]] = {
    "append": lambda store: store.append("s", Event("x"), key="the-call"),
    "append with operations": lambda store: store.append("s", Event("x", None, (op.append("/list", ["x"]),)), key="the-call"),
    "edit": edit,
    "update": lambda store: store.update("s", lambda draft: draft.state["list"].append("x"), key="the-call"),
    "fork": lambda store: store.fork("s", id="child"),
    "configure": lambda store: store.configure("s", tags={"a": "b"}),
    "configure a policy": lambda store: store.configure("s", expire_after=60, tags={"a": "b"}),
    "read": lambda store: store.read("s"),
    "history": history,
    "verify": lambda store: store.verify("s"),
}
WRITES = {"append", "append with operations", "edit", "update"}
"""Those with a key."""
CHANGES = WRITES - {"append"}
READS = {"read", "history", "verify"}


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
@pytest.mark.parametrize("name", CALLS)
async def test_a_cancelled_call_is_whole_or_absent(name: str, engine: str, tmp_path: Path) -> None:
    """Cancelled after any number of the loop's turns, the call has made one commit or none, and sent again it makes one in all."""
    threads = threading.active_count()

    async def at(steps: int) -> None:
        url = "memory:" if engine == "memory" else f"sqlite:///{tmp_path}/{steps}.db"
        async with perdure.open(url) as store:
            await store.append("s", Event("start", None, (op.set("/list", []),)))
            task = asyncio.ensure_future(CALLS[name](store))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            view = await store.read("s")
            assert view.version in (1, 2)
            assert view.state["list"] in ([], ["x"])
            if name in WRITES:
                await CALLS[name](store)
                again = await store.read("s")
                assert again.version == 2
                assert again.state["list"] == ([] if name == "append" else ["x"])
            await store.verify("s")
            await store.append("s", Event("after", None, (op.add("/n", 1),)))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    for steps in range(STEPS):
        await at(steps)
    assert threading.active_count() == threads


@types.coroutine
def cancelled_at(coroutine: Coroutine[Any, Any, Any], number: int, reached: list[int], *, late: bool) -> Generator[Any, Any, Any]:
    """Run a coroutine and cancel it at its suspension of this number (from 0): while it waits or, `late`, when its answer has come and
    it was about to go on. `reached` gets the numbers of all suspensions."""
    send: Callable[[], Any] = functools.partial(coroutine.send, None)
    try:
        while True:
            waiting = send()
            reached.append(len(reached))
            if reached[-1] == number and not late:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                yield waiting
            except BaseException as error:  # noqa: BLE001 - handed on to where it belongs
                send = functools.partial(coroutine.throw, error)
            else:
                send = functools.partial(coroutine.send, None)
            if reached[-1] == number and late:
                send = functools.partial(coroutine.throw, asyncio.CancelledError())
    except StopIteration as stop:
        return stop.value


@pytest.mark.parametrize("late", [False, True], ids=["waiting", "answered"])
@pytest.mark.parametrize("busy", [False, True], ids=["alone", "among others"])
@pytest.mark.parametrize("name", CALLS)
async def test_cancelled_at_each_of_its_awaits(name: str, busy: bool, late: bool, tmp_path: Path) -> None:
    """At every single await, with its answer still on the way or just there: one commit or none, the calls beside it finish, and sent
    again it makes one in all."""
    threads = set(threading.enumerate())

    async def at(number: int) -> bool:
        reached: list[int] = []
        async with perdure.open(f"sqlite:///{tmp_path}/{number}.db") as store:
            await store.append("s", Event("start", None, (op.set("/list", []),)))
            beside = [asyncio.ensure_future(store.append("s" if index == 2 else f"o{index}", Event("x"))) for index in range(3 * busy)]
            await asyncio.sleep(0)

            async def call() -> None:
                await CALLS[name](store)

            task = asyncio.ensure_future(call_as_task(cancelled_at(call(), number, reached, late=late)))
            (ended,) = await asyncio.gather(task, return_exceptions=True)
            was_reached = len(reached) > number
            assert isinstance(ended, asyncio.CancelledError) == was_reached, ended
            for receipt in await asyncio.gather(*beside):
                assert isinstance(receipt, perdure.Receipt)
            before = await store.read("s")
            own = before.version - 1 - busy
            assert own in ((0, 1) if was_reached else (0,) if name in READS else (1,))
            assert before.state["list"] == (["x"] * own if name in CHANGES else [])
            if name in WRITES:
                await CALLS[name](store)
                again = await store.read("s")
                assert again.version == 2 + busy
                assert again.state["list"] == (["x"] if name in CHANGES else [])
            await store.verify("s")
            await store.append("s", Event("after", None, (op.add("/n", 1),)))
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return was_reached

    async def everywhere() -> int:
        number = met = misses = 0
        while misses < (3 if met else 50):  # An answer can be there before it is waited for.
            if await at(number):
                met, misses = met + 1, 0
            else:
                misses += 1
            number += 1 if met else 0
        return met

    assert await everywhere() > 0
    assert set(threading.enumerate()) == threads


async def call_as_task(awaitable: Awaitable[Any]) -> Any:
    """A coroutine, as tasks want one."""
    return await awaitable


async def test_a_cancelled_wait_for_a_turn_lets_the_next_one_in(tmp_path: Path) -> None:
    """Of many edits queued on one session, cancelling some leaves the others to finish."""

    async def run() -> None:
        async with perdure.open(f"sqlite:///{tmp_path}/store.db") as store:
            await store.append("s", Event("start"))
            calls = [asyncio.ensure_future(store.append("s", Event("n", None, (op.add("/n", 1),)))) for _ in range(30)]
            await asyncio.sleep(0)
            for call in calls[1::3]:
                call.cancel()
            done = await asyncio.gather(*calls, return_exceptions=True)
            kept = sum(isinstance(answer, perdure.Receipt) for answer in done)
            counted = (await store.read("s")).state["n"]
            assert kept == 20
            assert kept <= counted <= 30

    await asyncio.wait_for(run(), 30)
