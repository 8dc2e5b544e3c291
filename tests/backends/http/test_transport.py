"""What comes back from nodes, and what does not: nothing is lost, nothing doubled, nothing that others say is believed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import perdure
from perdure import Event, op
from tests.servers.fixture import Servers
from tests.servers.node import Nodes
from tests.servers.process import HOST, Server
from tests.servers.proxy import Proxy, answered
from tests.support.backends.scenarios import until
from tests.support.service.nodes import Serving, serving


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Serving]:
    """A node over a SQLite file."""
    with serving(f"sqlite:///{tmp_path}/store.db") as node:
        yield node


def port(url: str) -> int:
    return urlsplit(url).port or 0


async def versions(store: perdure.Store, session: str) -> list[object]:
    """What a session has: the data of each commit's first event."""
    return [commit.events[0].data async for commit in store.history(session)]


@pytest.mark.parametrize(
    "instead",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nshort",
        answered("502 Bad Gateway", b"<html>nginx</html>"),
        answered("503 Service Unavailable", b""),
        answered("504 Gateway Timeout", b""),
        answered("200 OK", b"<html>Log in, please</html>"),
        answered("404 Not Found", b'{"type":"urn:perdure:error:NotFound","detail":"there is no such thing"}'),
    ],
    ids=["nothing", "a part of a header", "a part of a body", "a part of a chunk", "502", "503", "504", "a portal's page", "a foreign 404"],
)
async def test_a_write_whose_answer_is_lost_is_found(node: Serving, instead: bytes) -> None:
    """The node has stored it, and the client hears something else or nothing: each append is there once, and its receipt says where."""
    async with Proxy(port(node.url)) as proxy, perdure.open(f"http://{HOST}:{proxy.port}") as store:
        await store.append("s", Event("note", 0))
        for number in range(1, 4):
            proxy.cut(instead=instead)
            receipt = await store.append("s", Event("note", number), key=f"k{number}" if number % 2 else None)
            assert (receipt.version, receipt.duplicate) == (number + 1, False)
        assert proxy.cuts == 3
        assert await versions(store, "s") == [0, 1, 2, 3]


async def test_a_read_whose_answer_is_lost_is_asked_again(node: Serving) -> None:
    """A read goes to a node again, and gives up as `Unavailable`: it has changed nothing."""
    async with Proxy(port(node.url)) as proxy, perdure.open(f"http://{HOST}:{proxy.port}?timeout=2") as store:
        await store.append("s", Event("note", 0))
        proxy.cut()
        assert (await store.read("s")).version == 1
        proxy.cut(answers=10)
        with pytest.raises(perdure.Unavailable):
            await store.read("s")


async def test_a_node_that_is_silent_leaves_a_write_unknown(node: Serving) -> None:
    """A write that no answer comes to is `Unknown` within the time-out, and the same call with its key finds it afterwards."""
    async with Proxy(port(node.url)) as proxy, perdure.open(f"http://{HOST}:{proxy.port}?timeout=0.5") as store:
        await store.append("s", Event("note", 0))
        proxy.silent = True
        with pytest.raises(perdure.Unknown):
            await store.append("s", Event("note", 1), key="k")
        proxy.silent = False
        receipt = await store.append("s", Event("note", 1), key="k")
        assert receipt.version == 2
        assert await versions(store, "s") == [0, 1]


async def test_a_node_that_is_not_there_is_unavailable() -> None:
    """Nothing listens: `Unavailable`, and the message names the node."""
    async with Proxy(1) as proxy:
        place = f"{HOST}:{proxy.port}"
    with pytest.raises(perdure.Unavailable, match=place):
        await perdure.open(f"http://{place}")


async def test_what_is_no_node_is_not_believed(node: Serving) -> None:
    """Another HTTP server is no service, whatever status it answers with."""
    for status in ("200 OK", "401 Unauthorized", "500 Oops", "302 Found"):
        async with Proxy(port(node.url)) as proxy:
            proxy.reply = lambda _, status=status: answered(status, b"{}")  # type: ignore[misc]
            with pytest.raises(perdure.Unavailable, match="no node"):
                await perdure.open(f"http://{HOST}:{proxy.port}?timeout=1")


async def test_a_node_of_another_store_is_refused(node: Serving, tmp_path: Path) -> None:
    """Where one address leads to another store one day, nothing is written there and nothing read."""
    with serving(f"sqlite:///{tmp_path}/other.db") as other:
        async with Proxy(port(node.url)) as proxy, perdure.open(f"http://{HOST}:{proxy.port}?timeout=1") as store:
            await store.append("s", Event("note", 0))
            proxy._target = port(other.url)
            proxy.cut(answers=100)  # The connections that are open end.
            with pytest.raises(perdure.Error):
                await store.read("s")
            proxy.cut(answers=0)
            with pytest.raises(perdure.Unavailable, match="another store"):
                await store.read("s")
            with pytest.raises((perdure.Unavailable, perdure.Unknown)):
                await store.append("s", Event("note", 1))
            with pytest.raises((perdure.Unavailable, perdure.Unknown)):
                await store.append("new", Event("note", 1))
            async with perdure.open(other.url) as there:
                assert [info async for info in there.list()] == []
            proxy._target = port(node.url)
            proxy.cut(answers=0)


