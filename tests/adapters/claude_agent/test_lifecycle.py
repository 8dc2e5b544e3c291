"""Transcripts that expire, and those that keep their newest lines."""

from __future__ import annotations

import pytest

import perdure
from perdure.adapters.claude_agent import PerdureSessionStore
from tests.support.adapters.claude_transcripts import KEY, NAME, SUB, turn
from tests.support.ops.scenarios import DAY, swept
from tests.support.ops.simulated_clock import SimulatedClock


async def test_a_transcript_begins_with_the_policy_and_expires() -> None:
    """It is in the first append, what is set by hand stays; an expired transcript is `None`, and begins again; a deleted one does not."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        sessions = PerdureSessionStore(store, expire_after=DAY)
        await sessions.append(KEY, turn(1))
        await sessions.append(SUB, turn(2))
        assert [commit.kind.name async for commit in store.history(NAME, limit=2)] == ["configure", "data"]
        assert {action for _, action in await swept(store)} == {"looked"}
        clock.advance(days=1, minutes=1)
        assert [action for _, action in await swept(store)] == ["expired", "expired"]
        for reader in (sessions, PerdureSessionStore(store)):
            assert await reader.load(KEY) is None and await reader.load(SUB) is None
            assert await reader.list_sessions(KEY["project_key"]) == []
        await sessions.append(SUB, turn(4))
        for number, writer in enumerate((sessions, PerdureSessionStore(store, expire_after=DAY), sessions), 3):
            await writer.append(KEY, turn(number))
            await writer.append(KEY, turn(number))
        assert await PerdureSessionStore(store).load(KEY) == await sessions.load(KEY) == [*turn(3), *turn(4), *turn(5)]
        assert await sessions.load(SUB) == turn(4)
        assert (await store.policy(NAME)).expire_after == DAY
        await store.configure(NAME, expire_after=2 * DAY)
        await sessions.append(KEY, turn(6))
        assert (await store.policy(NAME)).expire_after == 2 * DAY
        await sessions.delete(KEY)
        with pytest.raises(perdure.Deleted):
            await sessions.append(KEY, turn(7))
        await store.verify(NAME)


async def test_the_newest_lines_are_kept() -> None:
    """With `drop` a transcript begins with the oldest line that is left, goes on, and takes no line twice."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        sessions = PerdureSessionStore(store, keep=5, drop=True)
        for number in range(20):
            await sessions.append(KEY, turn(number))
        assert await swept(store) == [(NAME, "trimmed")]
        left = [line for number in range(15, 20) for line in turn(number)]
        for reader in (sessions, PerdureSessionStore(store)):
            assert await reader.load(KEY) == left
            await reader.append(KEY, turn(19))
        await PerdureSessionStore(store).append(KEY, turn(20))
        assert await sessions.load(KEY) == [*left, *turn(20)]
        await store.verify(NAME)


async def test_lines_are_known_over_the_commits_of_leases() -> None:
    """A lease between two batches is no end of a life: a line that is sent again is there once."""
    async with perdure.open("memory:") as store:
        sessions = PerdureSessionStore(store)
        await sessions.append(KEY, turn(1))
        async with store.lease(NAME, owner="worker"):
            await sessions.append(KEY, turn(2))
        for writer in (sessions, PerdureSessionStore(store)):
            await writer.append(KEY, turn(1))
        assert await sessions.load(KEY) == [*turn(1), *turn(2)]


async def test_values_that_make_no_sense() -> None:
    """They are refused when the store is made."""
    async with perdure.open("memory:") as store:
        for options in ({"expire_after": -1}, {"keep": 0, "drop": True}):
            with pytest.raises(perdure.Invalid):
                PerdureSessionStore(store, **options)  # type: ignore[arg-type]
