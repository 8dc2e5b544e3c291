"""Agents of Pydantic AI on the stores: killed and continued, linear in bytes, readable without the framework; and bad input."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai_harness.memory import Memory
from pydantic_ai_harness.step_persistence import ContinuableSnapshot, RunRecord, StepEvent, StepPersistence, continue_run
from pydantic_ai_harness.step_persistence.recovery import inspect_recovery

import perdure
from perdure.adapters.common.versions import require
from perdure.adapters.pydantic_ai import PerdureMemoryStore, PerdureStepStore

ROOT = Path(__file__).resolve().parents[3]
KILLED = """
import asyncio, os, sys
import perdure
from perdure.adapters.pydantic_ai import PerdureStepStore
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel
from pydantic_ai_harness.step_persistence import StepPersistence

async def main():
    async with perdure.open(sys.argv[1]) as store:
        agent = Agent(TestModel(), capabilities=[StepPersistence(store=PerdureStepStore(store), run_id="r1")])

        @agent.tool_plain
        def look(city: str) -> str:
            return "fine"

        @agent.tool_plain
        def pay(amount: int) -> str:
            os.kill(os.getpid(), 9)

        await agent.run("Pay.", conversation_id="trip")

asyncio.run(main())
"""


async def say(messages: list[Any], info: AgentInfo) -> ModelResponse:
    """A model that counts what it was given."""
    return ModelResponse(parts=[TextPart(f"given {len(messages)}")])


def kill_in_a_tool(url: str) -> None:
    command = [sys.executable, "-c", KILLED, url]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


async def test_a_run_killed_in_a_tool_says_what_was_in_flight(file_url: str) -> None:
    """After `kill -9` inside a tool its call is unresolved, and every step before it is there."""
    await asyncio.to_thread(kill_in_a_tool, file_url)
    async with perdure.open(file_url) as store:
        steps = PerdureStepStore(store)
        found = await inspect_recovery(store=steps, run_id="r1")
        assert {effect.tool_name for effect in found.unresolved} >= {"pay"}
        assert found.latest is None and found.failed_tools == ()
        kinds = [event.kind for event in await steps.list_events(run_id="r1")]
        assert kinds[:3] == ["run_started", "model_request_started", "model_request_completed"]
        assert (await steps.get_run(run_id="r1")).conversation_id == "trip"
        assert (await store.verify("pydantic-ai/runs/r1")).version >= 6


async def test_a_failed_run_is_continued_in_another_process(file_url: str) -> None:
    """The model fails after a tool was called: a new store continues from the settled point, and the conversation goes on."""

    async def fails_then(messages: list[Any], info: AgentInfo) -> ModelResponse:
        if len(messages) > 2:
            raise RuntimeError("model is down")
        return await TestModel().request(messages, None, info.model_request_parameters)

    async with perdure.open(file_url) as store:
        agent = Agent(FunctionModel(fails_then), capabilities=[StepPersistence(store=PerdureStepStore(store), run_id="r1")])

        @agent.tool_plain
        def look(city: str) -> str:
            return "fine"

        with pytest.raises(RuntimeError, match="model is down"):
            await agent.run("Look.", conversation_id="trip")
    async with perdure.open(file_url) as store:
        steps = PerdureStepStore(store)
        history = await continue_run(steps, run_id="r1")
        assert history == await steps.history("trip") and isinstance(history[-1].parts[0], ToolReturnPart)
        agent = Agent(FunctionModel(say), capabilities=[StepPersistence(store=steps)])
        result = await agent.run("Go on.", message_history=history, conversation_id="trip")
        assert await steps.history("trip") == result.all_messages()
        assert [event.kind for event in await steps.list_events(run_id="r1")][-2:] == ["model_request_failed", "run_failed"]


def test_blocking_agents_and_stores_in_two_loops(file_url: str) -> None:
    """`run_sync` on a blocking store, twice, then a loop of our own: one conversation."""
    with perdure.sync.open(file_url) as store, asyncio.Runner() as runner:
        steps = PerdureStepStore(store)
        agent = Agent(FunctionModel(say), capabilities=[StepPersistence(store=steps)])
        for number in range(2):
            history = asyncio.run(steps.history("trip"))
            asyncio.set_event_loop(runner.get_loop())  # which `run_sync` takes; else it makes one that nobody closes
            assert agent.run_sync("Hi.", message_history=history or None, conversation_id="trip").output == f"given {2 * number + 1}"


async def test_a_run_late_in_a_conversation_writes_no_more_than_an_early_one(url: str) -> None:
    """Each of 60 runs repeats the history in its snapshots; the messages are stored once, and each run's commits have the same size."""
    async with perdure.open(url) as store:
        steps = PerdureStepStore(store)
        agent = Agent(FunctionModel(say), name="planner", capabilities=[StepPersistence(store=steps)])
        history: list[Any] = []
        for number in range(60):
            history = (await agent.run(f"turn {number:02}", message_history=history or None, conversation_id="trip")).all_messages()
        said = [event async for commit in store.history("pydantic-ai/conversations/trip", types={"message"}) for event in commit.events]
        assert len(said) == len(history) == 120
        held = (await store.read("pydantic-ai/conversations/trip")).state["runs"]
        commits = [[commit async for commit in store.history(f"pydantic-ai/runs/{run}")] for run in held]
        assert {len(made) for made in commits} == {6}
        ranges = [event.data["messages"] for made in commits for commit in made for event in commit.events if event.type == "snapshot"]
        assert ranges == [[[0, 2 * number + 2]] for number in range(60)]
        assert {commit.actor for commit in commits[-1] if commit.events[0].type == "run_started"} == {"planner"}


