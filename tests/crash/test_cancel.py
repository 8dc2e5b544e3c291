"""Cancellation at every await: a commit or nothing, a store that goes on, and no task, thread or future left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
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
    "read": lambda store: store.read("s"),
    "history": history,
    "verify": lambda store: store.verify("s"),
}


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
@pytest.mark.parametrize("name", CALLS)
def test_a_cancelled_call_is_whole_or_absent(name: str, engine: str, tmp_path: Path) -> None:
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
            if name in ("append", "append with operations", "edit", "update"):
                await CALLS[name](store)
                again = await store.read("s")
                assert again.version == 2
                assert again.state["list"] == ([] if name == "append" else ["x"])
            await store.verify("s")
            await store.append("s", Event("after", None, (op.add("/n", 1),)))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def all_steps() -> None:
        for steps in range(STEPS):
            await at(steps)

    asyncio.run(all_steps())
    assert threading.active_count() == threads


def test_a_cancelled_wait_for_a_turn_lets_the_next_one_in(tmp_path: Path) -> None:
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

    asyncio.run(asyncio.wait_for(run(), 30))
