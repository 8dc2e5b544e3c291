"""A store that has lost its newest commits, as after a failover that drops some or from an older backup: who built on them is told."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

import perdure
from perdure import Event, Rewound, Store, op


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


async def put(store: Store, name: str) -> perdure.Receipt:
    async with store.edit("s") as draft:
        draft.state[name] = True
    assert draft.receipt is not None
    return draft.receipt


async def nothing(_: Store) -> None:
    """The session is as it was before."""


async def read(store: Store) -> None:
    await store.read("s")


@pytest.mark.parametrize("overtaken", [0, 1, 2])
@pytest.mark.parametrize("meanwhile", [nothing, read])
async def test_an_edit_begun_on_a_commit_that_is_gone_is_rewound(overtaken: int, meanwhile: Callable[[Store], Awaitable[None]]) -> None:
    """Whether the chain is shorter now, as long or longer, and whether the store has looked at it since: nothing is written, the state is
    what the chain gives, and the next edit works."""

    async with perdure.open("memory:") as store:
        engine: Any = store._core.backend
        await put(store, "kept")
        backup = copy.deepcopy(engine._chains)
        lost = await put(store, "lost")
        edit = store.edit("s")
        draft = await edit.__aenter__()
        draft.state["built"] = "on what is lost"
        engine._chains = backup
        for number in range(overtaken):
            await store.append("s", Event("put", None, (op.set(f"/{number}", True),)))
        await meanwhile(store)
        with pytest.raises(Rewound, match="version 2"):
            await edit.__aexit__(None, None, None)
        view = await store.read("s")
        assert view.state == {"kept": True} | {str(number): True for number in range(overtaken)}
        assert view.hash != lost.hash
        assert (await put(store, "next")).version == overtaken + 2
        assert (await store.verify("s")).version == overtaken + 2


async def test_an_edit_of_a_session_that_is_gone_altogether_is_rewound() -> None:
    """It does not start the session anew."""

    async with perdure.open("memory:") as store:
        engine: Any = store._core.backend
        backup = copy.deepcopy(engine._chains)
        await put(store, "lost")
        edit = store.edit("s")
        draft = await edit.__aenter__()
        draft.state["built"] = "on what is lost"
        engine._chains = backup
        with pytest.raises(Rewound):
            await edit.__aexit__(None, None, None)
        with pytest.raises(perdure.NotFound):
            await store.read("s")
