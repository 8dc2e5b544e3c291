"""Google ADK's session services on one disk: turns a second, and bytes. All of them sync each commit.

A turn appends two events, a question and an answer that changes the state.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from _harness import alternate, disk_bytes, folder, machine, small, versus
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions import BaseSessionService, Session
from google.adk.sessions.database_session_service import DatabaseSessionService
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.genai import types

import perdure
from perdure.adapters.google_adk import PerdureSessionService

SESSIONS = 64
TURNS = 3 if small() else 60
RIVAL_TURNS = 2 if small() else 4
LONE = 6 if small() else 300
RIVAL_LONE = 4 if small() else 60
LONG = 20 if small() else 1_000
ROUNDS = 1 if small() else 3
TEXT = "Find a quiet room near the river for two nights. " * 8

Open = Callable[[Path, AsyncExitStack], Awaitable[BaseSessionService]]


async def ours(place: Path, stack: AsyncExitStack) -> BaseSessionService:
    """Perdure's service."""
    return PerdureSessionService(await stack.enter_async_context(perdure.open(f"sqlite:///{place}/perdure.db")))


async def database(place: Path, stack: AsyncExitStack) -> BaseSessionService:
    """ADK's service on SQLAlchemy, waiting longer than it would for the lock, which it needs at 64 sessions."""
    return await stack.enter_async_context(DatabaseSessionService(f"sqlite+aiosqlite:///{place}/adk.db", connect_args={"timeout": 60}))


async def sqlite(place: Path, _stack: AsyncExitStack) -> BaseSessionService:
    """ADK's service on aiosqlite, whose wait for the lock (5 s) cannot be set."""
    return Patient(f"{place}/adk.db")


class Patient(SqliteSessionService):
    """SqliteSessionService called as its users must call it at 64 sessions: again, when the database was locked."""

    async def create_session(self, **who: object) -> Session:
        """As the framework's."""
        return await again(lambda: super(Patient, self).create_session(**who))  # type: ignore[arg-type]

    async def append_event(self, session: Session, event: Event) -> Event:
        """As the framework's."""
        return await again(lambda: super(Patient, self).append_event(session, event))


async def again(call: Callable[[], Awaitable[Any]]) -> Any:
    """Call until the database is not locked."""
    while True:
        try:
            return await call()
        except sqlite3.OperationalError:
            await asyncio.sleep(random.uniform(0.001, 0.01))


SERVICES: dict[str, Open] = {"Perdure": ours, "ADK DatabaseSessionService": database, "ADK SqliteSessionService": sqlite}


def turn(number: int) -> list[Event]:
    """What one turn appends: a question, and an answer that changes the state."""
    return [
        Event(invocation_id=f"i{number}", author="user", content=types.Content(role="user", parts=[types.Part(text=TEXT)])),
        Event(
            invocation_id=f"i{number}",
            author="planner",
            content=types.Content(role="model", parts=[types.Part(text=TEXT)]),
            actions=EventActions(state_delta={"turn": number, "status": "searching"}),
        ),
    ]


async def talk(service: BaseSessionService, name: str, turns: int) -> None:
    """A session from its first turn on."""
    session = await service.create_session(app_name="shop", user_id="ann", session_id=name)
    for number in range(turns):
        for event in turn(number):
            await service.append_event(session, event)


def speed(name: str, sessions: int, turns: int) -> Callable[[Path], float]:
    """Turns a second of all sessions together."""

    def measure(place: Path) -> float:
        async def run() -> float:
            async with AsyncExitStack() as stack:
                service = await SERVICES[name](place, stack)
                await talk(service, "first", 1)
                start = time.perf_counter()
                await asyncio.gather(*[talk(service, f"s{number}", turns) for number in range(sessions)])
                return sessions * turns / (time.perf_counter() - start)

        return asyncio.run(run())

    return measure


def bytes_a_turn(name: str) -> float:
    """Bytes a turn of one long session."""
    with folder() as place:
        speed(name, 1, LONG)(place)
        return disk_bytes(place) / LONG


def main() -> None:
    """Print all tables."""
    machine()
    gc.freeze()  # What importing the frameworks made is not searched for garbage again, in no system.
    lone = {name: speed(name, 1, LONE if name == "Perdure" else RIVAL_LONE) for name in SERVICES}
    versus("Google ADK, one session", "turns/s", alternate(lone, ROUNDS))
    together = {name: speed(name, SESSIONS, TURNS if name == "Perdure" else RIVAL_TURNS) for name in SERVICES}
    versus("Google ADK, 64 sessions at once", "turns/s", alternate(together, ROUNDS))
    versus(f"Google ADK, {LONG} turns of one session", "bytes a turn", {name: bytes_a_turn(name) for name in SERVICES})


if __name__ == "__main__":
    sys.exit(main())
