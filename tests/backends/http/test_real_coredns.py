"""Clients that find nodes by a real CoreDNS: `http+srv://`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import perdure
from tests.servers.coredns import CoreDns
from tests.servers.fixture import Servers
from tests.servers.node import Nodes
from tests.support.backends.scenarios import until
from tests.support.service.writers import PATIENCE, writing

pytestmark = pytest.mark.slow("CoreDNS is built from its source")


def token(store: str) -> str:
    """A token for the nodes of a store: with one they take requests for any name."""
    command = [sys.executable, "-m", "perdure", "tokens", "create", store, "--tenant", "default", "--scope", "read,append"]
    return str(json.loads(subprocess.check_output(command))["token"])


async def test_clients_follow_the_records(
    server_of_my_own: Servers[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Agents write while records come and go, while there is none, and while CoreDNS is away: no call fails, and all that was written is
    there."""
    names: CoreDns = server_of_my_own(CoreDns)
    engine = f"sqlite:///{tmp_path}/store.db"
    monkeypatch.setenv("PERDURE_TOKEN", token(engine))
    nodes = {name: Nodes(tmp_path / name, engine, options=("--tokens",)) for name in ("a", "b", "c")}
    one, two, three = (node.port("node0") for node in nodes.values())
    try:
        for node in nodes.values():
            await asyncio.to_thread(node.start)
        await asyncio.to_thread(names.publish, [one, two])
        async with perdure.open(names.url) as store, writing(store) as writers:
            await writers.listed(one, two)
            await asyncio.to_thread(names.publish, [two, three])
            await writers.listed(two, three)
            await asyncio.to_thread(nodes["a"].stop)
            await writers.progress()
            await asyncio.to_thread(names.publish, [])
            await until(lambda: "No node is listed" in caplog.text, PATIENCE)
            await writers.listed(two, three)
            names.kill()
            nodes["b"].kill()
            await until(lambda: "could not be looked up" in caplog.text, PATIENCE)
            await writers.listed(two, three)
            await asyncio.to_thread(names.start)
            await asyncio.to_thread(names.publish, [three])
            await writers.listed(three)
            await writers.check()
    finally:
        for node in nodes.values():
            await asyncio.to_thread(node.stop)
