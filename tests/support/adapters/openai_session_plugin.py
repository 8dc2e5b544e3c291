"""A pytest plugin for the SDK's own tests, which stay as they are: the SQLiteSession that they make is Perdure's.

Loaded by name in a process of its own, before any test module is imported. A path stands for a store, closed with its last session.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from pathlib import Path
from typing import Any

import agents
import agents.extensions.memory.encrypt_session
import agents.memory
import agents.memory.sqlite_session

import perdure.sync
from perdure.adapters.openai_agents import PerdureSession

STORES: dict[str, Any] = {}
USERS: dict[str, int] = {}
LOCK = threading.Lock()
NUMBER = itertools.count()


class SQLiteSession(PerdureSession):
    """A PerdureSession with the arguments and the `close` of the SDK's class."""

    def __init__(
        self,
        session_id: str,
        db_path: str | Path = ":memory:",
        sessions_table: str = "",
        messages_table: str = "",
        session_settings: Any = None,
    ) -> None:
        self._place = f"memory {next(NUMBER)}" if str(db_path) == ":memory:" else f"{Path(db_path).resolve()}.perdure"
        with LOCK:
            if self._place not in STORES:
                STORES[self._place] = perdure.sync.open("memory:" if self._place.startswith("memory ") else f"sqlite:///{self._place}")
            USERS[self._place] = USERS.get(self._place, 0) + 1
        self._open = True
        super().__init__(session_id, STORES[self._place], session_settings=session_settings)

    def close(self) -> None:
        """Close the store when nobody else has it."""
        with LOCK:
            if self._open:
                self._open = False
                USERS[self._place] -= 1
                if not USERS[self._place]:
                    STORES.pop(self._place).close()


def pytest_runtest_teardown() -> None:
    """Close what a test left open."""
    for place in list(STORES):
        if "memory" in place:
            continue
        with contextlib.suppress(Exception), LOCK:
            STORES.pop(place).close()
            USERS[place] = 0


def pytest_sessionfinish() -> None:
    """Close the rest."""
    for place in list(STORES):
        STORES.pop(place).close()


# The encrypted session was imported first and knows the SDK's class: Perdure's is a stranger to it, as it is in life.
for module in (agents, agents.memory, agents.memory.sqlite_session):
    module.SQLiteSession = SQLiteSession  # type: ignore[attr-defined]
