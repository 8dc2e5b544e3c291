"""Values in steps, snapshots and notes: text of any kind is kept, the rest comes back as the framework has it or is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import msgspec
import pytest
from pydantic_ai.messages import (
    BinaryContent,
    ImageUrl,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai_harness.memory import MemoryOperation
from pydantic_ai_harness.step_persistence import ContinuableSnapshot, RunRecord, StepEvent, ToolEffectRecord

import perdure
from perdure.adapters.pydantic_ai import PerdureMemoryStore, PerdureStepStore
from perdure.adapters.pydantic_ai.conversations import to_json
from tests.support.adapters import unusual_values

HALVES = pytest.mark.parametrize("half", unusual_values.HALVES)
SLOW_TO_REFUSE = version("pydantic") < "2.13"
NAMES = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.skipif(SLOW_TO_REFUSE, reason="pydantic before 2.13 takes minutes to refuse it"))
        if name == "deep"
        else name
        for name in unusual_values.NAMES
    ],
)
NOW = datetime(2026, 11, 29, tzinfo=UTC)


def talk(half: str) -> list[Any]:
    """Messages of every kind with such a text, beside bytes, times and links."""
    files = [
        half,
        ImageUrl("https://example.com/a", vendor_metadata={half: half}),
        BinaryContent(b"\xff\x00", media_type="image/png", identifier=half),
    ]
    request = [
        SystemPromptPart(half, timestamp=NOW),
        UserPromptPart(files, timestamp=NOW),
        ToolReturnPart(half, {half: [half, {half: None}]}, half, timestamp=NOW),
    ]
    response = [TextPart(half), ThinkingPart(half, signature=half), ToolCallPart(half, {half: half}, half), ToolCallPart("t", half, "c")]
    return [
        ModelRequest(parts=request, instructions=half),
        ModelResponse(parts=response, model_name=half, timestamp=NOW, provider_details={half: half}),
    ]


def plain(messages: list[Any]) -> Any:
    """Messages by their fields: the framework reads an image back as a class of its own, whatever its text."""
    return ModelMessagesTypeAdapter.dump_python(messages)


@HALVES
async def test_half_an_emoji_in_a_snapshot(url: str, half: str) -> None:
    """In prompts, calls, results and ids: equal when another store reads it, and what a second snapshot repeats is written once."""
    async with perdure.open(url) as store:
        steps, messages = PerdureStepStore(store), talk(half)
        names: Any = {"run_id": f"r{half}", "conversation_id": f"c{half}", "agent_name": half, "parent_run_id": half}
        for index in range(2):
            more = messages if index == 0 else [*messages, ModelRequest(parts=[UserPromptPart("more", timestamp=NOW)])]
            snapshot = ContinuableSnapshot(step_index=index, messages=more, timestamp=NOW, idempotency_key=f"{half}{index}", **names)
            await steps.save_snapshot(snapshot)
            await steps.save_snapshot(snapshot)
            found = await PerdureStepStore(store).latest_snapshot(run_id=f"r{half}")
            assert found is not None
            assert plain(found.messages) == plain(more)
            assert replace(found, messages=[]) == replace(snapshot, messages=[])
        assert len(await PerdureStepStore(store).list_snapshots(run_id=f"r{half}")) == 2
        [session] = [info.session async for info in store.list(prefix="pydantic-ai/conversations/")]
        assert len([event async for commit in store.history(session) for event in commit.events]) == 3


@HALVES
async def test_half_an_emoji_in_runs_steps_and_effects(url: str, half: str) -> None:
    """In every id, name and metadata: registered once, listed by conversation and parent, effects found by their call."""
    async with perdure.open(url) as store:
        steps, other = PerdureStepStore(store), PerdureStepStore(store)
        parent = RunRecord(run_id=half, agent_name=half, started_at=NOW)
        run = RunRecord(
            run_id=f"r{half}", conversation_id=half, parent_run_id=half, metadata={half: half}, registration_id=half, started_at=NOW
        )
        for record in (parent, run, run):
            await steps.register_run(record) if record is not run or await steps.get_run(run_id=run.run_id) is None else None
        await steps.register_run(run)
        assert await other.get_run(run_id=run.run_id) == run
        assert await other.list_runs(conversation_id=half) == await other.list_runs(parent_run_id=half) == [run]
        event = StepEvent(
            run_id=half, kind="run_started", step_index=0, timestamp=NOW, error=half, metadata={half: half}, idempotency_key=half
        )
        for _ in range(2):
            await steps.append_event(event)
        assert await other.list_events(run_id=half) == [event]
        effect = ToolEffectRecord(tool_call_id=half, tool_name=half, run_id=half, status="started", started_at=NOW, effect_summary=half)
        await steps.record_tool_effect(effect)
        assert await other.get_tool_effect(run_id=half, tool_call_id=half) == effect
        assert await other.list_unresolved_tool_effects(run_id=half) == [effect]


@HALVES
async def test_half_an_emoji_in_a_note(url: str, half: str) -> None:
    """In a note's text, metadata and operation: read, found by its words, changed, and an operation is carried out once."""
    async with perdure.open(url) as store:
        notes, other = PerdureMemoryStore(store), PerdureMemoryStore(store)
        operation = MemoryOperation(id=half, fingerprint=half)
        text = f"word {half}\n{half}\n"
        made = await notes.write_with_metadata("d/note", text, expected_version=None, metadata={half: half}, operation=operation)
        again = await other.write_with_metadata("d/note", text, expected_version=None, metadata={half: half}, operation=operation)
        assert (again.version, again.replayed) == (made.version, True)
        found = await other.read("d/note", max_chars=1_000)
        assert found is not None
        assert (found.content, found.metadata, found.operation_id) == (text, {half: half}, half)
        cut = await other.read("d/note", max_chars=6)
        assert cut is not None
        assert (cut.content, cut.truncated) == (text[:6], True)
        searched = await other.search("d/", "word", limit=3, max_files=3, max_chars=300, max_file_chars=300)
        assert half in searched.matches[0].snippet
        await other.write("d/note", f"{text}more {half}", expected_version=made.version)
        changed = await notes.read("d/note", max_chars=1_000)
        assert changed is not None
        assert changed.content == f"{text}more {half}"


