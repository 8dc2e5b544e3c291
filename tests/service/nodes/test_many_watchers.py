"""Ten thousand event streams on one node: each hears every commit once and in order, others are served meanwhile, and each costs little."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event
from tests.servers.node import Nodes
from tests.support.docs.pages import ROOT
from tests.support.needs import missing
from tests.support.service.use import memory_bytes

COUNT, SESSIONS, PROCESSES = 10_000, 100, 2
FEW = 200
"""Streams that a node has had when its memory is looked at for the first time."""
KIB_MAX = 40
OPEN_LEAST = 0.8
"""The share of watchers whose streams are open at any time: a node ends each after about a minute, and they come back."""
FILES = 512
"""Files that a node and its clients open besides."""
resource = pytest.importorskip("resource")


class Watching:
    """A process with many streams."""

    def __init__(self, port: int, count: int) -> None:
        command = [sys.executable, "-m", "tests.support.service.many_watchers", str(port), str(SESSIONS), str(count)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def ask(self) -> dict[str, Any]:
        """How its streams stand."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert not found["wrong"], found
        return found

    def end(self) -> None:
        with self._process:
            self._process.kill()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Nodes]:
    """One node."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < COUNT + FILES:
        missing(f"needs {COUNT + FILES:,} open files in a process, and {most:,} are allowed: raise `ulimit -Hn`")
    nodes = Nodes(tmp_path / "nodes")
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()


async def until_all(processes: list[Watching], version: int) -> int:
    """Wait until each watcher has come to this version. How many streams are open then: some are always about to be opened again."""
    while True:
        said = await asyncio.to_thread(lambda: [process.ask() for process in processes])
        if min(each["least"] for each in said) >= version:
            return sum(each["open"] for each in said)
        await asyncio.sleep(0.2)


@pytest.mark.slow("ten thousand event streams")
@pytest.mark.timeout(900)
async def test_ten_thousand_watchers(node: Nodes) -> None:
    """They hear what is written meanwhile; a writer and a reader are served."""
    processes: list[Watching] = []
    pid, port = node.pid("node0"), node.port("node0")

    async def write(version: int) -> None:
        receipts = await asyncio.gather(*[store.append(f"s{number}", Event("note", number)) for number in range(SESSIONS)])
        assert {receipt.version for receipt in receipts} == {version}

    try:
        async with perdure.open(f"{node.url}?timeout=60") as store:
            await write(1)
            processes.append(Watching(port, FEW))
            few = await until_all(processes, 1)
            before = memory_bytes(pid)
            processes += [Watching(port, (COUNT - FEW) // PROCESSES) for _ in range(PROCESSES)]
            each = []
            for version in (1, 2, 3, 4):
                if version > 1:
                    await write(version)
                    assert (await store.read("s0")).version == version
                many = await until_all(processes, version)
                each.append((memory_bytes(pid) - before) / (many - few) / 1024)
                print(f"{many:,} of {COUNT:,} streams open, each heard version {version}, {each[-1]:.1f} KiB each")
                assert many > COUNT * OPEN_LEAST
    finally:
        for process in processes:
            process.end()
    assert max(each) <= KIB_MAX
