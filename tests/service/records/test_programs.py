"""Programs that move from a file to a service by a change of their URL."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import perdure
import perdure.sync
from perdure import Event
from tests.support.docs.pages import ROOT, blocks
from tests.support.service.nodes import serving


def test_the_first_program_runs_on_a_service(tmp_path: Path) -> None:
    """The README's program, with the node's URL in place of the file's, does the same, and goes on when it runs again."""
    text = next(block.text for block in blocks(ROOT / "README.md") if block.language == "python")
    assert "sqlite:///agents.db" in text
    with serving(f"sqlite:///{tmp_path}/store.db") as node:
        (tmp_path / "first.py").write_text(text.replace("sqlite:///agents.db", node.url))
        command, environment = [sys.executable, "-W", "error", "first.py"], {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        runs = [subprocess.check_output(command, cwd=tmp_path, env=environment, text=True) for _ in range(2)]
    assert [run.split()[:2] for run in runs] == [["version", "1"], ["version", "2"]]
    assert "[{'id': 7}, {'id': 7}]" in runs[1]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["asynchronous", "blocking"])
def test_langgraph_keeps_its_checkpoints_on_a_service(kind: str, tmp_path: Path) -> None:
    """The framework's own suite for checkpointers passes on a store behind a node, as it does on a file."""
    suite = pytest.importorskip("langgraph.checkpoint.conformance")
    from perdure.adapters.langgraph import PerdureSaver
    from tests.adapters.langgraph.test_conformance import COUNTS

    with serving(f"sqlite:///{tmp_path}/store.db") as node:

        @suite.checkpointer_test(name=f"PerdureSaver-{kind}")  # type: ignore[untyped-decorator]
        async def make() -> AsyncIterator[PerdureSaver]:
            if kind == "blocking":
                with perdure.sync.open(node.url) as store:
                    yield PerdureSaver(store)
            else:
                async with perdure.open(node.url) as opened:
                    yield PerdureSaver(opened)

        report = asyncio.run(suite.validate(make))
    assert [failure for result in report.results.values() for failure in result.failures] == []
    assert {name: result.tests_passed for name, result in report.results.items()} == COUNTS


def test_any_thread_and_loop_may_use_one_store(tmp_path: Path) -> None:
    """Threads without a loop and with loops of their own write through one client: nothing is lost."""
    with serving(f"sqlite:///{tmp_path}/store.db") as node, perdure.sync.open(node.url) as store:

        def write(name: str) -> None:
            for number in range(20):
                store.append("s", Event("note", f"{name}{number}"))

        threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = [commit.events[0].data for commit in store.history("s")]
        assert sorted(found) == sorted(f"{name}{number}" for name in "abcd" for number in range(20))


async def test_watchers_hear_of_other_clients(tmp_path: Path) -> None:
    """What one client writes wakes a watcher of another one at once: by a notice, for polls come seldom."""
    with serving(f"sqlite:///{tmp_path}/store.db") as node:
        async with perdure.open(node.url) as store, perdure.open(node.url) as other:
            await other.append("s", Event("note", 0))
            seen: list[object] = []
            heard = asyncio.Event()

            async def watch() -> None:
                async for commit in store.watch("s"):
                    seen.append(commit.events[0].data)
                    heard.set()

            task = asyncio.create_task(watch())
            for number in range(1, 8):
                while len(seen) < number:
                    async with asyncio.timeout(20):
                        await heard.wait()
                    heard.clear()
                await other.append("s", Event("note", number))
            task.cancel()
            assert seen[:7] == list(range(7))
