"""Strands' session repositories and storages on one disk: turns a second, and bytes.

Ours are durable: each commit is synced. Strands' files are not synced at all, so ours are also measured unsynced (`buffered`).
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from _harness import alternate, disk_bytes, folder, machine, small, versus
from strands.session.file_session_manager import FileSessionManager
from strands.session.session_repository import SessionRepository
from strands.storage import LocalFileStorage, Storage
from strands.types.session import Session, SessionAgent, SessionMessage, SessionType

import perdure
import perdure.sync
from perdure.adapters.strands import PerdureSessionRepository, PerdureStorage

SESSIONS = 64
TURNS = 2 if small() else 20
LONE = 3 if small() else 100
LONG = 6 if small() else 300
ROUNDS = 1 if small() else 3
TEXT = "Find a quiet room near the river for two nights. " * 8


def ours(kind: str, place: Path) -> dict[str, Any]:
    """How Perdure's store of a kind is opened."""
    return {"url": f"sqlite:///{place}/perdure.db", "durability": "local" if kind == "Perdure" else "buffered"}


def message(number: int, role: str) -> SessionMessage:
    """One message of a Strands agent."""
    return SessionMessage.from_message({"role": role, "content": [{"text": TEXT}]}, number)  # type: ignore[typeddict-item]


def converse(repository: SessionRepository, name: str, turns: int) -> None:
    """A Strands session: two messages and a sync of the agent's state a turn, as its manager does."""
    repository.create_session(Session(session_id=name, session_type=SessionType.AGENT))
    agent = SessionAgent(agent_id="a", state={}, conversation_manager_state={"removed_message_count": 0})
    repository.create_agent(name, agent)
    for number in range(turns):
        repository.create_message(name, "a", message(2 * number, "user"))
        repository.create_message(name, "a", message(2 * number + 1, "assistant"))
        agent.state = {"turn": number}
        repository.update_agent(name, agent)


def repository(kind: str, sessions: int, turns: int) -> Callable[[Path], float]:
    """Turns a second of all sessions together, each in a thread of its own."""

    def measure(place: Path) -> float:
        if kind.startswith("Perdure"):
            with perdure.sync.open(**ours(kind, place)) as store:
                return in_threads(PerdureSessionRepository(store), sessions, turns)
        return in_threads(FileSessionManager("first", storage_dir=str(place)), sessions, turns)

    return measure


def in_threads(repository: SessionRepository, sessions: int, turns: int) -> float:
    """The same, for one repository."""
    threads = [threading.Thread(target=converse, args=(repository, f"s{number}", turns)) for number in range(sessions)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sessions * turns / (time.perf_counter() - start)


async def snapshots(storage: Storage, name: str, turns: int) -> None:
    """Writes of one agent's newest snapshot, as its conversation grows by two messages a turn."""
    messages: list[Any] = []
    for number in range(turns):
        messages += [{"role": role, "content": [{"text": f"{number} {TEXT}"}]} for role in ("user", "assistant")]
        data = json.dumps({"scope": "agent", "data": {"messages": messages}}, ensure_ascii=False).encode()
        await storage.write(f"session/{name}/snapshot_latest.json", data)


def storage(kind: str, sessions: int, turns: int) -> Callable[[Path], float]:
    """Snapshots a second of all sessions together."""

    def measure(place: Path) -> float:
        async def run() -> float:
            async with AsyncExitStack() as stack:
                kept: Storage = LocalFileStorage(str(place))
                if kind.startswith("Perdure"):
                    kept = PerdureStorage(await stack.enter_async_context(perdure.open(**ours(kind, place))))
                start = time.perf_counter()
                await asyncio.gather(*[snapshots(kept, f"s{number}", turns) for number in range(sessions)])
                return sessions * turns / (time.perf_counter() - start)

        return asyncio.run(run())

    return measure


def main() -> None:
    """Print all tables."""
    machine()
    gc.freeze()  # What importing the framework made is not searched for garbage again, in no system.
    for kind, rival, make in (("session repository", "FileSessionManager", repository), ("storage", "LocalFileStorage", storage)):
        names = ("Perdure", "Perdure, unsynced", f"Strands {rival}")
        versus(f"Strands {kind}, one session", "turns/s", alternate({name: make(name, 1, LONE) for name in names}, ROUNDS))
        together = {name: make(name, SESSIONS, TURNS) for name in names}
        versus(f"Strands {kind}, 64 sessions at once", "turns/s", alternate(together, ROUNDS))
        used = {}
        for name in names:
            with folder() as place:
                make(name, 1, LONG)(place)
                used[name] = disk_bytes(place) / LONG
        versus(f"Strands {kind}, {LONG} turns of one session", "bytes a turn", used)


if __name__ == "__main__":
    sys.exit(main())
