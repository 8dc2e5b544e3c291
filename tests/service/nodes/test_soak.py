"""Three nodes on one PostgreSQL work for ten minutes, or as long as PERDURE_SOAK_SECONDS says: what each has at rest does not grow."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.servers.fixture import Servers
from tests.servers.node import Nodes
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Server
from tests.support.backends.engines import Engine
from tests.support.service.use import files_open, memory_bytes
from tests.support.service.wear import wear

SECONDS = float(os.environ.get("PERDURE_SOAK_SECONDS", "600"))
WARM_UP = 0.25
"""The share of that in which caches fill."""
REST_SECONDS = 60.0
"""Within so long what is left of a load is gone."""
MORE_BYTES, MORE_FILES, MORE_TASKS = 8 << 20, 6, 4
"""What a node may have besides: pieces of free memory; connections to the engine, of which it keeps a few; tasks of its own, which come and
go."""


class Use(NamedTuple):
    """What a node has."""

    memory: int
    files: int
    sockets: int
    tasks: int
    running: dict[str, int]
    """What the tasks run, and how many of each there are."""


class CountedNodes(Nodes):
    """Nodes that count their tasks."""

    def command(self, node: str) -> list[str]:
        python, _, _, *rest = super().command(node)
        return [python, "-m", "tests.support.service.counted_node", str(self.folder / f"{node}.tasks"), *rest]

    def use(self, node: str) -> Use:
        """What it has now."""
        counted = self.folder / f"{node}.tasks"
        counted.unlink(missing_ok=True)
        self.send(signal.SIGUSR1, node)
        self.wait("a count", counted.exists)
        running: dict[str, int] = json.loads(counted.read_text())
        return Use(memory_bytes(self.pid(node)), *files_open(self.pid(node)), sum(running.values()), running)

    def at_rest(self) -> dict[str, Use]:
        """What each has once it does nothing: as little as it comes to, and twice the same in a row."""
        end, last = time.monotonic() + REST_SECONDS, {node: self.use(node) for node in self.nodes}
        while time.monotonic() < end:
            time.sleep(2)
            now = {node: self.use(node) for node in self.nodes}
            if all(now[node][1:] == last[node][1:] for node in now):
                break
            last = now
        return last


@pytest.fixture
def nodes(servers: Servers[Server], tmp_path: Path) -> Iterator[CountedNodes]:
    """Three nodes on a store of their own."""
    nodes = CountedNodes(tmp_path / "nodes", Engine("postgresql", PostgreSQL).url(servers(PostgreSQL)), count=3)
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()


@pytest.mark.slow("ten minutes of work")
@pytest.mark.timeout(SECONDS * 2 + 300)
async def test_nothing_grows(nodes: CountedNodes) -> None:
    """Memory, open files, sockets and tasks of each node after all kinds of calls, by clients that come and go, are those after a warm-up
    with the same calls."""
    urls = [nodes.url_of(node) for node in nodes.nodes]
    await wear(nodes.url, urls, SECONDS * WARM_UP, seed=1)
    before = await asyncio.to_thread(nodes.at_rest)
    made = await wear(nodes.url, urls, SECONDS * (1 - WARM_UP), seed=2)
    after = await asyncio.to_thread(nodes.at_rest)
    print(f"{sum(made.values()):,} calls: {dict(made)}")
    for node in before:
        print(f"{node}: {before[node]} then {after[node]}")
    for node, use in after.items():
        assert use.memory <= before[node].memory + MORE_BYTES, node
        assert use.files <= before[node].files + MORE_FILES, node
        assert use.sockets <= before[node].sockets + MORE_FILES, node
        assert use.tasks <= before[node].tasks + MORE_TASKS, (node, before[node].running, use.running)
