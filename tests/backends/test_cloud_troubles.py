"""Object stores and Google's services in trouble: many tasks, strangers at the address, servers that die, rights that are missing."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

import perdure
from perdure import Event
from tests.servers.azurite import ACCOUNT, Azurite
from tests.servers.fake_gcs import FakeGCS
from tests.servers.fixture import Servers
from tests.servers.google import DatastoreEmulator, FirestoreEmulator
from tests.servers.grpc_front import GrpcFront
from tests.servers.process import HOST, Server
from tests.servers.proxy import Proxy, answered
from tests.servers.seaweedfs import SeaweedFS
from tests.support.backends.engines import Engine
from tests.support.backends.scenarios import nothing_left, retrying, visit

STORES = [Engine("s3", SeaweedFS), Engine("gs", FakeGCS, survives=False), Engine("az", Azurite, survives=False)]
SERVICES = [Engine("firestore", FirestoreEmulator, survives=False), Engine("datastore", DatastoreEmulator, survives=False)]
stores = pytest.mark.parametrize("cloud", STORES, ids=repr)
services = pytest.mark.parametrize("cloud", SERVICES, ids=repr)
clouds = pytest.mark.parametrize("cloud", STORES + SERVICES, ids=repr)
TIMEOUTS = "&timeout=1&connect_timeout=1"
WITHIN = 60
"""Seconds in which everything that these time-outs bound has ended, also on a slow machine."""


@asynccontextmanager
async def behind_proxy(server: Server, cloud: Engine, options: str = TIMEOUTS) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before a server, and a URL that leads through it."""
    port = server.port(server.nodes[0])
    async with Proxy(port) as proxy:
        yield proxy, cloud.url(server).replace(f"{HOST}:{port}", f"{HOST}:{proxy.port}") + options


async def refused(call: Any) -> perdure.Error:
    """What a call raises, in time."""
    start = time.monotonic()
    with pytest.raises(perdure.Error) as error:
        await call
    assert time.monotonic() - start < WITHIN
    return error.value


@clouds
async def test_two_hundred_tasks_share_a_bounded_pool_and_leave_nothing(servers: Servers[Server], cloud: Engine) -> None:
    """200 tasks write, and 200 read what another process wrote, on no more connections than `pool` says, and as many that come late;
    Google's services need one. After `close` no socket, no thread and no task is left."""
    server, pool = servers(cloud.server), 8 if cloud in STORES else 1

    async def scenario() -> None:
        tasks = len(asyncio.all_tasks())
        async with behind_proxy(server, cloud, "&pool=8" if cloud in STORES else "") as (proxy, url):
            async with perdure.open(url) as store:
                await asyncio.gather(*(store.append(f"s{number}", Event("a")) for number in range(200)))
            async with perdure.open(url) as store:
                views = await asyncio.gather(*(store.read(f"s{number}") for number in range(200)))
                assert [view.version for view in views] == [1] * 200
            assert 1 <= proxy.most <= 2 * pool
        assert len(asyncio.all_tasks()) == tasks

    with nothing_left(within=10):
        await scenario()
        gc.collect()  # gRPC leaves its channels, and the thread that serves them all, to the collector.


PAGE = b"<html>Welcome to our hotel</html>"
GARBAGE = {
    "no protocol": b"\x00\xff\x13 220 mail ready\r\n\r\n" * 20,
    "no status": b"HTTP/1.1 abc What\r\n\r\n",
    "a page": answered("200 OK", PAGE),
    "half an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + PAGE,
    "nothing": b"",
}


def _one_of(name: str) -> list[pytest.MarkDecorator]:
    """One kind of garbage is sent in each run; each waits for several time-outs."""
    return [] if name == "a page" else [pytest.mark.slow("time-outs that are waited for")]


