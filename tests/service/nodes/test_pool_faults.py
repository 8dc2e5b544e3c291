"""Workers in several processes claim work through three nodes on one PostgreSQL, while nodes and workers are killed and stand still: each
piece of work is done at least once, and its result is there once."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

import perdure
from perdure import Event
from tests.servers.node import Nodes
from tests.support.docs.pages import ROOT
from tests.support.service.node_faults import TIMEOUTS, kill_and_pause
from tests.support.service.pool_workers import PREFIX, RESULT
from tests.support.service.programs import Programs
from tests.support.service.told import Tellers, module

pytestmark = pytest.mark.timeout(600)
JOBS = 150
"""At least; there are more where the faults take longer."""
PROCESSES = 3
STEP = 6
"""Results between two faults."""
TYPESCRIPT = ROOT / "tests" / "support" / "service" / "pool_workers.js"


class Pool(Tellers):
    """Processes of workers, and the work."""

    def __init__(self, store: perdure.Store, url: str, programs: Programs | None) -> None:
        super().__init__()
        self.jobs: list[str] = []
        self._store, self._url, self._programs, self._numbers = store, url, programs, count()

    async def add(self) -> None:
        """One more process."""
        number = next(self._numbers)
        if self._programs is not None and number % PROCESSES:
            await self.start(f"ts{number}", self._programs.command(TYPESCRIPT.read_text(), self._url, f"ts{number}"))
        else:
            await self.start(f"py{number}", module("pool_workers", f"{self._url}?{TIMEOUTS}", f"py{number}"))

    async def post(self, jobs: int) -> None:
        """So much more work that is due."""
        for _ in range(jobs):
            job = f"{PREFIX}{len(self.jobs)}"
            self.jobs.append(job)
            await self._store.append(job, Event("posted"))
            await self._store.configure(job, wake_at=datetime.now(UTC), wake="claim")

    def results(self) -> set[str]:
        """The pieces of work whose result was acknowledged."""
        return {line["session"] for line in self.lines if line["what"] == "wrote"}

    async def more(self, results: int) -> None:
        """Until so many more pieces of work had a result. There is always more to do than that."""
        aim = len(self.results()) + results
        await self.post(max(aim + STEP - len(self.jobs), 0))
        await self.until(lambda: len(self.results()) >= aim)

    def doing(self, name: str) -> set[str]:
        """What a process has begun, and told no result of."""
        begun = {line["take"]: line["session"] for line in self.lines if line["by"] == name and line["what"] == "doing"}
        ended = {line["take"] for line in self.lines if line["by"] == name and line["what"] in ("wrote", "fenced")}
        return {session for take, session in begun.items() if take not in ended}

    async def die_and_faint(self) -> None:
        """Each process is killed in the middle of its work; another one stands still until others have done what it had begun."""
        for name in self.living():
            await self.post(STEP * PROCESSES)
            await self.until(lambda name=name: self.doing(name))  # type: ignore[misc]
            await self.kill(name)
            await self.add()
            await self.until(lambda name=name: self.doing(name) <= self.results())  # type: ignore[misc]
        for name in self.living():
            await self.post(STEP * PROCESSES)
            await self.until(lambda name=name: self.doing(name))  # type: ignore[misc]
            self.send(signal.SIGSTOP, name)
            await self.until(lambda name=name: self.doing(name) <= self.results())  # type: ignore[misc]
            self.send(signal.SIGCONT, name)

    async def all_done(self) -> None:
        """Until no work is due, and no alarm stands."""
        await self.until(lambda: self.results() == {*self.jobs})
        async with asyncio.timeout(60):
            while [job for job in self.jobs if (await self._store.policy(job)).wake_at is not None]:  # noqa: ASYNC110 - it is in the store
                await asyncio.sleep(0.2)


@pytest.mark.parametrize("language", ["python", "typescript"])
@pytest.mark.slow("nodes and workers are killed, and stand still past every time-out")
async def test_work_is_done_and_its_result_is_there_once(three_nodes: Nodes, store_url: str, tmp_path: Path, language: str) -> None:
    """What a worker that died had begun, another one does. Nobody works on what is done; a result that two workers sent is there once."""
    programs = Programs(tmp_path / "programs") if language == "typescript" else None
    async with perdure.open(store_url) as store:
        pool = Pool(store, three_nodes.url, programs)
        try:
            await pool.post(JOBS)
            for _ in range(PROCESSES):
                await pool.add()
            await asyncio.gather(kill_and_pause(three_nodes, pool.more, STEP), pool.die_and_faint())
            await pool.all_done()
            await pool.stop()
        finally:
            await pool.cancel()
        twice = 0
        begun = [line["session"] for line in pool.lines if line["what"] == "doing"]
        for job in pool.jobs:
            await store.verify(job)
            chain = [commit async for commit in store.history(job, control=True)]
            (result,) = [commit.version for commit in chain if commit.key == RESULT]
            types = [event.type for commit in chain for event in commit.events]
            assert types.count(RESULT) == types.count("handled") == 1
            assert types.index("woken") < types.index(RESULT) < types.index("handled")
            assert types.count("woken") >= begun.count(job) >= 1
            assert {line["version"] for line in pool.lines if line["what"] == "wrote" and line["session"] == job} == {result}
            twice += types.count("woken") > 1
        said = {what: pool.count(what) for what in ("doing", "wrote", "unsure", "fenced")}
        print(f"{len(pool.jobs)} pieces of work, {twice} of them handed out again, {said}")
        assert twice
