"""The examples of HAProxy and nginx before two real nodes: ids, conditions, compression, caches, event streams, a node that goes."""

from __future__ import annotations

import gzip
import json
import signal
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from perdure.wire.paths import segment
from tests.servers.node import Nodes
from tests.servers.process import Missing
from tests.servers.proxies import HAProxy, Nginx, Proxy
from tests.support.needs import missing

pytestmark = [pytest.mark.server, pytest.mark.fetched, pytest.mark.xdist_group("proxies")]
IDS = ["trip-42", "a/b", "..", ".", "=x", "a b", "ü✓", "%2F", "a//b", "?q=1", "#", "a:b@c", "~.-_", "x" * 255, "+", "a\\b", "&;"]
JSON = {"content-type": "application/json"}


class Front:
    """Two nodes and a proxy before them."""

    def __init__(self, nodes: Nodes, proxy: Proxy) -> None:
        self.nodes, self.proxy = nodes, proxy

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """One request, byte for byte as it is written here, on a connection of its own."""
        connection = HTTPConnection(urlsplit(self.proxy.url).netloc, timeout=60)
        try:
            said = {name.replace("_", "-"): value for name, value in headers.items()} | ({} if body is None else JSON)
            connection.request(method, path, None if body is None else json.dumps(body), said)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="module", params=[HAProxy, Nginx], ids=lambda kind: kind.name)
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """The proxy as its example has it."""
    kind: type[Proxy] = request.param
    folder: Path = tmp_path_factory.mktemp(kind.name)
    nodes = Nodes(folder / "nodes", count=2, options=("--forwarded-allow-ips", "127.0.0.1"))
    try:
        proxy = kind(folder / "proxy", (nodes.port("node0"), nodes.port("node1")))
    except Missing as reason:
        missing(str(reason))
    try:
        nodes.start()
        proxy.start()
        yield Front(nodes, proxy)
    finally:
        proxy.stop()
        nodes.stop()


@pytest.mark.parametrize("id", IDS)
def test_every_id_comes_through(front: Front, id: str) -> None:
    """As the segment that the client writes for it: nothing is decoded, merged or cut on the way."""
    path = f"/v1/sessions/{segment(id)}"
    status, _, body = front.ask("POST", f"{path}/commits", {"ops": [{"op": "set", "path": "/id", "value": id}]})
    assert status == 201, body
    status, _, body = front.ask("GET", path)
    assert status == 200 and json.loads(body)["state"]["id"] == id


def test_a_page_of_the_proxys_own_origin_may_write(front: Front) -> None:
    """A browser says its page's origin with each write: the proxy passes on the host and port that the browser asked for. One of another
    origin is refused by nodes without credentials."""
    path, note = "/v1/sessions/page/commits", {"events": [{"type": "note"}]}
    assert front.ask("POST", path, note, Origin=front.proxy.url)[0] == 201
    assert front.ask("POST", path, note, Origin="http://evil.example")[0] == 403


def test_conditions_survive_compression(front: Front) -> None:
    """A gzipped answer's ETag, weak as a proxy may have made it, still finds 304, and still guards a write."""
    path = "/v1/sessions/large"
    front.ask("POST", f"{path}/commits", {"ops": [{"op": "set", "path": "/text", "value": "word " * 5_000}]})
    status, headers, body = front.ask("GET", path, accept_encoding="gzip")
    assert status == 200 and headers.get("content-encoding") == "gzip" and len(body) < 5_000
    assert json.loads(gzip.decompress(body))["state"]["text"].startswith("word word")
    etag = headers["etag"]
    assert front.ask("GET", path, if_none_match=etag)[0] == 304
    write = {"ops": [{"op": "set", "path": "/a", "value": 1}]}
    assert front.ask("POST", f"{path}/commits", write, if_match=etag)[0] == 201
    assert front.ask("POST", f"{path}/commits", write, if_match=etag)[0] == 412


def test_nothing_of_a_session_is_cached_on_the_way(front: Front) -> None:
    """A read after a write has the write, each time, though the proxy has a cache."""
    path = "/v1/sessions/fresh"
    for number in range(1, 20):
        status, headers, _ = front.ask("POST", f"{path}/commits", {"ops": [{"op": "set", "path": "/n", "value": number}]})
        assert status == 201
        status, headers, body = front.ask("GET", path)
        assert json.loads(body)["state"]["n"] == number and "private" in headers["cache-control"]


def test_an_event_stream_goes_on_as_it_comes(front: Front) -> None:
    """A commit reaches a watcher while the stream is open: nothing is held back on the way."""
    path = "/v1/sessions/watched"
    front.ask("POST", f"{path}/commits", {"events": [{"type": "first"}]})
    connection = HTTPConnection(urlsplit(front.proxy.url).netloc, timeout=60)
    try:
        connection.request("GET", f"{path}/watch", headers={"accept": "text/event-stream"})
        answer = connection.getresponse()
        assert answer.status == 200
        read_until(answer, b'"first"')
        front.ask("POST", f"{path}/commits", {"events": [{"type": "second"}]})
        read_until(answer, b'"second"')
    finally:
        connection.close()


def read_until(answer: Any, text: bytes) -> None:
    """Lines of the stream until one has this text."""
    while True:
        line = answer.readline()
        assert line, f"the stream ended before {text!r}"
        if text in line:
            return


def test_a_node_that_drains_or_dies_is_passed_by(front: Front) -> None:
    """SIGTERM, then kill -9: what is sent meanwhile with a key and sent again is stored once, and the other node answers."""
    path = "/v1/sessions/steady/commits"
    stored = 0
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for number in range(30):
            if number == 10:
                front.nodes.send(sign, "node1")
            event, key = {"events": [{"type": f"{sign.name}-{number}"}]}, f"{sign.name}-{number}"
            while front.ask("POST", path, event, idempotency_key=key)[0] not in (200, 201):
                pass
            stored += 1
        front.nodes._processes["node1"].wait(60)
        assert front.ask("GET", "/readyz")[0] == 200
        front.nodes.start_node("node1")
    status, _, body = front.ask("GET", f"{path}?limit=1000")
    assert status == 200 and len(json.loads(body)["commits"]) == stored
