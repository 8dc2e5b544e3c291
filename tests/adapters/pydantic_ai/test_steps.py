"""The contract of the harness's step stores, in our words: on Perdure, and on the harness's own store, so that neither is misread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai_harness.step_persistence import (
    ContinuableSnapshot,
    RunRecord,
    SqliteStepStore,
    StepEvent,
    StepStore,
    ToolEffectRecord,
    continue_run,
    fork_run,
)

import perdure
from perdure.adapters.pydantic_ai import PerdureStepStore

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
HISTORY: list[ModelMessage] = [
    ModelRequest(parts=[SystemPromptPart("Be brief."), UserPromptPart("What is this?")]),
    ModelResponse(
        parts=[ThinkingPart("hm", signature="s"), ToolCallPart("look", {"at": [1, 2.5, None]}, tool_call_id="c1")], model_name="m"
    ),
    ModelRequest(parts=[ToolReturnPart("look", content={"ok": True}, tool_call_id="c1", metadata={"ms": 3})]),
    ModelRequest(parts=[UserPromptPart(["And this?", BinaryContent(b"\x00\xff\x7f", media_type="application/pdf", identifier="a")])]),
    ModelResponse(parts=[TextPart("Ein Bär 🐻")]),
]


@pytest.fixture(params=["perdure memory", "perdure sqlite", "perdure sync", "harness"])
def kind(request: pytest.FixtureRequest) -> str:
    """Whose store it is."""
    return str(request.param)


@asynccontextmanager
async def opened(kind: str, place: Path) -> AsyncIterator[Any]:
    """A fresh step store of a kind."""
    if kind == "harness":
        yield SqliteStepStore(database=place / "harness.db")
    elif kind == "perdure sync":
        with perdure.sync.open(f"sqlite:///{place}/store.db") as store:
            yield PerdureStepStore(store)
    else:
        async with perdure.open("memory:" if kind == "perdure memory" else f"sqlite:///{place}/store.db") as store:
            yield PerdureStepStore(store)


def snapshot(run: str = "r1", step: int = 0, messages: list[ModelMessage] | None = None, **more: Any) -> ContinuableSnapshot:
    return ContinuableSnapshot(run_id=run, step_index=step, messages=HISTORY if messages is None else messages, **more)


async def test_it_is_a_step_store(kind: str, tmp_path: Path) -> None:
    """The store has all methods of the harness's protocol."""
    async with opened(kind, tmp_path) as steps:
        assert isinstance(steps, StepStore)


async def test_a_run_comes_back_as_it_was_registered(kind: str, tmp_path: Path) -> None:
    """Every field of a run survives, times to the microsecond; an unknown run is None."""
    full = RunRecord(
        run_id="r1",
        conversation_id="c/1 %2F",
        parent_run_id="r0",
        agent_name="pläner",
        metadata={"team": "ops", "": "x"},
        started_at=NOON + timedelta(microseconds=123456),
        registration_id="g1",
    )
    async with opened(kind, tmp_path) as steps:
        await steps.register_run(full)
        await steps.register_run(RunRecord(run_id="bare", started_at=NOON))
        assert await steps.get_run(run_id="r1") == full
        assert await steps.get_run(run_id="bare") == RunRecord(run_id="bare", started_at=NOON)
        assert await steps.get_run(run_id="r0") is None


async def test_a_run_id_is_used_once(kind: str, tmp_path: Path) -> None:
    """Another registration of a run id is refused, and the first one stays."""
    async with opened(kind, tmp_path) as steps:
        first = RunRecord(run_id="r1", registration_id="a")
        await steps.register_run(first)
        with pytest.raises(Exception, match=r"already in the store|UNIQUE"):
            await steps.register_run(RunRecord(run_id="r1", registration_id="b"))
        assert await steps.get_run(run_id="r1") == first


async def test_runs_are_listed_by_start_and_filtered_by_both_ids(kind: str, tmp_path: Path) -> None:
    """`list_runs` gives the runs of a parent, of a conversation, of both, or all, the earliest first."""
    async with opened(kind, tmp_path) as steps:
        for number, (parent, conversation) in enumerate([(None, "A"), ("r0", "A"), ("r0", "B"), ("r1", "A"), (None, None)]):
            started = NOON - timedelta(minutes=number)
            record = RunRecord(run_id=f"r{number}", parent_run_id=parent, conversation_id=conversation, started_at=started)
            await steps.register_run(record)

        async def ids(**wanted: str) -> list[str]:
            return [record.run_id for record in await steps.list_runs(**wanted)]

        assert await ids() == ["r4", "r3", "r2", "r1", "r0"]
        assert await ids(parent_run_id="r0") == ["r2", "r1"]
        assert await ids(conversation_id="A") == ["r3", "r1", "r0"]
        assert await ids(parent_run_id="r0", conversation_id="A") == ["r1"]
        assert await ids(parent_run_id="nobody") == await ids(conversation_id="nobody") == []


