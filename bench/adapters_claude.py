"""The Claude Agent SDK's session store on one disk: turns a second, bytes, resuming, listing.

The SDK brings no store that outlives the process. The rival is what its protocol asks for at the least: a JSONL file for each transcript,
as the CLI writes it, synced at every append as ours is; without summaries, so that a listing reads every transcript.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

from _harness import alternate, disk_bytes, folder, machine, small, versus
from claude_agent_sdk import list_sessions_from_store, project_key_for_directory

import perdure
from perdure.adapters.claude_agent import PerdureSessionStore

SESSIONS = 4 if small() else 64
SHORT = 2 if small() else 20
LONG = 6 if small() else 1_000
LISTED = 5 if small() else 300
ROUNDS = 1 if small() else 3
TEXT = "Find a quiet room near the river for two nights. " * 8
PROJECT = project_key_for_directory("/")
RIVAL = "JSONL files, synced"


class Files:
    """A JSONL file for each transcript."""

    def __init__(self, place: Path) -> None:
        self._place = place

    async def append(self, key: Any, entries: list[Any]) -> None:
        await asyncio.to_thread(self._write, key, entries)

    def _write(self, key: Any, entries: list[Any]) -> None:
        with (self._place / f"{key['session_id']}.jsonl").open("a") as file:
            file.write("".join([json.dumps(entry) + "\n" for entry in entries]))
            file.flush()
            os.fsync(file.fileno())

    async def load(self, key: Any) -> list[Any]:
        return await asyncio.to_thread(self._read, key)

    def _read(self, key: Any) -> list[Any]:
        return [json.loads(line) for line in (self._place / f"{key['session_id']}.jsonl").read_text().splitlines()]

    async def list_sessions(self, _project_key: str) -> list[Any]:
        return [{"session_id": file.stem, "mtime": int(file.stat().st_mtime * 1000)} for file in self._place.glob("*.jsonl")]


def key(number: int) -> Any:
    """A session of the project."""
    return {"project_key": PROJECT, "session_id": str(UUID(int=number))}


def turn(session: int, number: int) -> list[Any]:
    """A question and an answer, about 1.2 KB of JSON with what the CLI writes beside them."""
    common = {"sessionId": str(UUID(int=session)), "cwd": "/home/ann/trip", "version": "2.1.0", "gitBranch": "main", "isSidechain": False}
    lines = []
    for index, role in enumerate(("user", "assistant")):
        uuid = str(UUID(int=(session << 40) + 2 * number + index))
        message = {"role": role, "content": [{"type": "text", "text": f"{number} {TEXT}"}]}
        lines.append({"type": role, "uuid": uuid, "timestamp": "2026-11-23T10:00:00.000Z", **common, "message": message})
    return lines


async def converse(store: Any, session: int, turns: int) -> None:
    """A session, flushed once a turn as the SDK does."""
    for number in range(turns):
        await store.append(key(session), turn(session, number))


def measured(mine: bool, measure: Callable[[Any], Awaitable[float]], sessions: int = 0, turns: int = 0) -> Callable[[Path], float]:
    """What `measure` says of a store that a process opens, in which another has written these sessions."""

    def run(place: Path) -> float:
        async def opened(look: Callable[[Any], Awaitable[float]]) -> float:
            async with AsyncExitStack() as stack:
                if not mine:
                    return await look(Files(place))
                return await look(PerdureSessionStore(await stack.enter_async_context(perdure.open(f"sqlite:///{place}/perdure.db"))))

        async def fill(store: Any) -> float:
            await asyncio.gather(*[converse(store, number, turns) for number in range(sessions)])
            return 0

        if sessions:
            asyncio.run(opened(fill))
        return asyncio.run(opened(measure))

    return run


def talking(sessions: int, turns: int) -> Callable[[Any], Awaitable[float]]:
    """Turns a second of all sessions together."""

    async def measure(store: Any) -> float:
        start = time.perf_counter()
        await asyncio.gather(*[converse(store, number, turns) for number in range(sessions)])
        return sessions * turns / (time.perf_counter() - start)

    return measure


async def resuming(store: Any) -> float:
    """Loads a second of the long session, by a process that has not seen it."""
    start = time.perf_counter()
    lines = await store.load(key(0))
    assert len(lines) == 2 * LONG
    return 1 / (time.perf_counter() - start)


async def listing(store: Any) -> float:
    """Listings a second of all sessions with their summaries, by a process that has not seen them."""
    start = time.perf_counter()
    assert len(await list_sessions_from_store(store, directory="/")) == LISTED
    return 1 / (time.perf_counter() - start)


def main() -> None:
    """Print all tables."""
    machine()
    systems = {"Perdure": True, RIVAL: False}
    for title, unit, measure, sessions, turns in (
        (f"{LONG} turns of one session", "turns/s", talking(1, LONG), 0, 0),
        (f"{SESSIONS} sessions of {SHORT} turns at once", "turns/s", talking(SESSIONS, SHORT), 0, 0),
        (f"resuming a session of {LONG} turns", "loads/s", resuming, 1, LONG),
        (f"listing {LISTED} sessions of {SHORT} turns", "listings/s", listing, LISTED, SHORT),
    ):
        figures = {name: measured(mine, measure, sessions, turns) for name, mine in systems.items()}
        versus(f"Claude Agent SDK, {title}", unit, alternate(figures, ROUNDS))
    used = {}
    for name, mine in systems.items():
        with folder() as place:
            measured(mine, talking(1, LONG))(place)
            used[name] = disk_bytes(place) / LONG
    versus(f"Claude Agent SDK, {LONG} turns of one session", "bytes a turn", used)


if __name__ == "__main__":
    sys.exit(main())
