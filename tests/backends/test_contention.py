"""Several processes on one session: whatever combines gets through, all of it, once, and without trying again and again."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import perdure
from tests.servers.mongodb import MongoDB
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Server
from tests.servers.valkey import Valkey

SERVERS: dict[str, type[Server]] = {"postgresql": PostgreSQL, "valkey": Valkey, "mongodb": MongoDB}
ROOT = Path(__file__).parents[2]
HOW = ("append", "edit", "events", "update")


@pytest.fixture(params=["sqlite", *[pytest.param(name, marks=pytest.mark.server) for name in SERVERS]])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Data that several processes can share."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/store.db"
        return
    servers: Callable[[type[Server]], Any] = request.getfixturevalue("servers")
    address = servers(SERVERS[request.param]).url
    yield f"{address}{'&' if '?' in address else '?'}namespace=t{uuid4().hex[:12]}"


def contend(url: str, *, processes: int, tasks: int, commits: int, how: str) -> float:
    """All begin at once. Each commit is stored once and none failed; the average number of tries that one took."""
    command = [sys.executable, "-m", "tests.support.backends.contender", url, str(tasks), str(commits), how]
    running = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(processes)
    ]
    try:
        for process in running:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
        answers = [json.loads(process.communicate()[0]) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    wanted = processes * tasks * commits
    assert [answer["errors"] for answer in answers] == [{}] * processes
    assert sum(answer["commits"] for answer in answers) == wanted

    async def look() -> tuple[int, int]:
        async with perdure.open(url) as store:
            view = await store.read("s")
            return view.version, view.state.get("n", 0)

    assert asyncio.run(look()) == (wanted, 0 if how == "events" else wanted)
    return sum(answer["tries"] for answer in answers) / wanted


@pytest.mark.long
@pytest.mark.parametrize("how", HOW)
def test_processes_on_one_session_all_get_through(url: str, how: str) -> None:
    """Three processes with two tasks each: no error, nothing lost, nothing doubled."""
    contend(url, processes=3, tasks=2, commits=8, how=how)


@pytest.mark.slow("8 processes on one session, thousands of commits")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("how", HOW)
def test_many_processes_on_one_session_all_get_through(url: str, how: str) -> None:
    """Eight processes, four tasks each, 500 commits a task: no error, nothing lost or doubled, three tries a commit on average at most."""
    assert contend(url, processes=8, tasks=4, commits=500, how=how) <= 3
