"""What a node does about clients that are slow, wrong, many or gone, and when it has to stop."""

from __future__ import annotations

import asyncio
import signal
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import msgspec
import pytest

from perdure import Event
from perdure.service.protocol import PIPELINE_MAX
from perdure.wire import MSGPACK
from perdure.wire import records as wire
from tests.servers.node import Nodes
from tests.support.service.listening import Listening, listening, request, until

COMMITS = "/v1/sessions/s/commits"
NOTE = b'{"events": [{"type": "note"}]}'


def problem(answer: bytes) -> tuple[int, str]:
    """The status and the code of an answer that is a problem document."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower(), answer
    return int(head.split()[1]), msgspec.json.decode(body)["code"]


async def lives(server: Listening) -> None:
    """Others are served."""
    assert (await server.send(request("GET", "/healthz", close=True))).startswith(b"HTTP/1.1 200 ")


async def count(server: Listening) -> int:
    """How many commits there are."""
    return sum([info.version async for info in server.node.store.list()])


@pytest.mark.parametrize("part", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: ", b"POST /x HTTP/1.1\r\nA: b\r\n"])
async def test_a_head_that_does_not_arrive_is_408(part: bytes) -> None:
    """A client that sends its head slowly, or none, is answered and closed; others are served meanwhile."""
    async with listening(header_timeout=0.3) as server:
        waiting = asyncio.ensure_future(server.send(part))
        await lives(server)
        assert problem(await waiting) == (408, "request_timeout")


async def test_a_head_that_comes_byte_by_byte_has_no_more_time() -> None:
    """The time is for the whole head, not for each byte; on a connection that was kept open too."""
    async with listening(header_timeout=0.3) as server:
        reader, writer = await server.connect()
        writer.write(request("GET", "/healthz"))
        assert await reader.readuntil(b"}")
        answer = asyncio.ensure_future(reader.read())
        for byte in b"GET /healthz HTTP/1.1\r\nX-Slow: " + b"y" * 10_000:
            if answer.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
        assert problem(await answer) == (408, "request_timeout")
        writer.close()


async def test_a_body_that_does_not_arrive_is_408() -> None:
    """Half a body stores nothing, whether the client waits or goes away."""
    async with listening(body_timeout=0.3) as server:
        half = request("POST", COMMITS, NOTE)[:-5]
        assert problem(await server.send(half)) == (408, "request_timeout")
        _, writer = await server.connect()
        writer.write(half)
        writer.close()
        await lives(server)
        assert await count(server) == 0


async def test_a_head_that_is_too_large_is_431() -> None:
    """In one header, in many, in the URL, and without an end."""
    async with listening(max_headers=4096) as server:
        many = [f"X-{number}: {'y' * 50}" for number in range(100)]
        for data in (
            request("GET", "/healthz", None, "X-Big: " + "y" * 5000),
            request("GET", "/healthz", None, *many),
            request("GET", "/" + "x" * 5000),
            b"GET / HTTP/1.1\r\nX-Endless: " + b"y" * 300_000,
        ):
            assert problem(await server.send(data)) == (431, "head_too_large")
        await lives(server)


GARBAGE = [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"\x00" * 100 + b"\r\n\r\n", b"GET\r\n\r\n", b"HELLO WORLD\r\n\r\n"]
GARBAGE += [b"GET / HTTP/9.9\r\n\r\n"]
GARBAGE += [b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"]
GARBAGE += [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
GARBAGE += [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", b"GET \xff HTTP/1.1\r\n\r\n"]
GARBAGE += [b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", b"GET http:// HTTP/1.1\r\n\r\n"]


@pytest.mark.parametrize("data", GARBAGE, ids=repr)
async def test_what_is_no_request_is_refused(data: bytes) -> None:
    """400 or 404 and the connection is closed; nothing is stored, and others are served."""
    async with listening(header_timeout=2) as server:
        answer = await server.send(data + b"\r\n\r\n")
        assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 421"), answer
        await lives(server)
        assert await count(server) == 0


async def test_requests_may_be_sent_ahead() -> None:
    """They are answered in order; a client that sends too many ahead is cut off."""
    async with listening() as server:
        ahead = request("POST", COMMITS, NOTE) * 5 + request("GET", "/v1/sessions/s", close=True)
        answer = await server.send(ahead)
        assert answer.count(b"HTTP/1.1 201 ") == 5 and answer.endswith(b"}") and b'"version":5' in answer.rpartition(b"\r\n\r\n")[2]
        too_many = await server.send(request("GET", "/healthz") * (PIPELINE_MAX * 4))
        assert too_many.count(b"HTTP/1.1 200") <= PIPELINE_MAX + 1
        await lives(server)


async def test_a_body_that_is_refused_is_not_sent() -> None:
    """A client that asks before it sends (`Expect: 100-continue`) is answered 413 at once."""
    async with listening(max_body=2000) as server:
        head = request("POST", COMMITS, None, "Content-Type: application/json", "Content-Length: 99999", "Expect: 100-continue")
        answer = await server.send(head)
        assert problem(answer) == (413, "too_large") and b"connection: close" in answer
        fine = request("POST", COMMITS, NOTE, "Expect: 100-continue", close=True)
        assert b"100 Continue" in await server.send(fine)


async def test_a_node_that_is_full_says_so() -> None:
    """Another connection is answered 503 and closed; those that are open are served."""
    async with listening(max_connections=3) as server:
        reader, writer = await server.connect()
        held = [await server.connect() for _ in range(2)]
        await until(lambda: len(server.server.server_state.connections) == 3)
        assert problem(await server.send(b"")) == (503, "unavailable")
        writer.write(request("GET", "/healthz"))
        assert await reader.readuntil(b"}")
        for _, each in [(reader, writer), *held]:
            each.close()


async def test_a_watcher_that_goes_away_is_forgotten() -> None:
    """Its stream ends, whether anything was written or not."""
    async with listening() as server:
        await server.node.store.append("s", Event("start"))
        reader, writer = await server.connect()
        writer.write(request("GET", "/v1/sessions/s/watch"))
        await reader.readuntil(b'"version":1')
        await until(lambda: len(server.node.hub))
        writer.close()
        await until(lambda: not (server.node.hub.followers or len(server.node.hub) or server.node.open_requests))


async def test_a_client_of_records_that_goes_away_is_forgotten() -> None:
    """The stream by which it heard of news ends at once, though the node has nothing to say for an hour."""
    async with listening(heartbeat=3600.0, stream_seconds=3600.0) as server:
        asked = wire.encode(wire.Notices())
        head = f"POST {wire.NOTICES} HTTP/1.1\r\nHost: localhost\r\nPerdure-Wire: 1\r\nContent-Type: {MSGPACK}\r\n"
        reader, writer = await server.connect()
        writer.write(f"{head}Content-Length: {len(asked)}\r\n\r\n".encode() + asked)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        await reader.readuntil(b"lost")  # The node has begun to hear, and has no more to say.
        writer.close()
        async with asyncio.timeout(60):
            await until(lambda: not server.node.open_requests)


async def test_streams_end_and_requests_finish_when_the_node_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream ends as a whole answer does; a request in progress is answered, and told to close; then nothing listens."""
    async with listening() as server:
        store = server.node.store
        await store.append("s", Event("start"))
        reader, writer = await server.connect()
        writer.write(request("GET", "/v1/sessions/s/watch"))
        await reader.readuntil(b'"version":1')
        entered, go_on, real = asyncio.Event(), asyncio.Event(), type(store).append

        async def slow(self: Any, *events: Any, **more: Any) -> Any:
            entered.set()
            await go_on.wait()
            return await real(self, *events, **more)

        monkeypatch.setattr(type(store), "append", slow)
        writing = asyncio.ensure_future(server.send(request("POST", COMMITS, NOTE)))
        await entered.wait()
        server.server.handle_exit(signal.SIGTERM, None)
        assert (await reader.read()).endswith(b"0\r\n\r\n")
        go_on.set()
        answer = await writing
        assert answer.startswith(b"HTTP/1.1 201 ") and b"connection: close" in answer
        await server.task
        with pytest.raises(ConnectionError):
            await server.connect()
        writer.close()


