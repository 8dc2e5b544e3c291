"""Nodes and clients that meet at a real Consul: `serve --register`, and `consul+http://`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import perdure
from tests.servers.consul import Consul
from tests.servers.fixture import Servers
from tests.servers.node import Nodes
from tests.support.backends.scenarios import until
from tests.support.service.writers import PATIENCE, writing

pytestmark = pytest.mark.slow("Consul is built from its source")


class Group:
    """Nodes on one store, each registered."""

    def __init__(self, folder: Path, consul: Consul) -> None:
        self._folder, self._consul = folder, consul
        self.nodes: dict[str, Nodes] = {}

    def start(self, name: str) -> int:
        """Start one. Its port."""
        store = f"sqlite:///{self._folder}/store.db"
        self.nodes[name] = Nodes(self._folder / name, store, options=("--register", self._consul.url))
        self.nodes[name].start()
        return self.nodes[name].port("node0")

    def drain(self, name: str) -> None:
        """End one kindly."""
        node = self.nodes.pop(name)
        node.stop()
        assert node._processes["node0"].returncode == 0

    def stop(self) -> None:
        """End all."""
        for node in self.nodes.values():
            node.stop()


@pytest.fixture
def consul(server_of_my_own: Servers[Any]) -> Consul:
    return server_of_my_own(Consul)


@pytest.fixture
def group(tmp_path: Path, consul: Consul) -> Iterator[Group]:
    made = Group(tmp_path, consul)
    try:
        yield made
    finally:
        made.stop()


async def passing(consul: Consul, *ports: int) -> None:
    """Wait until these nodes pass their checks, and no others."""
    await until(lambda: consul.passing() == {*ports}, PATIENCE)


async def test_a_node_is_listed_while_it_is_ready(consul: Consul, group: Group) -> None:
    """It is registered, and again when Consul has forgotten it, or everything; it does not pass while it hangs. When it drains it is gone;
    one that was killed fails its check, and Consul takes it out by itself."""
    one, two = await asyncio.to_thread(group.start, "a"), await asyncio.to_thread(group.start, "b")
    await passing(consul, one, two)
    (entry,) = [each for each in consul.ask("health/service/perdure") if each["Service"]["Port"] == one]
    check = next(check for check in entry["Checks"] if check["Type"] == "ttl")
    assert (entry["Service"]["Address"], check["Name"], check["Status"]) == ("127.0.0.1", "ready", "passing")

    consul.tell(f"agent/service/deregister/{entry['Service']['ID']}")
    assert consul.passing() == {two}
    await passing(consul, one, two)

    consul.kill()
    await asyncio.to_thread(consul.start)
    await passing(consul, one, two)

    group.nodes["b"].pause()
    await passing(consul, one)
    group.nodes["b"].resume()
    await passing(consul, one, two)

    group.nodes["a"].send(signal.SIGTERM)
    await passing(consul, two)
    assert [entry["Service"]["Port"] for entry in consul.ask("health/service/perdure")] == [two], "it is gone, not failing"
    await asyncio.to_thread(group.drain, "a")

    group.nodes["b"].kill()
    await passing(consul)
    assert [entry["Service"]["Port"] for entry in consul.ask("health/service/perdure")] == [two], "it fails its check"
    await until(lambda: not consul.ask("agent/services"), 200)


async def test_clients_follow_what_consul_lists(consul: Consul, group: Group, caplog: pytest.LogCaptureFixture) -> None:
    """Agents write while nodes join, drain and are killed, while Consul is away, and when it has come back with nothing and an index that
    begins again: no call fails, and all that was written is there."""
    one, two = await asyncio.to_thread(group.start, "a"), await asyncio.to_thread(group.start, "b")
    await passing(consul, one, two)
    async with perdure.open(consul.url) as store, writing(store) as writers:
        await writers.listed(one, two)
        three = await asyncio.to_thread(group.start, "c")
        await writers.listed(one, two, three)
        await asyncio.to_thread(group.drain, "a")
        await writers.listed(two, three)
        group.nodes["b"].kill()
        await writers.progress()
        await writers.listed(three)

        before = consul.index()
        consul.kill()
        await until(lambda: "could not be looked up" in caplog.text, PATIENCE)
        await writers.listed(three)
        await asyncio.to_thread(consul.start)
        assert consul.index() < before, "it begins again"
        four = await asyncio.to_thread(group.start, "d")
        await passing(consul, three, four)
        await writers.listed(three, four)
        await writers.check()