@NAMES
async def test_odd_values_come_back_or_are_refused(url: str, name: str) -> None:
    """In a tool's result and call, in records, and in place of each: what was accepted is read again, the rest is named."""
    async with perdure.open(url) as store:
        steps = PerdureStepStore(store)
        value: Any = unusual_values.values()[name]
        messages = [ModelRequest(parts=[ToolReturnPart("t", value, "c")]), ModelResponse(parts=[ToolCallPart("t", {"a": value}, "c")])]
        try:
            await steps.save_snapshot(ContinuableSnapshot(run_id="r", step_index=0, messages=messages))
        except perdure.Invalid:
            assert await steps.latest_snapshot(run_id="r") is None
        else:
            assert await PerdureStepStore(store).latest_snapshot(run_id="r") is not None
        for call in (steps.save_snapshot, steps.append_event, steps.register_run, steps.record_tool_effect):
            with pytest.raises(perdure.Invalid):
                await call(value)
        for field in ("agent_name", "metadata", "conversation_id", "timestamp", "error", "step_index", "idempotency_key"):
            event: Any = {"run_id": "e", "kind": "run_started", "step_index": 0, "timestamp": NOW, field: value}
            try:
                await steps.append_event(StepEvent(**event))
            except perdure.Invalid:
                continue
        await steps.append_event(StepEvent(run_id="e", kind="run_completed", step_index=1))
        assert (await PerdureStepStore(store).list_events(run_id="e"))[-1].kind == "run_completed"
        notes = PerdureMemoryStore(store)
        for arguments in (
            {"content": value},
            {"path": value},
            {"metadata": value},
            {"metadata": {"a": value}},
            {"metadata": {name: "\ud83d"}},
        ):
            given: Any = {"path": "d/note", "content": "text", "metadata": None, **arguments}
            held = await notes.read("d/note", max_chars=10)
            try:
                await notes.write_with_metadata(**given, expected_version=None if held is None else held.version)
            except perdure.Invalid:
                continue
            except (TypeError, ValueError) as error:  # the harness's own
                if str(error).startswith(("invalid memory path", "memory metadata")):
                    continue
                raise
            assert await PerdureMemoryStore(store).read("d/note", max_chars=10) is not None


async def test_any_number_of_messages_is_kept(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot whose messages take more commits than races may be lost is kept whole."""
    monkeypatch.setattr("perdure.adapters.pydantic_ai.conversations.COMMIT_BYTES", 1)
    async with perdure.open(url) as store:
        messages = [ModelRequest(parts=[UserPromptPart(str(number), timestamp=NOW)]) for number in range(70)]
        await PerdureStepStore(store).save_snapshot(ContinuableSnapshot(run_id="r", step_index=0, messages=messages))
        found = await PerdureStepStore(store).latest_snapshot(run_id="r")
        assert found is not None
        assert found.messages == messages


def test_ordinary_messages_are_written_as_ever() -> None:
    """The JSON of a message is the framework's own, so what a store holds is known again."""
    assert to_json(talk("plain ä 😀")) == msgspec.json.decode(ModelMessagesTypeAdapter.dump_json(talk("plain ä 😀")))
