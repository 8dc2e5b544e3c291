"""The long random life of a store through nodes that verify every commit, for two clients: one node on SQLite, three on PostgreSQL."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

import perdure
from tests.engine.test_state_machine import Life
from tests.servers.fixture import Servers
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Server
from tests.support.backends.engines import Engine
from tests.support.service.nodes import Serving, rotate, url_of


class LifeThroughANode(Life):
    """The same calls, by two clients of one node."""

    scheme = "served"
    count = 1

    def place(self) -> str:
        self.nodes = [Serving(self.engine_url(), snapshot_bytes_min=600, cache_bytes=6_000).start() for _ in range(self.count)]
        return url_of(self.nodes)

    def engine_url(self) -> str:
        return super().place()

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            for node in self.nodes:
                node.stop()


class LifeThroughThreeNodes(LifeThroughANode):
    """The same calls, by two clients of three nodes, each request to another one than the last."""

    count = 3
    engine: Engine
    server: Server

    def place(self) -> str:
        self.store_url = self.engine.url(self.server)
        return super().place()

    def engine_url(self) -> str:
        return self.store_url

    async def opened(self) -> perdure.Store:
        store = await super().opened()
        rotate(store)
        return store


def live(life: type[LifeThroughANode], examples: int) -> None:
    """Run so many lives of 40 calls."""
    checks = list(HealthCheck)
    run_state_machine_as_test(
        life,
        settings=settings(
            max_examples=examples, stateful_step_count=40, derandomize=True, deadline=None, database=None, suppress_health_check=checks
        ),
    )


@pytest.mark.long
def test_a_long_life_through_a_node() -> None:
    """Clients and the plain model agree after every call; the node refuses no honest commit."""
    live(LifeThroughANode, 15)


@pytest.mark.parametrize("engine", [Engine("postgresql", PostgreSQL)], ids=str)
def test_a_long_life_through_three_nodes(engine: Engine, servers: Servers[Server]) -> None:
    """So they do where each call meets a node that knows the session as another one left it."""
    live(type("LifeOnOneServer", (LifeThroughThreeNodes,), {"engine": engine, "server": servers(engine.server)}), 5)
