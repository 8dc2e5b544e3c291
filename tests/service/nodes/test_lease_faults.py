"""Agents in several processes contend for leases through three nodes on one PostgreSQL, while nodes are killed, stand still, restart or are
cut off, and agents die: one holds a session at a time, in the chain and in what each of them was told."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

import perdure
from tests.servers.fixture import Servers
from tests.servers.node import Nodes
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Server
from tests.support.docs.pages import ROOT
from tests.support.service.lease_agents import SESSIONS
from tests.support.service.lease_history import History
from tests.support.service.node_faults import TIMEOUTS, cut_off, kill_and_pause, on_lines, restart_in_turn
from tests.support.service.programs import Programs
from tests.support.service.told import Tellers, module

pytestmark = pytest.mark.timeout(600)
LANGUAGES = pytest.mark.parametrize("language", ["python", "typescript"])
TYPESCRIPT = ROOT / "tests" / "support" / "service" / "lease_agents.js"


class Agents(Tellers):
    """Processes of agents."""

    def __init__(self, url: str, language: str, folder: Path, thinks: float = 0.2) -> None:
        """With `typescript`, two of each three are programs of the TypeScript client. `thinks`: see `lease_agents`."""
        super().__init__()
        self._url, self._thinks = url, str(thinks)
        self._programs = Programs(folder) if language == "typescript" else None
        self._numbers = count()

    async def add(self) -> str:
        """One more; its name."""
        number = next(self._numbers)
        if self._programs is not None and number % 3:
            name = f"ts{number}"
            await self.start(name, self._programs.command(TYPESCRIPT.read_text(), self._url, name, self._thinks))
        else:
            name = f"py{number}"
            await self.start(name, module("lease_agents", f"{self._url}?{TIMEOUTS}", name, self._thinks))
        return name

    async def more(self, steps: int) -> None:
        """Until so many more writes were acknowledged, and a lease was taken."""
        writes, takes = self.count("wrote") + steps, self.count("held")
        await self.until(lambda: self.count("wrote") >= writes and self.count("held") > takes)

    def holding(self, name: str) -> dict[str, str]:
        """The sessions that a process holds, as far as it has told, and by which take."""
        ended = {line["take"] for line in self.lines if line["what"] in ("released", "fenced", "over")}
        held = [line for line in self.lines if line["what"] == "held" and line["by"] == name and line["take"] not in ended]
        return {line["session"]: line["take"] for line in held}

    async def followed(self, name: str, sessions: set[str]) -> None:
        """Until another process holds each of these sessions, after what was told so far."""
        known = len(self.lines)
        await self.until(
            lambda: sessions <= {line["session"] for line in self.lines[known:] if line["what"] == "held" and line["by"] != name}
        )

    async def die(self, name: str) -> None:
        """Kill it while it holds something; somebody else takes that over, and another process comes in its place."""
        await self.until(lambda: self.holding(name))
        await self.kill(name)
        await self.followed(name, set(self.holding(name)))
        await self.add()

    async def faint(self, name: str) -> None:
        """Stop it while it holds something, until somebody else has that; then it goes on."""
        await self.until(lambda: self.holding(name))
        self.send(signal.SIGSTOP, name)
        await self.followed(name, set(self.holding(name)))
        self.send(signal.SIGCONT, name)


@asynccontextmanager
async def at_work(url: str, language: str, folder: Path, **how: float) -> AsyncIterator[Agents]:
    """Three processes of agents."""
    agents = Agents(url, language, folder, **how)
    try:
        for _ in range(3):
            await agents.add()
        await agents.more(30)
        yield agents
        await agents.stop()
    finally:
        await agents.cancel()


async def judged(agents: Agents, store_url: str) -> History:
    """What they did, after it was checked against the chains, which are read past the nodes."""
    async with perdure.open(store_url) as store:
        for session in SESSIONS:
            await store.verify(session)
        chains = {session: [commit async for commit in store.history(session, control=True)] for session in SESSIONS}
    history = History(agents.lines, agents.dead, chains)
    said = {what: agents.count(what) for what in ("held", "wrote", "confirmed", "released", "unsure", "fenced", "over", "refused")}
    print(f"{said}, {len(history.taken_over())} taken over")
    history.check()
    return history


async def die_and_faint(agents: Agents) -> None:
    """A process of each kind dies, and one stands still."""
    for name in agents.living():
        await agents.die(name)
    for name in agents.living():
        await agents.faint(name)


@LANGUAGES
@pytest.mark.slow("nodes and agents are killed, and stand still past every time-out")
async def test_nodes_and_agents_that_are_killed_and_stand_still(three_nodes: Nodes, store_url: str, tmp_path: Path, language: str) -> None:
    """Somebody takes over from each agent that dies, and from each that stands still, which is told so. What a lost holder sends is not
    stored, and what was acknowledged is."""
    async with at_work(three_nodes.url, language, tmp_path / "programs") as agents:
        await asyncio.gather(kill_and_pause(three_nodes, agents.more), die_and_faint(agents))
    history = await judged(agents, store_url)
    assert history.taken_over() and agents.count("fenced")


@LANGUAGES
@pytest.mark.slow("every node restarts under load")
async def test_a_rolling_restart_costs_nobody_a_lease(three_nodes: Nodes, store_url: str, tmp_path: Path, language: str) -> None:
    """No holder is deposed, and no agent is told of an error, while each node in turn drains and starts again."""
    async with at_work(three_nodes.url, language, tmp_path / "programs", thinks=0.0) as agents:
        await restart_in_turn(three_nodes, agents.more)
    history = await judged(agents, store_url)
    assert not history.taken_over()
    assert [line for line in agents.lines if line["what"] in ("unsure", "fenced", "over")] == []


@LANGUAGES
@pytest.mark.slow("nodes are cut off past every time-out")
async def test_nodes_that_are_cut_off(store_url: str, servers: Servers[Server], tmp_path: Path, language: str) -> None:
    """Holders whose node hears nothing of the engine, or whom a node cannot answer, keep their leases by another node or lose them by the
    rules."""
    async with (
        on_lines(store_url, servers(PostgreSQL).port("primary"), tmp_path / "nodes", 3) as lines,
        at_work(lines.url, language, tmp_path / "programs") as agents,
    ):
        await cut_off(lines, agents.more)
    await judged(agents, store_url)
