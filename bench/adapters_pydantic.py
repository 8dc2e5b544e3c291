"""Pydantic AI's step and memory stores, and Agent Framework's history, session and checkpoint storages, on one disk: turns/s and bytes.

Ours are durable: each commit is synced. So is Pydantic AI's SQLite; Agent Framework's files are not synced at all.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from _harness import alternate, disk_bytes, folder, machine, small, versus
from agent_framework import AgentSession, FileCheckpointStorage, FileHistoryProvider, FileSessionStore, Message, WorkflowCheckpoint
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai_harness.memory import SqliteMemoryStore
from pydantic_ai_harness.step_persistence import ContinuableSnapshot, RunRecord, SqliteStepStore, StepEvent

import perdure
from perdure.adapters.agent_framework import PerdureCheckpointStorage, PerdureHistoryProvider
from perdure.adapters.pydantic_ai import PerdureMemoryStore, PerdureStepStore

TEXT = "Find a quiet room near the river for two nights. " * 8
SESSIONS = 4 if small() else 64
SHORT = 2 if small() else 10
LONE = 4 if small() else 200
LONG = 6 if small() else 1_000
ROUNDS = 1 if small() else 3

Talk = Callable[[Any, str, int], Awaitable[None]]
Make = Callable[[Path, perdure.Store | None], Any]


async def steps(store: Any, name: str, turns: int) -> None:
    """A conversation: a run a turn, with what the harness records of a run without tools."""
    history: list[ModelMessage] = []
    for number in range(turns):
        run = f"{name}-{number}"
        who = {"run_id": run, "conversation_id": name, "agent_name": "planner"}
        await store.register_run(RunRecord(**who))
        kinds = ("run_started", "model_request_started", "model_request_completed", "run_completed")
        for index, kind in enumerate(kinds):
            if kind == "run_completed":
                history += [ModelRequest(parts=[UserPromptPart(f"{number} {TEXT}")]), ModelResponse(parts=[TextPart(f"{number} {TEXT}")])]
                await store.save_snapshot(ContinuableSnapshot(step_index=1, messages=list(history), idempotency_key="0:1:complete", **who))
            await store.append_event(StepEvent(kind=kind, step_index=1, idempotency_key=f"{index}:1:{kind}:", **who))  # type: ignore[arg-type]


async def notes(store: Any, name: str, turns: int) -> None:
    """A note that grows by a line a turn, up to 100."""
    path, version, lines = f"{name}/main/MEMORY.md", None, []
    for number in range(turns):
        lines = [*lines[-99:], f"{number} {TEXT[:80]}"]
        version = (await store.write(path, "\n".join(lines), expected_version=version)).version


async def history(provider: Any, name: str, turns: int) -> None:
    """A session: each turn loads the messages and stores two."""
    for number in range(turns):
        await provider.get_messages(name)
        await provider.save_messages(name, [Message(role, [f"{number} {TEXT}"]) for role in ("user", "assistant")])


async def sessions(store: Any, name: str, turns: int) -> None:
    """A session whose messages are in its state: each turn gets it, adds two, and sets it."""
    session = AgentSession(session_id=name)
    for number in range(turns):
        session.state.setdefault("messages", []).extend(Message(role, [f"{number} {TEXT}"]) for role in ("user", "assistant"))
        await store.set(name, session)
        session = await store.get(name)


async def checkpoints(storage: Any, name: str, turns: int) -> None:
    """A workflow whose state holds a conversation that grows by two messages a step."""
    messages: list[Message] = []
    before = None
    for number in range(turns):
        messages += [Message(role, [f"{number} {TEXT}"]) for role in ("user", "assistant")]
        checkpoint = WorkflowCheckpoint(
            workflow_name=name,
            graph_signature_hash="g",
            previous_checkpoint_id=before,
            state={"_executor_state": {"planner": {"cache": list(messages)}}, "turn": number},
            iteration_count=number,
        )
        before = await storage.save(checkpoint)


def session_store(place: Path, store: perdure.Store | None) -> Any:
    """The framework warns that this interface may change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if store is None:
            return FileSessionStore(place)
        from perdure.adapters.agent_framework import PerdureSessionStore

        return PerdureSessionStore(store)


KINDS: dict[str, tuple[str, Talk, Make, int]] = {
    "Pydantic AI step store": (
        "SqliteStepStore",
        steps,
        lambda place, store: PerdureStepStore(store) if store else SqliteStepStore(database=place / "steps.db"),
        LONE,
    ),
    "Pydantic AI memory": (
        "SqliteMemoryStore",
        notes,
        lambda place, store: PerdureMemoryStore(store) if store else SqliteMemoryStore(database=place / "memory.db"),
        LONG,
    ),
    "Agent Framework history": (
        "FileHistoryProvider",
        history,
        lambda place, store: PerdureHistoryProvider(store) if store else FileHistoryProvider(place),
        LONE,
    ),
    "Agent Framework sessions": ("FileSessionStore", sessions, session_store, LONE),
    "Agent Framework checkpoints": (
        "FileCheckpointStorage",
        checkpoints,
        lambda place, store: PerdureCheckpointStorage(store) if store else FileCheckpointStorage(place),
        LONE,
    ),
}


def measured(make: Make, talk: Talk, mine: bool, count: int, turns: int) -> Callable[[Path], float]:
    """Turns a second of all sessions together."""

    def measure(place: Path) -> float:
        async def run() -> float:
            async with AsyncExitStack() as stack:
                store = await stack.enter_async_context(perdure.open(f"sqlite:///{place}/perdure.db")) if mine else None
                kept = make(place, store)
                await talk(kept, "first", 1)
                start = time.perf_counter()
                await asyncio.gather(*[talk(kept, f"s{number}", turns) for number in range(count)])
                return count * turns / (time.perf_counter() - start)

        return asyncio.run(run())

    return measure


def main() -> None:
    """Print all tables."""
    machine()
    warnings.simplefilter("ignore")  # The frameworks call some of these interfaces experimental.
    gc.freeze()  # What importing the frameworks made is not searched for garbage again, in no system.
    for title, (rival, talk, make, long) in KINDS.items():
        both = {"Perdure": True, rival: False}
        versus(
            f"{title}, turn 1 to {long} of one session",
            "turns/s",
            alternate({n: measured(make, talk, m, 1, long) for n, m in both.items()}, ROUNDS),
        )
        many = {n: measured(make, talk, m, SESSIONS, SHORT) for n, m in both.items()}
        versus(f"{title}, {SESSIONS} sessions of {SHORT} turns at once", "turns/s", alternate(many, ROUNDS))
        used = {}
        for name, mine in both.items():
            with folder() as place:
                measured(make, talk, mine, 1, long)(place)
                used[name] = disk_bytes(place) / long
        versus(f"{title}, {long} turns of one session", "bytes a turn", used)


if __name__ == "__main__":
    sys.exit(main())
