"""Calls of a saver that are stored in batches: how the tests begin them, and see them wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

import perdure.sync
from perdure.adapters.langgraph import PerdureSaver, write_batching
from tests.support.adapters.langgraph_chats import config

META: Any = {"source": "loop", "step": 0, "parents": {}}
SESSION = "langgraph/trip-42"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[perdure.sync.Store]:
    with perdure.sync.open(f"sqlite:///{tmp_path}/agents.db") as opened:
        yield opened


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may be held is held until company comes: the clock decides nothing."""
    monkeypatch.setattr(write_batching, "HOLD", 60.0)


def running(here: Any) -> Any:
    """A config as a graph that runs passes it."""
    return {"configurable": {**here["configurable"], "__pregel_runtime": None}}


def checkpoint(**values: Any) -> Any:
    return {**empty_checkpoint(), "id": str(uuid6()), "channel_values": values}


def begun(saver: PerdureSaver) -> Any:
    return saver.put(config(checkpoint_ns=""), checkpoint(), META, {})


def until_held(saver: PerdureSaver, count: int = 1) -> None:
    """Wait until so many calls wait in the saver, and their leader for company."""
    while not any(queue.holding and len(queue.waiting) == count for queue in list(saver._batcher._queues.values())):
        threading.Event().wait(0.001)