async def test_a_fork_of_a_run_and_of_a_conversation_go_their_own_way(url: str) -> None:
    """`store.fork` of a run's session is a run of that id; a fork of a conversation goes on by itself."""
    async with perdure.open(url) as store:
        steps = PerdureStepStore(store)
        first = [ModelRequest(parts=[UserPromptPart("one")]), ModelResponse(parts=[TextPart("1")])]
        await steps.save_snapshot(ContinuableSnapshot(run_id="r1", step_index=1, messages=first, conversation_id="a"))
        await store.fork("pydantic-ai/runs/r1", id="pydantic-ai/runs/r2")
        assert (await steps.latest_snapshot(run_id="r2")).messages == first
        await store.fork("pydantic-ai/conversations/a", id="pydantic-ai/conversations/b")
        more = [*first, ModelRequest(parts=[UserPromptPart("two")])]
        for run, conversation in (("r3", "a"), ("r4", "b")):
            await steps.save_snapshot(ContinuableSnapshot(run_id=run, step_index=1, messages=more, conversation_id=conversation))
            assert (await steps.latest_snapshot(run_id=run)).messages == more
        commits = [commit async for commit in store.history("pydantic-ai/conversations/b", types={"message"})]
        assert [[event.data["number"] for event in commit.events] for commit in commits] == [[0, 1], [2]]


async def test_an_agents_notes_are_kept_between_runs(url: str) -> None:
    """The harness's memory capability writes, and a later run reads what was written; the write carries its metadata."""
    async with perdure.open(url) as store:
        notes = PerdureMemoryStore(store)
        memory: Memory[None] = Memory(store=notes, namespace="ann", agent_name="planner", write_metadata={"by": "test"})
        await Agent(TestModel(call_tools=["write_memory"]), capabilities=[memory]).run("Remember.")
        (path,) = await notes.list_paths("ann/", limit=9)
        assert (await notes.read(path, max_chars=99)).metadata == {"by": "test"}
        found = await Agent(TestModel(call_tools=["search_memory"]), capabilities=[memory]).run("What?")
        assert path.rpartition("/")[2] in found.output


async def test_two_workers_that_register_one_run_one_is_refused(file_url: str) -> None:
    """Of six registrations of one id on two stores one holds; the same registration tried again is fine."""
    async with perdure.open(file_url) as one, perdure.open(file_url) as two:
        stores = [PerdureStepStore(store) for store in (one, two)]
        records = [RunRecord(run_id="r1", conversation_id="c", registration_id=f"{number}") for number in range(6)]
        results = await asyncio.gather(*[stores[n % 2].register_run(record) for n, record in enumerate(records)], return_exceptions=True)
        assert sorted(map(repr, results)).count("None") == 1 and sum(isinstance(result, ValueError) for result in results) == 5
        held = await stores[0].get_run(run_id="r1")
        await stores[1].register_run(RunRecord(run_id="r1", conversation_id="c", registration_id=held.registration_id))
        assert await stores[1].list_runs(conversation_id="c") == [held]