@pytest.mark.parametrize("garbage", [pytest.param(text, id=name, marks=_one_of(name)) for name, text in GARBAGE.items()])
@clouds
async def test_a_stranger_at_the_address(servers: Servers[Server], cloud: Engine, garbage: bytes) -> None:
    """Where something else answers, `open` raises in time that the service is away, or that the store's name tag is none of ours, and
    makes nothing. A store that was open reads nothing from it, and does not say that a write was stored, or was not, unless it knows;
    when the service is back, the key tells, and each commit is there once."""
    server = servers(cloud.server)

    async with behind_proxy(server, cloud) as (proxy, url):
        proxy.reply = lambda _: garbage
        assert type(await refused(visit(url))) in (perdure.Unavailable, perdure.Corrupt)
        proxy.reply = None
        await retrying(lambda: visit(url))
        async with perdure.open(url) as store:
            await store.append("s", Event("n", 1))
            proxy.reply = lambda _: garbage
            assert type(await refused(store.read("s"))) in (perdure.Unavailable, perdure.Corrupt)
            assert type(await refused(store.append("s", Event("n", 2), key="unheard"))) in (perdure.Unavailable, perdure.Unknown)
            proxy.reply = None
            assert (await retrying(lambda: store.append("s", Event("n", 2), key="unheard"))).version == 2
            proxy.cut(10_000, instead=garbage)
            assert type(await refused(store.append("s", Event("n", 3), key="heard"))) in (perdure.Unavailable, perdure.Unknown)
            proxy.cut(0)
            assert (await retrying(lambda: store.append("s", Event("n", 3), key="heard"))).version == 3
        async with perdure.open(url) as store:
            assert [commit.events[0].data async for commit in store.history("s")] == [1, 2, 3]
            await store.verify("s")


@pytest.mark.parametrize("answer", [b"\xff\xff\xff<html>", b""], ids=["no message", "an empty one"])
@services
async def test_a_service_that_answers_something_else(servers: Servers[Server], cloud: Engine, answer: bytes) -> None:
    """A 200 with bytes that are no message of the service, or with one without what was asked for: reads and listings are `Unavailable`,
    a write is `Unknown`, and its key tells."""
    server = servers(cloud.server)

    with GrpcFront(server.port("emulator")) as front:
        url = cloud.url(server).replace(str(server.port("emulator")), str(front.port)) + TIMEOUTS
        front.say(answer)
        assert type(await refused(visit(url))) is perdure.Unavailable
        front.say(None)
        async with perdure.open(url) as store:
            await store.append("s", Event("n", 1))
            front.say(answer)
            assert type(await refused(anext(aiter(store.list())))) is perdure.Unavailable
            assert type(await refused(store.read("s"))) is perdure.Unavailable
            assert type(await refused(store.append("s", Event("n", 2), key="k"))) is perdure.Unknown
            front.say(None)
            assert (await store.append("s", Event("n", 2), key="k")).version == 2
            assert [commit.events[0].data async for commit in store.history("s")] == [1, 2]


@clouds
async def test_work_goes_on_when_the_server_is_back(server_of_my_own: Servers[Server], cloud: Engine) -> None:
    """A server is killed and started again on its port: a store that was open all the time goes on by itself, soon. Meanwhile it says that
    the server is away. An emulator has forgotten all, the store's header too: once that is made again, what is new is stored there."""
    server = server_of_my_own(cloud.server)

    await retrying(lambda: visit(cloud.url(server)))  # The first answer of an emulator that was started just now takes seconds.
    async with perdure.open(cloud.url(server) + TIMEOUTS) as store:
        await store.append("s", Event("n", 1))
        server.kill()
        assert type(await refused(store.append("s", Event("n", 2), key="k"))) in (perdure.Unavailable, perdure.Unknown)
        await asyncio.to_thread(server.start)
        start = time.monotonic()
        if cloud.survives:
            assert (await retrying(lambda: store.append("s", Event("n", 2), key="k"))).version == 2
            assert [commit.events[0].data async for commit in store.history("s")] == [1, 2]
        else:
            await retrying(lambda: visit(cloud.url(server)))
        assert (await retrying(lambda: store.append("new", Event("n", 1), key="k"))).version == 1
        print(f"went on after {time.monotonic() - start:.1f} s")


