"""Leases between processes on real engines: holders that are killed, that stand still, and whose clocks are hours off."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import perdure
from tests.servers.cassandra import Cassandra
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Server
from tests.servers.valkey import Valkey

SERVERS: dict[str, type[Server]] = {"postgresql": PostgreSQL, "valkey": Valkey, "cassandra": Cassandra}
ROOT = Path(__file__).parents[2]
HOUR = 3600.0
PARAMETERS = [
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.server),
    pytest.param("valkey", marks=pytest.mark.server),
    pytest.param("cassandra", marks=[pytest.mark.server, pytest.mark.fetched, pytest.mark.slow("a ttl of ten seconds, on a JVM")]),
]


@pytest.fixture(params=PARAMETERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Data that several processes can share."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/store.db"
        return
    servers: Callable[[type[Server]], Any] = request.getfixturevalue("servers")
    address = servers(SERVERS[request.param]).url
    yield f"{address}{'&' if '?' in address else '?'}namespace=t{uuid4().hex[:12]}"


class Worker:
    """A process that wants the session, and what it has said."""

    def __init__(self, url: str, owner: str, wait: float, offset: float) -> None:
        command = [sys.executable, "-m", "tests.support.backends.lease_worker", url, owner, str(wait), str(offset)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.said: list[str] = []
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.said.append(line.strip())
                self._news.notify_all()

    def until(self, word: str, count: int = 1) -> None:
        """Wait until it has said so many lines that begin with this word."""
        with self._news:
            met = self._news.wait_for(lambda: sum(line.startswith(word) for line in self.said) >= count, timeout=120)
        assert met, (word, self.said[-5:])

    @property
    def versions(self) -> list[int]:
        """The versions that it was told of."""
        return [int(line.split()[1]) for line in self.said if line.startswith("wrote")]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._thread.join(60)
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def worker(url: str) -> Iterator[Callable[..., Worker]]:
    """Starts workers on the data, and ends them after the test."""
    started: list[Worker] = []

    def start(owner: str, *, wait: float = 100, offset: float = 0.0) -> Worker:
        started.append(Worker(url, owner, wait, offset))
        return started[-1]

    yield start
    for each in started:
        each.end()


def judge(url: str, *workers: Worker) -> list[str]:
    """No commit under a token follows one under a higher token, and each that was acknowledged is there. The owners, in order."""

    async def look() -> list[perdure.Commit]:
        async with perdure.open(url) as store:
            await store.verify("s")
            return [commit async for commit in store.history("s")]

    commits = asyncio.run(look())
    tokens = [commit.events[0].data["token"] for commit in commits]
    assert tokens == sorted(tokens)
    assert [commit.epoch >> 14 for commit in commits] == tokens
    stored = {commit.version: commit.events[0].data["owner"] for commit in commits}
    for name, each in zip("ab", workers, strict=False):
        assert {stored.get(version) for version in each.versions} <= {name}
    return list(dict.fromkeys(stored.values()))


def test_a_holder_that_is_killed_is_followed(url: str, worker: Callable[..., Worker]) -> None:
    """Kill -9 in the middle of its writes; clocks two hours apart. The next one takes over, and nothing acknowledged is lost."""
    first = worker("a", offset=HOUR)
    first.until("wrote", 5)
    second = worker("b", offset=-HOUR)
    second.until("ready")
    first.process.kill()
    second.until("wrote", 5)
    second.end()
    assert judge(url, first, second) == ["a", "b"]


def test_a_holder_that_stands_still_is_fenced(url: str, worker: Callable[..., Worker]) -> None:
    """SIGSTOP for longer than its ttl: another one takes over, and when the first goes on its next write is refused."""
    first = worker("a", offset=-HOUR)
    first.until("wrote", 5)
    first.process.send_signal(signal.SIGSTOP)
    second = worker("b", offset=HOUR)
    second.until("wrote", 5)
    first.process.send_signal(signal.SIGCONT)
    first.until("fenced")
    second.until("wrote", len(second.versions) + 5)
    first.end()
    second.end()
    assert judge(url, first, second) == ["a", "b"]


def test_a_holder_that_stands_still_alone_goes_on(url: str, worker: Callable[..., Worker]) -> None:
    """The same where nobody wants the session: it goes on under its token."""
    first = worker("a")
    first.until("wrote", 5)
    first.process.send_signal(signal.SIGSTOP)
    threading.Event().wait(3.5)
    first.process.send_signal(signal.SIGCONT)
    first.until("wrote", len(first.versions) + 5)
    first.end()
    assert "fenced" not in first.said
    assert judge(url, first) == ["a"]


def test_a_holder_that_answers_is_not_deposed(url: str, worker: Callable[..., Worker]) -> None:
    """One who waits for more than two ttls is refused by a holder at work."""
    first = worker("a", offset=HOUR)
    first.until("wrote", 5)
    second = worker("b", wait=8, offset=-HOUR)
    second.until("refused")
    first.until("wrote", len(first.versions) + 5)
    first.end()
    assert judge(url, first, second) == ["a"]
