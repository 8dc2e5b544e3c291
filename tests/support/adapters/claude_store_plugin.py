"""A pytest plugin for the SDK's own tests, which stay as they are: the InMemorySessionStore that they make is Perdure's.

Loaded by name in a process of its own, before any test module is imported. Each store object is a store of its own.
"""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

import claude_agent_sdk
import claude_agent_sdk._internal.session_store

import perdure.sync
from perdure.adapters.claude_agent import PerdureSessionStore
from perdure.adapters.common.sync_async import wait
from perdure.clock import SeededClock

STORES: list[Any] = []
NUMBER = itertools.count()


class InMemorySessionStore(PerdureSessionStore):
    """A PerdureSessionStore with the constructor and the test helpers of the SDK's class."""

    def __init__(self) -> None:
        place = os.environ["PERDURE_SUITE_PLACE"]
        url = "memory:" if os.environ["PERDURE_SUITE_ENGINE"] == "memory" else f"sqlite:///{place}/{next(NUMBER)}.db"
        # No two writes fall into one millisecond, the finest that the SDK's times tell apart: its own class sees to that too.
        STORES.append(perdure.sync.open(url, clock=SeededClock(1, start=time.time_ns())))
        super().__init__(STORES[-1])

    def get_entries(self, key: Any) -> list[Any]:
        """All lines, or none."""
        return list(wait(self._load(key)) or ())

    @property
    def size(self) -> int:
        """How many main transcripts there are."""
        return sum(info.session.count("/") == 2 for info in STORES[-1].list())


for module in (claude_agent_sdk, claude_agent_sdk._internal.session_store):
    module.InMemorySessionStore = InMemorySessionStore  # type: ignore[attr-defined, misc]


def pytest_runtest_teardown() -> None:
    """Close what the test opened."""
    while STORES:
        STORES.pop().close()
