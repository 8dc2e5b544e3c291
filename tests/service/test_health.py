"""Whether a node lives and is ready, and what it refuses before anything else."""

from __future__ import annotations

from typing import Any

import pytest

import perdure
from perdure.service.app import App
from perdure.service.hooks import Anonymous, Credential, NoObserver, RequestHead, Scope
from perdure.service.node import Node
from tests.servers.node import Nodes
from tests.support.service.asking import Asker


async def test_a_node_lives_and_is_ready(serving: Any) -> None:
    """Both say so, name the store, and are not cached."""
    async with serving() as ask:
        for path in ("/healthz", "/readyz"):
            answer = await ask("GET", path)
            assert (answer.status, answer.json()["status"]) == (200, "ok")
            assert answer.headers["perdure-store"] == ask.app.node.store.id
            assert answer.headers["cache-control"] == "no-store"
        head = await ask("HEAD", "/healthz")
        assert (head.status, head.body, int(head.headers["content-length"]) > 0) == (200, b"", True)


async def test_a_node_that_drains_or_has_no_engine_is_not_ready(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/readyz` is 503 with the reason; `/healthz` stays 200."""
    async with serving() as ask:
        backend = ask.app.node.store._core.backend

        async def away(sessions: object) -> None:
            raise perdure.Unavailable("The server is away.")

        with monkeypatch.context() as patch:
            patch.setattr(backend, "heads", away)
            refused = await ask("GET", "/readyz")
            assert refused.status == 503 and "The server is away." in refused.json()["reason"]
            assert (await ask("GET", "/healthz")).status == 200
        assert (await ask("GET", "/readyz")).status == 200
        ask.app.node.draining.set()
        refused = await ask("GET", "/readyz")
        assert (refused.status, refused.json()["reason"]) == (503, "The node is draining.")
        assert refused.headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/", "", "/v1", "/v1/", "/healthz/", "//healthz", "/healthz/x", "/v1//x", "/.", "/%68ealthz", "*"])
async def test_a_path_that_is_none_is_404(serving: Any, path: str) -> None:
    """Paths are matched as they came, so nothing is guessed."""
    async with serving() as ask:
        answer = await ask("GET", path)
        assert (answer.status, answer.json()["code"]) == (404, "no_route")


async def test_another_method_is_405_and_says_which(serving: Any) -> None:
    """`Allow` names the methods of the path."""
    async with serving() as ask:
        answer = await ask("POST", "/healthz")
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


FOREIGN = ["evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "localhost.evil:80", "[::2]", "[", "::1", "localhost@evil"]


@pytest.mark.parametrize("host", FOREIGN)
async def test_a_foreign_host_is_refused(serving: Any, host: str) -> None:
    """Without credentials only loopback names reach the node: a page that lets its name point here (DNS rebinding) does not."""
    async with serving() as ask:
        answer = await ask("GET", "/healthz", headers=[("host", host)])
        assert (answer.status, answer.json()["code"]) == (421, "misdirected")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8420", "127.0.0.1:1", "127.9.9.9", "[::1]:8420", "a.localhost"])
async def test_a_loopback_host_is_served(serving: Any, host: str) -> None:
    """By each name that this machine has for itself; and a page of the node itself may call."""
    async with serving() as ask:
        assert (await ask("GET", "/healthz", headers=[("host", host), ("origin", f"http://{host.lower()}")])).status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://localhost:9", "http://localhost.evil", "localhost", "file://"])
async def test_a_foreign_origin_is_refused(serving: Any, origin: str) -> None:
    """A page of another site cannot even send a request that it could not read the answer of."""
    async with serving() as ask:
        answer = await ask("GET", "/healthz", headers=[("origin", origin)])
        assert (answer.status, answer.json()["code"]) == (403, "forbidden")


async def test_a_named_tenant_is_open_to_other_hosts(serving: Any) -> None:
    """With `--allow-anonymous TENANT` and an address that others reach, no loopback name is asked for."""
    async with serving(host="0.0.0.0", anonymous_tenant="acme") as ask:
        assert (await ask("GET", "/healthz", headers=[("host", "perdure.example")])).status == 200


async def test_hooks_are_asked_in_their_order() -> None:
    """Authenticator, then limits; the observer hears of the request, and of its end with status and code. Health asks for nobody."""
    seen: list[Any] = []

    class Reading(Anonymous):
        async def credential(self, head: RequestHead) -> Credential:
            seen.append(("credential", head.route))
            return Credential("acme", frozenset({Scope.read}))

    class Watching(NoObserver):
        def began(self, head: RequestHead) -> None:
            seen.append(("began", head.route, head.trace_id))

        def finished(self, head: RequestHead, credential: Credential | None, status: int, code: str, seconds: float) -> None:
            seen.append(("finished", head.route, credential and credential.tenant, status, code))

    async with perdure.open("memory:") as store:
        ask = Asker(App(Node(store, authenticator=Reading("x"), observer=Watching())))
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        await ask("GET", "/healthz", headers=[("traceparent", f"00-{trace}-00f067aa0ba902b7-01")])
        await ask("GET", "/nope", headers=[("traceparent", "nonsense")])
    assert seen == [("began", "/healthz", trace), ("finished", "/healthz", None, 200, ""), ("finished", "", None, 404, "no_route")]


def test_a_node_is_a_process_that_drains_on_sigterm(nodes: Nodes) -> None:
    """`perdure serve` is ready, and ends with 0 when it is asked to."""
    nodes.stop()
    assert nodes._processes["node0"].returncode == 0, nodes.log("node0")
