"""A node in Consul: what it reports, when it is lost, and when it drains. What answers is a server or a function of the test."""

from __future__ import annotations

import asyncio
import signal
import sys
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from aiohttp import web

import perdure
from perdure.cli import run
from perdure.service import registration
from perdure.service.node import Node
from perdure.service.options import ServeOptions
from perdure.service.registration import Registration
from tests.servers.process import HOST
from tests.support.backends.scenarios import until

URL = f"consul+http://{HOST}:8500/perdure"
REGISTER, DEREGISTER = "/v1/agent/service/register", f"/v1/agent/service/deregister/perdure-{HOST}-8420"
UPDATE = f"/v1/agent/check/update/perdure-{HOST}-8420"


class Agent:
    """Takes what a node reports. `fails` is raised once."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.fails: Exception | None = None

    def put(self, path: str, value: Any) -> None:
        self.sent.append((path, value))
        if self.fails is not None:
            error, self.fails = self.fails, None
            raise error

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.sent]


async def test_a_node_is_registered_until_it_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    """It registers as critical, passes when it is ready, registers again when Consul has lost it, and is taken out at the drain."""
    monkeypatch.setattr(registration, "BEAT", 0.01)
    agent = Agent()
    async with perdure.open("memory:") as store:
        node = Node(store)
        keeping = asyncio.ensure_future(Registration(URL, None, node.options, agent.put).keep(node, 8420))
        await until(lambda: len(agent.sent) >= 5)
        assert agent.paths[:3] == [REGISTER, UPDATE, UPDATE]
        entry = agent.sent[0][1]
        assert (entry["Name"], entry["Address"], entry["Port"], entry["Check"]["Status"]) == ("perdure", HOST, 8420, "critical")
        assert agent.sent[1][1] == {"Status": "passing", "Output": ""}
        agent.fails = OSError("no route")  # Nothing is known to be lost.
        await until(lambda: agent.fails is None)
        seen = len(agent.sent)
        await until(lambda: len(agent.sent) > seen + 2)
        assert agent.paths.count(REGISTER) == 1
        agent.fails = HTTPError("", 404, "Unknown check", Message(), None)
        await until(lambda: agent.paths.count(REGISTER) == 2)
        node.draining.set()
        await keeping
        assert agent.paths[-1] == DEREGISTER
        assert agent.paths.count(DEREGISTER) == 1


async def test_a_node_that_is_not_ready_is_critical(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says why."""
    monkeypatch.setattr(registration, "BEAT", 0.01)
    agent = Agent()

    async def ready() -> str:
        return "The engine is away."

    async with perdure.open("memory:") as store:
        node = Node(store)
        monkeypatch.setattr(node, "ready", ready)
        keeping = asyncio.ensure_future(Registration(URL, None, node.options, agent.put).keep(node, 8420))
        await until(lambda: UPDATE in agent.paths)
        node.draining.set()
        await keeping
    assert (UPDATE, {"Status": "critical", "Output": "The engine is away."}) in agent.sent


async def test_a_token_that_may_not_register_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The log says which variable to set."""
    monkeypatch.setattr(registration, "BEAT", 0.01)
    agent = Agent()
    agent.fails = HTTPError("", 403, "Permission denied", Message(), None)
    async with perdure.open("memory:") as store:
        node = Node(store)
        keeping = asyncio.ensure_future(Registration(URL, None, node.options, agent.put).keep(node, 8420))
        await until(lambda: UPDATE in agent.paths)
        node.draining.set()
        await keeping
    assert "403" in caplog.text and "CONSUL_HTTP_TOKEN" in caplog.text


async def test_what_is_advertised_is_registered() -> None:
    """A host keeps the node's port, and may have one of its own."""
    for advertise, address, port in (("10.0.0.7", "10.0.0.7", 8420), ("node.test:99", "node.test", 99), ("[::1]:99", "::1", 99)):
        agent = Agent()
        async with perdure.open("memory:") as store:
            node = Node(store, ServeOptions(host="0.0.0.0"))
            keeping = asyncio.ensure_future(Registration(URL, advertise, node.options, agent.put).keep(node, 8420))
            await until(lambda agent=agent: agent.sent)  # type: ignore[misc]
            node.draining.set()
            await keeping
        assert (agent.sent[0][1]["Address"], agent.sent[0][1]["Port"]) == (address, port)


async def test_serve_registers_and_takes_itself_out(tmp_path: Path) -> None:
    """The program: from where it listens to SIGTERM, with the token of Consul in a header."""
    heard: list[tuple[str, str, str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        heard.append((request.method, request.path, request.headers.get("X-Consul-Token")))
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    url = f"consul+http://{HOST}:{runner.addresses[0][1]}/perdure"
    words = ["serve", f"sqlite:///{tmp_path}/store.db", "--port", "0", "--drain-delay", "0", "--register", url]
    environment = {"PATH": "", "CONSUL_HTTP_TOKEN": "sesame", "HOME": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "perdure", *words, env=environment)
    try:
        await until(lambda: len(heard) >= 2)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await runner.cleanup()
    assert [path.split("/")[4].partition("-")[0] for _, path, _ in heard] == ["register", "update", "deregister"]
    assert {(method, token) for method, _, token in heard} == {("PUT", "sesame")}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--register", "http://127.0.0.1:8500/perdure"], "names no service"),
        (["--register", "consul+http://127.0.0.1:8500"], "names no service"),
        (["--register", "consul+http://token@127.0.0.1/perdure"], "CONSUL_HTTP_TOKEN"),
        (["--register", URL, "--host", "0.0.0.0", "--allow-anonymous", "t"], "--advertise"),
        (["--register", URL, "--advertise", "a/b"], "takes a host"),
        (["--register", URL, "--uds", "/nowhere/x"], "--uds has none"),
        (["--register", "consul+https://127.0.0.1/perdure?ca=/nowhere.pem"], "cannot be used"),
    ],
)
def test_a_registration_that_cannot_work_is_refused(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the node listens."""
    assert run(["serve", "memory:", "--port", "0", *words]) != 0
    assert says in " ".join(capsys.readouterr().err.split())
