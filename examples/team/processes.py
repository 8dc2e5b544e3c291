"""The team as processes: starts one for each, starts it again when it dies, and kills some on purpose."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import perdure
from perdure import Commit, Event

from .desk import Desk
from .roles import LAST, SESSION, TEAM, Worker, work

QUESTION = "Two nights in Rome. By plane or by train?"
Choose = Callable[[Commit], str | None]
"""Whom to kill now that this commit was seen, if anybody."""


def nobody(commit: Commit) -> None:
    """Kill nobody."""


def somebody(kills: int, seed: int) -> Choose:
    """Kill one of the team by chance after some of the first commits: so many times at most, for some are dead just then."""
    chance = random.Random(seed)
    after = set(chance.sample(range(2, 18), kills))
    return lambda commit: chance.choice(TEAM) if commit.version in after else None


class Team:
    """The four processes."""

    def __init__(self, url: str, desk: str, thinking: float) -> None:
        self.url, self.desk, self.thinking = url, desk, thinking
        self.killed: list[str] = []
        self._running: dict[str, BaseProcess] = {}
        self._context = multiprocessing.get_context("spawn")

    async def run(self, choose: Choose) -> None:
        """Ask the question, and wait until all four have ended by themselves."""
        Desk(self.desk)
        async with perdure.open(self.url) as store:
            await store.append(SESSION, Event("asked", {"question": QUESTION}), key="question", actor="you")
            try:
                async with asyncio.TaskGroup() as group:
                    for name in TEAM:
                        group.create_task(self._keep(name))
                    group.create_task(self._kill(store, choose))
            finally:
                for process in self._running.values():
                    process.kill()

    async def _keep(self, name: str) -> None:
        """Run one of the team until it ends by itself."""
        while True:
            process = self._context.Process(target=run_worker, args=(name, self.url, self.desk, self.thinking))
            self._running[name] = process
            process.start()
            await asyncio.to_thread(process.join)
            if process.exitcode == 0:
                return
            if process.exitcode != -signal.SIGKILL:
                raise RuntimeError(f"{name} ended with {process.exitcode}.")

    async def _kill(self, store: perdure.Store, choose: Choose) -> None:
        """Look at each commit, and kill who is chosen."""
        async for commit in store.watch(SESSION):
            name = choose(commit)
            if name is not None and self._running[name].is_alive():
                self._running[name].kill()
                self.killed.append(name)
            if any(event.type == LAST for event in commit.events):
                return


def run_worker(name: str, url: str, desk: str, thinking: float) -> None:
    """One process."""

    async def main() -> None:
        async with perdure.open(url) as store:
            await work(Worker(name, store, Desk(desk), thinking))

    asyncio.run(main())
