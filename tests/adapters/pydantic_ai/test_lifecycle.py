"""Runs, conversations and notes that expire, and those that keep some of their commits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic_ai.messages import ModelMessage, ModelRequest, UserPromptPart
from pydantic_ai_harness.step_persistence import ContinuableSnapshot, RunRecord

import perdure
from perdure.adapters.pydantic_ai import PerdureMemoryStore, PerdureStepStore
from tests.support.ops.scenarios import DAY, swept
from tests.support.ops.simulated_clock import SimulatedClock

RUN, CONVERSATION = "pydantic-ai/runs/r", "pydantic-ai/conversations/trip"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def messages(*texts: str) -> list[ModelMessage]:
    return [ModelRequest(parts=[UserPromptPart(text)]) for text in texts]


def snapshot(held: list[ModelMessage], step: int = 0) -> ContinuableSnapshot:
    return ContinuableSnapshot(run_id="r", step_index=step, messages=held, conversation_id="trip")


def texts(found: ContinuableSnapshot | None) -> list[Any]:
    assert found is not None
    return [part.content for message in found.messages for part in message.parts]  # type: ignore[union-attr]


async def test_runs_and_conversations_begin_with_the_policy_and_expire() -> None:
    """It is in each first append, and what is set by hand stays. What expired is not there; what is written begins it again."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        steps = PerdureStepStore(store, expire_after=DAY)
        record = RunRecord(run_id="r", agent_name="a", started_at=NOON, conversation_id="trip")
        await steps.register_run(record)
        await steps.save_snapshot(snapshot(messages("one", "two")))
        for session in (RUN, CONVERSATION):
            assert [commit.kind.name async for commit in store.history(session, limit=2)] == ["configure", "data"]
        assert await swept(store) == [(CONVERSATION, "looked"), (RUN, "looked")]
        clock.advance(days=1, minutes=1)
        assert await swept(store) == [(CONVERSATION, "expired"), (RUN, "expired")]
        for reader in (steps, PerdureStepStore(store)):
            assert await reader.get_run(run_id="r") is None and await reader.latest_snapshot(run_id="r") is None
            assert await reader.list_runs() == [] and await reader.history("trip") == []
        for number, writer in enumerate((steps, PerdureStepStore(store, expire_after=DAY), steps)):
            await writer.save_snapshot(snapshot(messages("one", "two", f"{number}"), number))
            assert texts(await PerdureStepStore(store).latest_snapshot(run_id="r")) == ["one", "two", f"{number}"]
        assert (await store.policy(RUN)).expire_after == (await store.policy(CONVERSATION)).expire_after == DAY
        await store.configure(CONVERSATION, expire_after=2 * DAY)
        await steps.save_snapshot(snapshot(messages("three"), 5))
        assert (await store.policy(CONVERSATION)).expire_after == 2 * DAY
        await store.verify(CONVERSATION)


async def test_a_snapshot_whose_conversation_expired_is_not_there() -> None:
    """A run that lives on names messages that are gone: it has no snapshot, until the next one is saved."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        steps = PerdureStepStore(store, expire_after=DAY)
        await steps.save_snapshot(snapshot(messages("one")))
        await store.configure(RUN, expire_after=None)
        await swept(store)
        clock.advance(days=2)
        assert await swept(store) == [(CONVERSATION, "expired")]
        assert await steps.latest_snapshot(run_id="r") is None and await steps.list_snapshots(run_id="r") == []
        await steps.save_snapshot(snapshot(messages("one", "two"), 1))
        assert texts(await steps.latest_snapshot(run_id="r")) == ["one", "two"]
        assert len(await steps.list_snapshots(run_id="r")) == 1


async def test_the_newest_snapshots_and_messages_are_kept() -> None:
    """With `drop` a snapshot has the messages that are left, in their order; the conversation goes on, and no number is given twice."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        steps = PerdureStepStore(store, keep=5, drop=True)
        held: list[ModelMessage] = []
        for number in range(20):
            held += messages(f"{number}")
            await steps.save_snapshot(snapshot(held, number))
        assert await swept(store) == [(CONVERSATION, "trimmed"), (RUN, "trimmed")]
        for reader in (steps, PerdureStepStore(store)):
            assert texts(await reader.latest_snapshot(run_id="r")) == [f"{number}" for number in range(15, 20)]
            assert [found.step_index for found in await reader.list_snapshots(run_id="r")] == [15, 16, 17, 18, 19]
        await PerdureStepStore(store).save_snapshot(snapshot(messages("18", "19", "20"), 20))
        assert texts(await steps.latest_snapshot(run_id="r")) == ["18", "19", "20"]
        await store.verify(CONVERSATION)


async def test_a_directory_of_notes_expires_and_begins_again() -> None:
    """The memory store takes the policy too; a directory that was deleted by hand stays deleted."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        notes = PerdureMemoryStore(store, expire_after=DAY, keep=9, drop=True)
        for _ in range(2):
            await notes.write("ann/plan.md", "Rome", expected_version=None)
            await swept(store)
            clock.advance(days=2)
            assert await swept(store) == [("pydantic-ai/memory/ann", "expired")]
            assert await notes.read("ann/plan.md", max_chars=9) is None and await notes.list_paths(limit=9) == []
        await notes.write("bob/plan.md", "Oslo", expected_version=None)
        await store.delete("pydantic-ai/memory/bob")
        with pytest.raises(perdure.Deleted):
            await notes.write("bob/plan.md", "Oslo", expected_version=None)


@pytest.mark.parametrize("made", [PerdureStepStore, PerdureMemoryStore])
async def test_values_that_make_no_sense(made: Any) -> None:
    """They are refused when the object is made."""
    async with perdure.open("memory:") as store:
        for options in ({"expire_after": -1}, {"keep": 0, "drop": True}):
            with pytest.raises(perdure.Invalid):
                made(store, **options)
        with pytest.raises(perdure.Unsupported, match="archive="):
            made(store, keep=5)