async def test_another_node_takes_over(tmp_path: Path) -> None:
    """One of two nodes goes away between two calls: nobody notices."""
    url = f"sqlite:///{tmp_path}/store.db"
    with serving(url) as first, serving(url) as second:
        async with perdure.open(f"http://{HOST}:{port(first.url)},{HOST}:{port(second.url)}") as store:
            for number in range(10):
                await store.append("s", Event("note", number))
            first.stop()
            for number in range(10, 30):
                await store.append("s", Event("note", number))
            assert await versions(store, "s") == list(range(30))


async def test_killed_nodes_lose_and_double_nothing(server_of_my_own: Servers[Server]) -> None:
    """Two nodes are killed in turn, in the middle of requests, and started again, while sixteen tasks append and edit: what was
    acknowledged is there once, and nothing is there twice."""
    nodes = server_of_my_own(TwoNodes)
    assert isinstance(nodes, TwoNodes)
    done: dict[str, list[int]] = {}
    over = asyncio.Event()

    async def write(store: perdure.Store, name: str) -> None:
        number = 0
        mine = done.setdefault(name, [])
        while not over.is_set() or number < 5:
            key = f"k{number}"
            try:
                if number % 2:
                    await store.append(name, Event("note", number, (op.append("/seen", [number]),)), key=key)
                else:
                    async with store.edit(name, key=key) as draft:
                        if draft.receipt is None:
                            draft.state.setdefault("seen", []).append(number)
                            draft.event("note", number)
            except (perdure.Unknown, perdure.Unavailable, perdure.Busy):
                continue  # Sent again with the same key.
            mine.append(number)
            number += 1

    async with perdure.open(nodes.url) as store, asyncio.TaskGroup() as group:
        for number in range(16):
            group.create_task(write(store, f"s{number % 8}-{number}"))
        for round in range(4):
            progress = sum(map(len, done.values()))
            await until(lambda least=progress + 64: sum(map(len, done.values())) >= least)  # type: ignore[misc]
            victim = f"node{round % 2}"
            await asyncio.to_thread(nodes.kill, victim)
            await asyncio.to_thread(nodes.start_node, victim)
        over.set()
    async with perdure.open(nodes.url) as store:
        for name, numbers in done.items():
            view = await store.read(name)
            assert view.state["seen"] == numbers, name
            commits = [[event.data for event in commit.events if event.type == "note"] async for commit in store.history(name)]
            assert [data for data in commits if data] == [[number] for number in numbers], name
            await store.verify(name)


class TwoNodes(Nodes):
    """Two nodes on one SQLite file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, count=2)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://user:secret-token@127.0.0.1:1", "PERDURE_TOKEN"),
        ("http://secret-token@127.0.0.1:1", "PERDURE_TOKEN"),
        ("http://127.0.0.1:1?token=secret-token", "no option"),
        ("http://127.0.0.1:1?ca=/nowhere.pem", "https"),
        ("https://127.0.0.1:1?ca=/nowhere.pem", "cannot be used"),
        ("http://", "names no host: it reads http://host:port"),
        ("http://a b", "it reads http://host:port,host:port"),
        ("http://127.0.0.1:99999", "ports go from 1 to 65,535"),
    ],
)
async def test_urls_that_are_refused(url: str, says: str) -> None:
    """A token is never a part of a URL, and the message does not repeat it."""
    with pytest.raises(perdure.Invalid, match=says) as caught:
        await perdure.open(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("option", ["blobs", "archive", "shared_cache"])
async def test_what_belongs_to_nodes_is_refused(option: str) -> None:
    """Bodies out of line, archive and shared cache are set where the node is started."""
    with pytest.raises(perdure.Invalid, match="where a service is started"):
        await perdure.open("http://127.0.0.1:1", **{option: "file:///nowhere"})


async def test_the_token_goes_in_a_header_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """`PERDURE_TOKEN` is sent as a bearer token; it stands in no URL, error or repr."""
    heard: list[bytes] = []
    monkeypatch.setenv("PERDURE_TOKEN", "sesame-1234")
    said = json.dumps({"type": "urn:perdure:error:Unauthorized", "detail": "No."}).encode()
    head = b"HTTP/1.1 401 Unauthorized\r\nPerdure-Store: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(said)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1 << 16))
        writer.write(head + said)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(perdure.Unauthorized) as caught:
            await perdure.open(f"http://{HOST}:{port}?timeout=1")
    assert b"Authorization: Bearer sesame-1234" in heard[0]
    assert b"sesame" not in heard[0].partition(b"\r\n")[0]
    assert "sesame" not in repr(caught.value)