def post(url: str, key: str) -> int:
    """The status of an append with a key; 0 where no answer came."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    try:
        with urlopen(Request(f"{url}{COMMITS}", NOTE, headers), timeout=20) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except (URLError, OSError):
        return 0


def test_a_node_is_killed_and_nothing_is_lost_or_doubled(tmp_path: Any) -> None:
    """Of two nodes on one store one is killed between and during writes: each write that is sent again to the other is applied once."""
    nodes = Nodes(tmp_path / "nodes", count=2)
    try:
        nodes.start()
        urls = [nodes.url_of("node0"), nodes.url_of("node1")]
        for number in range(30):
            if number in (8, 17):
                nodes.kill("node0")
            if number == 12:
                nodes.start_node("node0")
            for _ in range(20):
                if any(post(url, f"k{number}") == 201 for url in urls):
                    break
            else:
                raise AssertionError(f"write {number} was never taken")
        with urlopen(f"{urls[1]}{COMMITS}?limit=1000", timeout=20) as answer:
            commits = msgspec.json.decode(answer.read())["commits"]
        assert [commit["key"] for commit in commits] == [f"k{number}" for number in range(30)]
    finally:
        nodes.stop()


def test_a_rolling_restart_ends_with_0(tmp_path: Any) -> None:
    """SIGTERM while a client follows: the stream ends, the node exits 0, and the client goes on at the other one."""
    nodes = Nodes(tmp_path / "nodes", count=2)
    try:
        nodes.start()
        urls = [nodes.url_of("node0"), nodes.url_of("node1")]
        assert post(urls[0], "a") == 201
        with urlopen(f"{urls[0]}/v1/sessions/s/watch", timeout=30) as stream:
            while not stream.readline().startswith(b"data: "):
                pass
            nodes.send(signal.SIGTERM, "node0")
            stream.read()
        assert nodes._processes["node0"].wait(30) == 0, nodes.log("node0")
        assert post(urls[1], "b") == 201
    finally:
        nodes.stop()
