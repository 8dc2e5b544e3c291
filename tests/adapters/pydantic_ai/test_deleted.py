"""Conversations that were deleted in the store, and begun again there, while this process remembers their messages."""

from __future__ import annotations

import pytest
from pydantic_ai.messages import ModelMessage, ModelRequest, UserPromptPart
from pydantic_ai_harness.step_persistence import ContinuableSnapshot

import perdure
from perdure import Corrupt, Deleted, Event, op
from perdure.adapters.pydantic_ai import PerdureStepStore

SESSION = "pydantic-ai/conversations/trip"


def messages(*texts: str) -> list[ModelMessage]:
    return [ModelRequest(parts=[UserPromptPart(text)]) for text in texts]


def snapshot(run: str, held: list[ModelMessage], step: int = 0) -> ContinuableSnapshot:
    return ContinuableSnapshot(run_id=run, step_index=step, messages=held, conversation_id="trip")


async def begin_again(store: perdure.Store) -> None:
    """Delete the conversation, and start its next life as a program does that keeps its id."""
    await store.delete(SESSION)
    await store.append(SESSION, Event("run", None, (op.set("", {"runs": ["r2"]}),)), recreate=True)


@pytest.mark.parametrize("more", [[], ["three"]])
async def test_a_snapshot_of_a_deleted_conversation_is_refused(url: str, more: list[str]) -> None:
    """With messages that are all remembered, and with a new one: what is gone cannot be named, and the run's log gets no snapshot."""
    held = messages("one", "two")
    async with perdure.open(url) as store:
        steps = PerdureStepStore(store)
        await steps.save_snapshot(snapshot("r", held))
        await store.delete(SESSION)
        with pytest.raises(Deleted):
            await steps.save_snapshot(snapshot("r", [*held, *messages(*more)], 1))
        assert [commit.version async for commit in store.history("pydantic-ai/runs/r")] == [1]


@pytest.mark.parametrize("more", [[], ["three"]])
async def test_a_conversation_that_began_again_holds_what_its_snapshots_name(url: str, more: list[str]) -> None:
    """Messages of the earlier life are written again, by the process that remembers them as by a new one."""
    held, new = messages("one", "two"), messages(*more)
    async with perdure.open(url) as store:
        steps = PerdureStepStore(store)
        await steps.save_snapshot(snapshot("r1", held))
        await begin_again(store)
        for number, writer in enumerate((steps, PerdureStepStore(store), steps)):
            await writer.save_snapshot(snapshot("r2", [*held, *new], number))
            for reader in (steps, PerdureStepStore(store)):
                found = await reader.latest_snapshot(run_id="r2")
                assert found is not None
                assert (found.step_index, [part.content for message in found.messages for part in message.parts]) == (
                    number,
                    ["one", "two", *more],
                )
        written = [event.data["message"] async for commit in store.history(SESSION, types={"message"}) for event in commit.events]
        assert len(written) == 2 + len(more)


async def test_an_older_snapshot_never_gets_the_messages_of_a_later_life(url: str) -> None:
    """What a snapshot of the earlier life names is gone, and said to be; it is not mixed with what has come since."""
    async with perdure.open(url) as store:
        steps = PerdureStepStore(store)
        await steps.save_snapshot(snapshot("r1", messages("one", "two")))
        await begin_again(store)
        await steps.save_snapshot(snapshot("r2", messages("other", "words")))
        for reader in (steps, PerdureStepStore(store)):
            with pytest.raises(Corrupt, match="lacks message 0"):
                await reader.latest_snapshot(run_id="r1")
