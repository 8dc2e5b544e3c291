"""Changes that are decided on what a session holds: made again when others came first, and given up as `Busy`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import perdure
from perdure import AlreadyExists, Busy, Conflict, Deleted, Event, NotFound, op
from perdure.adapters.common import transactions
from perdure.adapters.common.transactions import ATTEMPTS, Overtaken, delete_if_there, lost_race, read_or_none, transact
from perdure.concurrency.replies import run_blocking


@pytest.mark.parametrize("run", [asyncio.run, run_blocking])
def test_it_is_tried_again_until_nobody_else_is_first(run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
    """The first attempt goes by what is remembered, the others are told that it is old; the answer is that of the last."""
    asked: list[bool] = []

    async def attempt(again: bool) -> int:
        asked.append(again)
        if len(asked) < 4:
            raise Overtaken
        return len(asked)

    assert run(transact("s", attempt)) == 4
    assert asked == [False, True, True, True]


async def test_who_always_comes_second_is_told_how_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last attempt it is `Busy`, with the number of tries, and may be sent again."""
    monkeypatch.setattr(transactions, "PAUSE_MAX", 0.0)
    count = 0

    async def attempt(again: bool) -> None:
        nonlocal count
        count += 1
        raise Overtaken

    with pytest.raises(Busy, match=f"{ATTEMPTS} tries .* session 'trip' were overtaken") as busy:
        await transact("trip", attempt)
    assert count == busy.value.tries == ATTEMPTS
    assert busy.value.session == "trip"
    assert busy.value.retryable


def test_only_the_errors_that_are_named_are_a_lost_race() -> None:
    """An error of a named class becomes `Overtaken`, with its cause; every other one stays what it is."""
    with pytest.raises(Overtaken) as overtaken, lost_race(AlreadyExists, Conflict):
        raise Conflict("late")
    assert isinstance(overtaken.value.__cause__, Conflict)
    for error in (Deleted("gone"), ValueError("other")):
        with pytest.raises(type(error)), lost_race(AlreadyExists, Conflict):
            raise error


async def test_other_errors_of_an_attempt_are_raised_at_once() -> None:
    """What is not a lost race is not tried again, a `Conflict` from a decision neither."""
    count = 0

    async def attempt(again: bool) -> None:
        nonlocal count
        count += 1
        raise Conflict("decided so")

    with pytest.raises(Conflict, match="decided so"):
        await transact("s", attempt)
    assert count == 1


async def test_many_writers_all_get_through() -> None:
    """Forty writers that each count one up from what they read leave forty: none is lost, none gives up."""

    async with perdure.open("memory:") as store:
        await store.append("s", Event("begun", None, (op.set("/n", 0),)))

        async def attempt(again: bool) -> None:
            view = await store.read("s", consistency="strong" if again else "eventual")
            with lost_race(Conflict):
                count = Event("counted", None, (op.set("/n", view.state["n"] + 1),))
                await store.append("s", count, expect=view.version, on_conflict="raise")

        await asyncio.gather(*[transact("s", attempt) for _ in range(40)])
        assert (await store.read("s")).state == {"n": 40}


async def test_what_is_not_there_is_none() -> None:
    """A session that was never written and one that was deleted read as `None`, and are not deleted again."""
    async with perdure.open("memory:") as store:
        assert await read_or_none(store, "s") is None
        assert await delete_if_there(store, "s") is False
        await store.append("s", Event("begun", None, (op.set("/n", 1),)))
        found = await read_or_none(store, "s", strong=False)
        assert found is not None and found.state == {"n": 1}
        assert await delete_if_there(store, "s", actor="ann") is True
        assert await read_or_none(store, "s") is None
        assert await delete_if_there(store, "s") is False
        with pytest.raises(Deleted):
            await store.read("s")
        with pytest.raises(NotFound):
            await store.read("t")
