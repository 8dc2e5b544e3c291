"""etcd: what is its own beside the shared suites: requests counted, chunks, logins, strangers at the address."""

from __future__ import annotations

import asyncio
import base64
import http.server
import json
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

import perdure
from perdure import Event
from perdure.backends.conformance.kit import Kit
from perdure.backends.etcd.gateway import items, prefix_end
from perdure.model.commit import Kind
from perdure.model.ids import SessionKey
from tests.servers.etcd import Etcd
from tests.servers.fixture import Servers
from tests.servers.process import free_port
from tests.support.backends.engines import Engine
from tests.support.backends.scenarios import (
    group_is_one_request,
    large_ones_come_back_whole,
    nothing_left,
    opened,
    pause_ends_in_time,
    visit,
    warm_read_is_one_request,
)

ETCD = Engine("etcd", Etcd)


@pytest.fixture
def url(servers: Servers[Etcd]) -> str:
    return ETCD.url(servers(Etcd))


def requests(backend: Any) -> int:
    return backend.driver.gateway.requests


def ask(server: Etcd, path: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
    """A request of another client."""
    headers = {"Authorization": token} if token else {}
    request = urllib.request.Request(f"{server.client('m1')}/v3/{path}", data=json.dumps(body).encode(), headers=headers)
    with urllib.request.urlopen(request, timeout=5) as response:
        return json.load(response)


async def test_a_group_is_one_request_and_so_is_a_warm_read(url: str) -> None:
    """64 sessions known to the store are appended to in one request; a read of a session in memory asks for its head alone."""

    async with opened(url) as backend:
        await group_is_one_request(backend, requests, turns=2, keys=False)
    await warm_read_is_one_request(url, requests)


async def test_what_is_larger_than_a_request_goes_in_chunks(url: str) -> None:
    """A commit of 5 MiB and a state of 3 MiB with its snapshot come back whole; above 16 MiB it is `TooLarge` and nothing is stored."""
    await large_ones_come_back_whole(url)


async def test_chunks_of_many_large_records_go_with_them(url: str) -> None:
    """A truncation of more than a page of large records leaves none of their chunks behind, and what is above it whole."""
    session, body = SessionKey("t", "large"), bytes(1 << 20)
    async with opened(url) as backend:
        kit = Kit(backend, None)
        await kit.chain(session, 6, body=body)
        (anchor,) = await kit.chain(session, 1, kind=Kind.anchor)
        driver: Any = backend.driver  # type: ignore[attr-defined]

        async def chunks() -> int:
            prefix = driver._keys.of(b"c", session)
            return len(items(await driver.gateway.range(key=prefix, end=prefix_end(prefix), keys_only=True)))

        assert await backend.run(chunks()) == 24  # type: ignore[attr-defined]
        await backend.truncate(session, 6, (7, anchor.hash))
        assert await backend.run(chunks()) == 4  # type: ignore[attr-defined]
        assert next(record.body for record in await backend.read(session)) == body


async def test_a_wrong_password_is_refused_and_an_old_token_is_renewed(server_of_my_own: Servers[Etcd]) -> None:
    """With authentication on: no login or a wrong one is `Unauthorized`, never shown; the right one works, also after all tokens died."""
    server = server_of_my_own(Etcd)
    ask(server, "auth/user/add", {"name": "root", "password": "s3cret"})
    ask(server, "auth/user/grant", {"user": "root", "role": "root"})
    ask(server, "auth/enable", {})

    for login in ("", "root:wr0ng@"):
        with pytest.raises(perdure.Unauthorized) as refused:
            await perdure.open(server.url.replace("//", f"//{login}"))
        assert "wr0ng" not in str(refused.value)
    async with perdure.open(server.url.replace("//", "//root:s3cret@")) as store:
        assert "s3cret" not in repr(store) + repr(store._core.backend)
        await store.append("s", Event("a"))
        server.kill()
        server.start()
        assert (await store.append("s", Event("b"))).version == 2


@pytest.mark.parametrize(("value", "error"), [(b"not ours", perdure.Corrupt), (b"\x82\xa6schema\x03\xa5store\xa1x", perdure.Unsupported)])
async def test_a_namespace_of_another_kind_is_refused(servers: Servers[Etcd], value: bytes, error: type[perdure.Error]) -> None:
    """Where something else stands, or a newer layout, opening says so and changes nothing."""
    server = servers(Etcd)
    url = ETCD.url(server, name := f"other{int.from_bytes(value[:3], 'big')}")
    key = base64.b64encode(f"{name}/m".encode()).decode()
    ask(server, "kv/put", {"key": key, "value": base64.b64encode(value).decode()})
    with pytest.raises(error):
        await visit(url)
    assert ask(server, "kv/range", {"key": key})["kvs"][0]["value"] == base64.b64encode(value).decode()


class Garbage(http.server.BaseHTTPRequestHandler):
    """Answers everything with what no gateway says."""

    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def stranger() -> Iterator[str]:
    """The address of a server that is no etcd."""
    with http.server.HTTPServer(("127.0.0.1", 0), Garbage) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"etcd://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_a_stranger_and_nobody_are_told_apart(stranger: str) -> None:
    """At an address where something else answers, or nobody does, opening raises within its time-outs."""
    with pytest.raises((perdure.Unknown, perdure.Unavailable), match="is no etcd gateway"):
        await visit(stranger)
    with pytest.raises(perdure.Unavailable, match="No member of etcd can be reached"):
        await visit(f"etcd://127.0.0.1:{free_port()},127.0.0.1:{free_port()}")
    for bad in (
        "etcd://",
        "etcd://h/path",
        "etcd://h?namespace=a-b",
        "etcd://h?timeout=0",
        "etcd://h?colour=red",
        "etcd://h?tls=on&ca=/no/such",
    ):
        with pytest.raises(perdure.Invalid):
            await visit(bad)


async def test_closing_leaves_nothing_behind(url: str) -> None:
    """After `close` no thread of the store is left."""

    async def scenario() -> None:
        async with perdure.open(url) as store:
            await asyncio.gather(*(store.append(f"s{number}", Event("a")) for number in range(200)))
            assert any(thread.name.startswith("perdure-etcd") for thread in threading.enumerate())

    with nothing_left():
        await scenario()


async def test_a_paused_member_is_unknown_in_time_and_then_goes_on(server_of_my_own: Servers[Etcd]) -> None:
    """While the server is frozen an append ends within its time-outs and may be sent again; after it wakes the key was applied once."""
    server = server_of_my_own(Etcd)

    async with perdure.open(server.url + "?timeout=1&connect_timeout=1") as store:
        await store.append("s", Event("a"))
        await pause_ends_in_time(server, store)
        receipt = await store.append("s", Event("b"), key="k")
        assert receipt.version == 2
        assert [commit.version async for commit in store.history("s")] == [1, 2]
