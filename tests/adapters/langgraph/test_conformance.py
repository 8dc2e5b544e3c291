"""The framework's own suite for checkpointers, whole, on each kind of store; and what it asks of delta channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.serde.types import _DeltaSnapshot

import perdure
import perdure.sync
from perdure.adapters.langgraph import PerdureSaver
from tests.support.adapters.langgraph_chats import config

COUNTS = {
    "put": 17,
    "put_writes": 10,
    "get_tuple": 10,
    "list": 16,
    "delete_thread": 5,
    "delete_for_runs": 7,
    "copy_thread": 8,
    "prune": 8,
}
"""The capabilities, and how many tests each has: 81."""


@pytest.mark.parametrize("kind", ["memory", "sqlite", "blocking"])
def test_all_81_tests_of_all_8_capabilities_pass(kind: str, tmp_path: Path) -> None:
    """The suite that langgraph-checkpoint-conformance ships passes unchanged, on an asynchronous and on a blocking store."""

    @checkpointer_test(name=f"PerdureSaver-{kind}")
    async def make() -> AsyncIterator[PerdureSaver]:
        if kind == "blocking":
            with perdure.sync.open(f"sqlite:///{tmp_path}/blocking.db") as store:
                yield PerdureSaver(store)
        else:
            async with perdure.open("memory:" if kind == "memory" else f"sqlite:///{tmp_path}/s.db") as store:
                yield PerdureSaver(store)

    report = asyncio.run(validate(make))
    assert [failure for result in report.results.values() for failure in result.failures] == []
    assert {name: result.tests_passed for name, result in report.results.items()} == COUNTS


class Chain:
    """A thread whose checkpoints hold a delta channel's value only where a snapshot of it was taken."""

    def __init__(self, saver: PerdureSaver, thread: str = "delta") -> None:
        self.saver, self.thread = saver, thread
        self.head: Any = config(thread, checkpoint_ns="")

    def step(self, number: int, values: dict[str, Any], writes: list[tuple[str, Any]], task: str | None = None, path: str = "") -> Any:
        """Put a checkpoint with these values, then a task's writes on it."""
        checkpoint = Checkpoint({**empty_checkpoint(), "id": str(uuid6()), "channel_values": values})
        self.head = self.saver.put(self.head, checkpoint, {"source": "loop", "step": number, "parents": {}}, {})
        if writes:
            self.saver.put_writes(self.head, writes, task or f"task-{number}", path)
        return self.head

    def history(self, *channels: str, at: Any = None) -> dict[str, tuple[list[Any], Any]]:
        """The values written, and the seed, of each channel; both halves of the saver must agree."""
        here = at or self.head
        blocking = self.saver.get_delta_channel_history(config=here, channels=channels)
        assert blocking == asyncio.run(self.saver.aget_delta_channel_history(config=here, channels=channels))
        return {name: ([write[2] for write in entry["writes"]], entry.get("seed", "none")) for name, entry in blocking.items()}


@pytest.fixture
def chain(tmp_path: Path) -> Any:
    """An empty thread on a store of its own."""
    with perdure.sync.open(f"sqlite:///{tmp_path}/delta.db") as store:
        yield Chain(PerdureSaver(store))


def test_delta_writes_come_oldest_first_from_the_nearest_snapshot(chain: Chain) -> None:
    """The walk stops at the nearest ancestor with a value, takes the writes made on it, and leaves out those on the head itself."""
    for number in range(6):
        chain.step(number, {"ch": _DeltaSnapshot(number)} if number in (0, 3) else {}, [("ch", f"w{number}")])
    assert chain.history("ch") == {"ch": (["w3", "w4"], _DeltaSnapshot(3))}


def test_delta_channels_end_their_walks_apart(chain: Chain) -> None:
    """Each channel has its own seed; one without any goes back to the root; no channels, no answer."""
    for number in range(5):
        values = {"a": {1: "snap-a"}.get(number), "b": {3: [1, 2]}.get(number)}
        chain.step(
            number, {name: value for name, value in values.items() if value is not None}, [("a", number), ("b", number), ("c", number)]
        )
    assert chain.history("a", "b", "c") == {"a": ([1, 2, 3], "snap-a"), "b": ([3], [1, 2]), "c": ([0, 1, 2, 3], "none")}
    assert chain.history() == {}
    assert chain.history("a", at=config("nobody")) == {"a": ([], "none")}


def test_delta_writes_of_one_step_are_in_the_order_of_their_tasks(chain: Chain) -> None:
    """Parallel tasks count by path, not by id; writes without a path (input) come first."""
    at = chain.step(0, {}, [])
    chain.saver.put_writes(at, [("ch", "second")], "0" * 8, "~pull, 02")
    chain.saver.put_writes(at, [("ch", "first")], "f" * 8, "~pull, 01")
    chain.saver.put_writes(at, [("ch", "input")], "f" * 9)
    chain.step(1, {}, [])
    assert chain.history("ch") == {"ch": (["input", "first", "second"], "none")}


def test_delta_history_follows_the_parents_of_a_branch(chain: Chain) -> None:
    """What was written on another branch does not count; ancestors that were pruned do, and so do those far back."""
    chain.step(0, {"ch": "seed"}, [("ch", "w0")])
    for number in range(1, 150):
        chain.step(number, {}, [("ch", f"w{number}")])
    fork, main = chain.head, [f"w{number}" for number in range(150)]
    chain.step(150, {}, [("ch", "other branch")])
    chain.head = fork
    chain.step(150, {}, [("ch", "pending")])
    assert chain.history("ch") == {"ch": (main, "seed")}
    chain.saver.prune([chain.thread])
    assert len(list(chain.saver.list(config(chain.thread)))) == 1
    assert chain.history("ch") == {"ch": (main, "seed")}