@pytest.mark.parametrize("cloud", [STORES[0], STORES[2]], ids=repr)
async def test_a_login_that_may_only_read(servers: Servers[Any], cloud: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is `Unauthorized` at `open`, where a store's conditions are tried, with the rights that are needed and no secret."""
    server = servers(cloud.server)
    url = cloud.url(server)
    if cloud.server is SeaweedFS:
        reader = url.replace("test:secret@", "reader:secret@")
    else:
        reader = f"az://{ACCOUNT}@{url.rpartition('@')[2]}"

    await visit(url)
    monkeypatch.setenv("AZURE_STORAGE_SAS_KEY", server.token("rl") if cloud.server is Azurite else "")
    error = await refused(visit(reader))
    assert type(error) is perdure.Unauthorized
    assert "s3:PutObject" in str(error) or "Storage Blob Data Contributor" in str(error)
    assert "secret" not in str(error) and "sig" not in str(error)


DENIED = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>%b</Code><Message>Access denied.</Message></Error>"
CODES = {"s3": b"AccessDenied", "gs": b"AccessDenied", "az": b"AuthorizationPermissionMismatch"}


@asynccontextmanager
async def denying(server: Server, cloud: Engine) -> AsyncIterator[tuple[str, Callable[[bool], None]]]:
    """A URL through a front, and what makes that front refuse writes, as the service says it, or lets them through again."""
    if cloud in SERVICES:
        with GrpcFront(server.port("emulator")) as front:

            def deny(on: bool) -> None:
                front.say(grpc.StatusCode.PERMISSION_DENIED if on else None, "Missing or insufficient permissions.", to="Commit")

            yield cloud.url(server).replace(str(server.port("emulator")), str(front.port)) + TIMEOUTS, deny
        return
    answer = answered("403 Forbidden", DENIED % CODES[cloud.name])
    async with behind_proxy(server, cloud) as (proxy, url):

        def refuse(on: bool) -> None:
            proxy.reply = (lambda data: answer if data.startswith((b"PUT", b"POST", b"DELETE")) else None) if on else None

        yield url, refuse


@clouds
async def test_rights_that_are_taken_away(servers: Servers[Server], cloud: Engine) -> None:
    """While the service refuses writes, `open` and appends are `Unauthorized` and say what is needed, reads go on, nothing is written; when
    the right is back the same store goes on."""
    server = servers(cloud.server)

    async with denying(server, cloud) as (url, deny), perdure.open(url) as store:
        await store.append("s", Event("n", 1))
        deny(True)
        for call in (visit(url), store.append("s", Event("n", 2), key="k")):
            error = await refused(call)
            assert type(error) is perdure.Unauthorized
            assert any(right in str(error) for right in ("s3:PutObject", "roles/", "Storage Blob Data Contributor"))
        assert (await store.read("s")).version == 1
        deny(False)
        assert (await store.append("s", Event("n", 2), key="k")).version == 2
        assert [commit.events[0].data async for commit in store.history("s")] == [1, 2]


@stores
async def test_a_bucket_that_is_not_there(servers: Servers[Server], cloud: Engine) -> None:
    """It is `Invalid`, by its name."""
    server = servers(cloud.server)

    async with behind_proxy(server, cloud) as (proxy, url):
        if cloud.server is SeaweedFS:
            proxy.reply = lambda _: answered("404 Not Found", b"<Error><Code>NoSuchBucket</Code><Message>No such bucket.</Message></Error>")
        error = await refused(visit(url.replace("test/?", "nowhere/?")))
        assert type(error) is perdure.Invalid
        assert f"{cloud.name}://nowhere/" in str(error) and "create the bucket" in str(error)


@pytest.mark.parametrize(
    ("code", "text", "error", "says"),
    [
        (grpc.StatusCode.NOT_FOUND, "The database nowhere does not exist for project test.", perdure.Invalid, "gcloud firestore databases"),
        (
            grpc.StatusCode.FAILED_PRECONDITION,
            "The Cloud Firestore API is not available for Firestore in Datastore Mode database projects/test/databases/(default).",
            perdure.Invalid,
            "in this mode",
        ),
        (
            grpc.StatusCode.PERMISSION_DENIED,
            "Cloud Firestore API has not been used in project test before or it is disabled.",
            perdure.Unauthorized,
            "API",
        ),
        (grpc.StatusCode.UNAUTHENTICATED, "Request had invalid authentication credentials.", perdure.Unauthorized, "login"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Quota exceeded.", perdure.Unavailable, "ResourceExhausted"),
    ],
    ids=["no database", "other mode", "no API", "no login", "no quota"],
)
@services
async def test_what_a_service_says_of_a_place(
    servers: Servers[Server], cloud: Engine, code: grpc.StatusCode, text: str, error: type[perdure.Error], says: str
) -> None:
    """A database that is not there or is of the other mode, an API that is off, a login or a quota that has ended: each is told apart at
    `open`, with what to do."""
    server = servers(cloud.server)

    with GrpcFront(server.port("emulator")) as front:
        front.say(code, text)
        raised = await refused(visit(cloud.url(server).replace(str(server.port("emulator")), str(front.port)) + TIMEOUTS))
        assert type(raised) is error
        assert says in str(raised)