async def test_steps_come_back_in_order_and_a_repeated_one_once(kind: str, tmp_path: Path) -> None:
    """Steps are listed as appended; the same idempotency key is kept once per run, and steps without a key always."""
    async with opened(kind, tmp_path) as steps:
        full = StepEvent(
            run_id="r1",
            kind="tool_call_failed",
            step_index=2,
            timestamp=NOON,
            conversation_id="c",
            parent_run_id="p",
            agent_name="a",
            tool_call_id="t",
            tool_name="add",
            error="ValueError('no')",
            metadata={"k": "v"},
            idempotency_key="7:2:tool_call_failed:t",
        )
        plain = StepEvent(run_id="r1", kind="run_started", step_index=0, timestamp=NOON)
        for event in (
            plain,
            full,
            plain,
            full,
            StepEvent(run_id="r1", kind="run_failed", step_index=9, idempotency_key=full.idempotency_key),
        ):
            await steps.append_event(event)
        other = StepEvent(run_id="r2", kind="run_started", step_index=0, idempotency_key=full.idempotency_key)
        await steps.append_event(other)
        assert await steps.list_events(run_id="r1") == [plain, full, plain]
        assert await steps.list_events(run_id="r2") == [other]
        assert await steps.list_events(run_id="r3") == []


@pytest.mark.parametrize("conversation", [None, "c1"])
async def test_snapshots_come_back_exactly(kind: str, tmp_path: Path, conversation: str | None) -> None:
    """Messages with thoughts, calls, results, bytes and text of any script survive; so does every other field."""
    async with opened(kind, tmp_path) as steps:
        more = {"conversation_id": conversation, "parent_run_id": "p", "agent_name": "a", "idempotency_key": "0:3"}
        saved = snapshot(step=3, timestamp=NOON, state="interrupted", **more)
        await steps.save_snapshot(saved)
        await steps.save_snapshot(snapshot(run="r2", messages=[], timestamp=NOON, conversation_id=conversation))
        assert await steps.latest_snapshot(run_id="r1", include_interrupted=True) == saved
        assert await steps.latest_snapshot(run_id="r2") == snapshot(run="r2", messages=[], timestamp=NOON, conversation_id=conversation)
        assert await steps.latest_snapshot(run_id="r1") is None
        assert await steps.latest_snapshot(run_id="r3") is None


async def test_the_latest_snapshot_is_the_last_saved_that_is_complete(kind: str, tmp_path: Path) -> None:
    """Not the highest step: the last saved. Interrupted ones count only if asked for; all are listed in the order of saving."""
    async with opened(kind, tmp_path) as steps:
        for step, state in ((0, "complete"), (5, "complete"), (1, "complete"), (2, "interrupted"), (3, "interrupted")):
            await steps.save_snapshot(snapshot(step=step, state=state))
        assert (await steps.latest_snapshot(run_id="r1")).step_index == 1
        assert (await steps.latest_snapshot(run_id="r1", include_interrupted=True)).step_index == 3
        assert [kept.step_index for kept in await steps.list_snapshots(run_id="r1")] == [0, 5, 1]
        assert [kept.step_index for kept in await steps.list_snapshots(run_id="r1", include_interrupted=True)] == [0, 5, 1, 2, 3]
        assert await steps.list_snapshots(run_id="r2") == []


async def test_a_snapshot_saved_again_is_there_once(kind: str, tmp_path: Path) -> None:
    """A retried save, its clock moved on, changes nothing: an older one that comes late does not hide a newer."""
    async with opened(kind, tmp_path) as steps:
        older = snapshot(step=1, timestamp=NOON, idempotency_key="0:1:complete")
        newer = snapshot(step=2, timestamp=NOON, messages=HISTORY[:2], idempotency_key="1:2:complete")
        for saved in (older, newer, snapshot(step=1, idempotency_key="0:1:complete")):
            await steps.save_snapshot(saved)
        assert await steps.latest_snapshot(run_id="r1") == newer
        assert await steps.list_snapshots(run_id="r1") == [older, newer]


