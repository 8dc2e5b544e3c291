"""Those who follow commits through three nodes on one PostgreSQL while nodes are killed, stand still, restart or are cut off: each gets
every commit in order, once where that is promised, and goes on while a node is away."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

import perdure
from tests.servers.fixture import Servers
from tests.servers.node import Nodes
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Server
from tests.support.docs.pages import ROOT
from tests.support.service.followers import Follower, Followers
from tests.support.service.node_faults import TIMEOUTS, cut_off, kill_and_pause, on_lines, restart_in_turn
from tests.support.service.programs import Programs
from tests.support.service.told import Tellers
from tests.support.service.visitors import SESSIONS, Visitors

pytestmark = pytest.mark.timeout(600)
WATCHED = SESSIONS[:4]
TYPESCRIPT = ROOT / "tests" / "support" / "service" / "followers.js"


class Scene:
    """Clients that write, and those who follow."""

    def __init__(self, visitors: Visitors, followers: Followers, tellers: Tellers) -> None:
        self.visitors, self.followers, self.tellers = visitors, followers, tellers

    def heads(self) -> dict[str, int]:
        """The newest version of each session, as far as its writer knows."""
        return {session: max(done.values(), default=0) for session, done in self.visitors.done.items()}

    async def more(self, writes: int) -> None:
        """Until so many more writes were acknowledged, and everyone who follows in this process has got them."""
        await self.visitors.more(writes)
        await self.followers.until(self.heads())

    def programs(self) -> list[Follower]:
        """What the program of the TypeScript client has got."""
        found = {"ts watch": Follower("ts watch", WATCHED, repeats=False), "ts changes": Follower("ts changes", SESSIONS, repeats=True)}
        for line in self.tellers.lines:
            found[line["take"]].take(line["session"], line["version"])
        return list(found.values())

    async def end(self) -> None:
        """Stop the clients, and see that everyone has got everything."""
        await self.visitors.stop()
        await self.visitors.check()
        heads = self.heads()
        await self.followers.until(heads)
        everyone = self.followers.all
        if self.tellers.living():
            await self.tellers.until(lambda: all(each.has(heads) for each in self.programs()))
            await self.tellers.stop()
            everyone = [*everyone, *self.programs()]
        await self.followers.stop()
        for follower in everyone:
            follower.check(heads)
        begun = {follower.name: (follower.begun, follower.repeated()) for follower in everyone}
        print(f"{sum(heads.values())} commits; begun to listen, got again: {begun}; writers told {dict(self.visitors.told())}")


@asynccontextmanager
async def at_work(url: str, urls: Sequence[str], folder: Path, *, timeouts: bool = True) -> AsyncIterator[Scene]:
    """All of them; a program of the TypeScript client too, where there is Node."""
    async with AsyncExitStack() as stack:
        options = f"?{TIMEOUTS}" if timeouts else ""
        stores = [await stack.enter_async_context(perdure.open(url + options)) for _ in range(2)]
        visitors, tellers = Visitors(stores), Tellers()
        stack.push_async_callback(visitors.cancel)
        while len(visitors.done) < len(SESSIONS):
            await visitors.more(10)
        followers = Followers(stores[0], urls, SESSIONS, WATCHED)
        stack.push_async_callback(followers.stop)
        stack.push_async_callback(tellers.cancel)
        if shutil.which("node"):
            await tellers.start("ts", Programs(folder).command(TYPESCRIPT.read_text(), url, *WATCHED))
        scene = Scene(visitors, followers, tellers)
        await scene.more(30)
        yield scene
        await scene.end()


@pytest.mark.slow("nodes are killed, and stand still past every time-out")
async def test_nodes_that_are_killed_and_stand_still(three_nodes: Nodes, tmp_path: Path) -> None:
    """Each goes on at another node, also while the one that it listened to stands still."""
    urls = [three_nodes.url_of(node) for node in three_nodes.nodes]
    async with at_work(three_nodes.url, urls, tmp_path / "programs") as scene:
        await kill_and_pause(three_nodes, scene.more)


@pytest.mark.slow("every node restarts under load")
async def test_a_rolling_restart(three_nodes: Nodes, tmp_path: Path) -> None:
    """Streams end in good order, and go on elsewhere."""
    urls = [three_nodes.url_of(node) for node in three_nodes.nodes]
    async with at_work(three_nodes.url, urls, tmp_path / "programs", timeouts=False) as scene:
        await restart_in_turn(three_nodes, scene.more)
        assert not scene.visitors.errors


@pytest.mark.slow("nodes are cut off past every time-out")
async def test_nodes_that_are_cut_off(store_url: str, servers: Servers[Server], tmp_path: Path) -> None:
    """From those who follow, or from the engine: then who follows is told nothing, or goes on elsewhere."""
    async with (
        on_lines(store_url, servers(PostgreSQL).port("primary"), tmp_path / "nodes", 3) as lines,
        at_work(lines.url, lines.urls, tmp_path / "programs") as scene,
    ):
        await cut_off(lines, scene.more)