async def test_bad_input_is_refused(url: str) -> None:
    """Foreign sessions, a newer harness's steps, long ids, what JSON cannot hold, deleted sessions, another tenant, a closed store."""
    async with perdure.open(url) as store:
        steps = PerdureStepStore(store)
        await store.append("pydantic-ai/runs/foreign", perdure.Event("x", None, (perdure.op.set("/run", [1]),)))
        with pytest.raises(perdure.Invalid, match="foreign"):
            await steps.get_run(run_id="foreign")
        await store.append("pydantic-ai/runs/r1", perdure.Event("step_dreamt", {"step_index": 1, "timestamp": "2026-11-23T00:00:00Z"}))
        with pytest.raises(perdure.Unsupported, match="step_dreamt"):
            await steps.list_events(run_id="r1")
        await store.append("pydantic-ai/runs/r2", perdure.Event("note", {"by": "a person"}))
        assert await steps.list_events(run_id="r2") == []
        for data in (
            "x",
            {"state": "complete"},
            {"state": "complete", "messages": "x"},
            {"state": "complete", "messages": [], "timestamp": 1},
        ):
            await store.append("pydantic-ai/runs/r3", perdure.Event("snapshot", data))
            with pytest.raises(perdure.Invalid, match="something else wrote it"):
                await steps.latest_snapshot(run_id="r3", include_interrupted=True)
        await store.append("pydantic-ai/conversations/c3", perdure.Event("message", {"role": "user"}))
        with pytest.raises(perdure.Invalid, match="version 1"):
            await steps.save_snapshot(
                ContinuableSnapshot(run_id="r4", step_index=0, messages=[ModelRequest(parts=[UserPromptPart("x")])], conversation_id="c3")
            )
        with pytest.raises(perdure.Invalid, match="at most 255"):
            await steps.append_event(StepEvent(run_id="x" * 250, kind="run_started", step_index=0))
        for bad in (object(), print):
            part = ToolReturnPart("look", content=bad, tool_call_id="c")
            with pytest.raises(perdure.Invalid, match="cannot be stored"):
                await steps.save_snapshot(ContinuableSnapshot(run_id="r5", step_index=0, messages=[ModelRequest(parts=[part])]))
        large = ModelRequest(parts=[ToolReturnPart("look", content="x" * 10_000_000, tool_call_id="c")])
        await steps.save_snapshot(ContinuableSnapshot(run_id="r6", step_index=0, messages=[large] * 2, conversation_id="large"))
        assert (await steps.latest_snapshot(run_id="r6")).messages == [large] * 2
        assert await PerdureStepStore(store.for_tenant("other")).latest_snapshot(run_id="r6") is None
        await store.delete("pydantic-ai/conversations/large")
        for call in (steps.latest_snapshot(run_id="r6"), PerdureStepStore(store).save_snapshot(await _snapshot("large"))):
            with pytest.raises(perdure.Deleted):
                await call
    with pytest.raises(perdure.Closed):
        await steps.get_run(run_id="r1")
    with pytest.raises(perdure.Invalid, match="open store"):
        PerdureStepStore("sqlite:///x.db")  # type: ignore[arg-type]


async def _snapshot(conversation: str) -> ContinuableSnapshot:
    return ContinuableSnapshot(
        run_id="r9", step_index=0, messages=[ModelRequest(parts=[UserPromptPart("late")])], conversation_id=conversation
    )


async def test_ids_with_anything_in_them_are_apart(url: str) -> None:
    """Separators, percent signs, spaces and keys of any length: each run and conversation is its own."""
    ids = ["a/b", "a", "b", "a%2Fb", "ä ö", "a\nb", "..", ""]
    async with perdure.open(url) as store:
        steps = PerdureStepStore(store)
        for id in ids:
            await steps.register_run(RunRecord(run_id=id, conversation_id=id))
            await steps.append_event(StepEvent(run_id=id, kind="run_started", step_index=0, error=id, idempotency_key=id * 300))
        for id in ids:
            assert [event.error for event in await steps.list_events(run_id=id)] == [id]
            assert [record.run_id for record in await steps.list_runs(conversation_id=id)] == [id]
        assert sorted(record.run_id for record in await steps.list_runs()) == sorted(ids)


def test_a_version_that_was_not_tested_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older and newer: the range, what is installed, and the line that installs another."""
    for version in ("0.59.9", "0.63.0"):
        monkeypatch.setattr(metadata, "version", lambda _package, version=version: version)
        with pytest.raises(perdure.Unsupported, match=rf"pydantic-ai-harness>=0.60,<0.63, and {version} is installed.*pip install"):
            require("pydantic-ai-harness", "0.60", "0.63", "pydantic-ai")
