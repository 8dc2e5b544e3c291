"""A strong read, `find` and an edit come after the writes of this store that were cancelled on their way, on every engine."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

import perdure
from perdure import Event, op
from tests.servers.fixture import Servers
from tests.servers.process import Server
from tests.support.backends.engines import ENGINES, Engine

ROUNDS = 40


async def cancelled(store: perdure.Store, number: int, rng: random.Random) -> None:
    """An append or an edit that is cancelled somewhere between its start and its end."""

    async def edit() -> None:
        async with store.edit("s", key=f"k{number}") as draft:
            draft.add("/n", 1)

    if rng.random() < 0.5:
        task: asyncio.Task[object] = asyncio.create_task(edit())
    else:
        task = asyncio.create_task(store.append("s", Event("x", None, (op.add("/n", 1),)), key=f"k{number}"))
    for _ in range(rng.randint(1, 6)):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def nothing_lands_later(url: str) -> None:
    rng = random.Random(5)
    async with perdure.open(url) as store, perdure.open(url) as other:
        await store.append("s", Event("start", None, (op.set("/n", 0),)))
        stored = 0
        for number in range(ROUNDS):
            await cancelled(store, number, rng)
            first = rng.choice(("read", "find", "edit", "history"))
            if first == "read":
                seen = (await store.read("s")).version
            elif first == "find":
                found = await store.find("s", f"k{number}")
                seen = (await store.read("s")).version
                assert (await store.find("s", f"k{number}") is None) == (found is None)
            elif first == "history":
                seen = [commit.version async for commit in store.history("s")][-1]
            else:
                async with store.edit("s") as draft:
                    seen = draft.version
            # Another store asks the server, and the engine's queue is empty: what is there now is all that will be.
            await store.append("other", Event("x"))
            view = await other.read("s")
            assert view.version == seen
            stored += await other.find("s", f"k{number}") is not None
            assert view.state == {"n": stored}
        assert stored > 0


@pytest.mark.parametrize("engine", ENGINES, ids=str)
async def test_nothing_lands_after_a_strong_read(engine: Engine, servers: Servers[Server]) -> None:
    """What a strong read, a find, a history or an edit showed after a cancelled append or edit is how it stays."""
    await nothing_lands_later(engine.url(servers(engine.server)))


async def test_nothing_lands_after_a_strong_read_of_a_file(tmp_path: object) -> None:
    """The same on SQLite."""
    await nothing_lands_later(f"sqlite:///{tmp_path}/store.db")