async def test_a_history_that_was_rewritten_comes_back_as_rewritten(kind: str, tmp_path: Path) -> None:
    """Cut, summarised, shuffled, repeated: each snapshot gives its own messages in its own order."""
    summary = ModelRequest(parts=[UserPromptPart("[summary]")])
    histories = [HISTORY, [summary, *HISTORY[3:]], HISTORY[::-1], [HISTORY[0], HISTORY[0]], [*HISTORY, summary]]
    async with opened(kind, tmp_path) as steps:
        for messages in histories:
            await steps.save_snapshot(snapshot(messages=messages, conversation_id="c1"))
        assert [kept.messages for kept in await steps.list_snapshots(run_id="r1")] == histories


async def test_of_a_tool_call_the_last_record_counts(kind: str, tmp_path: Path) -> None:
    """A record replaces the one before it, per run and call; those that are only started are unresolved."""
    async with opened(kind, tmp_path) as steps:
        started = ToolEffectRecord(tool_call_id="c/1~", tool_name="pay", run_id="r1", status="started", started_at=NOON)
        done = ToolEffectRecord(
            tool_call_id="c/1~",
            tool_name="pay",
            run_id="r1",
            status="completed",
            started_at=NOON,
            ended_at=NOON + timedelta(seconds=1),
            idempotency_key="k",
            effect_summary="paid",
        )
        await steps.record_tool_effect(started)
        await steps.record_tool_effect(ToolEffectRecord(tool_call_id="c/1~", tool_name="pay", run_id="r2", status="started"))
        assert await steps.list_unresolved_tool_effects(run_id="r1") == [started]
        await steps.record_tool_effect(done)
        assert await steps.get_tool_effect(run_id="r1", tool_call_id="c/1~") == done
        assert await steps.list_unresolved_tool_effects(run_id="r1") == []
        assert [left.run_id for left in await steps.list_unresolved_tool_effects(run_id="r2")] == ["r2"]
        assert await steps.get_tool_effect(run_id="r1", tool_call_id="other") is None
        assert await steps.list_unresolved_tool_effects(run_id="r3") == []


async def test_a_run_is_continued_and_forked_by_the_harness(kind: str, tmp_path: Path) -> None:
    """`continue_run` and `fork_run` find the messages; a run without a snapshot is a LookupError."""
    async with opened(kind, tmp_path) as steps:
        await steps.save_snapshot(snapshot())
        assert await continue_run(steps, run_id="r1") == await fork_run(steps, run_id="r1") == HISTORY
        with pytest.raises(LookupError, match="nobody"):
            await continue_run(steps, run_id="nobody")


async def test_what_was_given_and_what_was_got_belong_to_the_caller(tmp_path: Path) -> None:
    """Messages that are changed after saving or loading change nothing that is stored."""
    async with opened("perdure sqlite", tmp_path) as steps:
        mine = [ModelRequest(parts=[UserPromptPart("original")])]
        await steps.save_snapshot(snapshot(messages=list(mine)))
        mine[0].parts[0].content = "changed"  # type: ignore[union-attr,misc]
        got = await steps.latest_snapshot(run_id="r1")
        got.messages[0].parts[0].content = "changed too"
        assert (await steps.latest_snapshot(run_id="r1")).messages[0].parts[0].content == "original"


async def test_many_runs_of_one_conversation_at_once_lose_nothing(url: str) -> None:
    """Runs that save at the same time share one log of messages: each snapshot gives its own, and each message is there once."""
    async with perdure.open(url) as store:
        steps = PerdureStepStore(store)

        async def run(number: int) -> None:
            own: list[ModelMessage] = [*HISTORY]
            for step in range(3):
                own.append(ModelRequest(parts=[UserPromptPart(f"{number} {step}")]))
                await steps.save_snapshot(snapshot(run=f"r{number}", step=step, messages=list(own), conversation_id="c1"))

        await asyncio.gather(*[run(number) for number in range(8)])
        for number in range(8):
            kept = (await steps.latest_snapshot(run_id=f"r{number}")).messages
            assert kept[:-3] == HISTORY
            assert [message.parts[0].content for message in kept[-3:]] == [f"{number} {step}" for step in range(3)]
        numbers = []
        async for commit in store.history("pydantic-ai/conversations/c1"):
            numbers += [event.data["number"] for event in commit.events]
        assert numbers == list(range(len(HISTORY) + 24))
