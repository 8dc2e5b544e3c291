"""TLS on every engine that takes it: who is trusted, who is not, and handshakes that go wrong, each within the time-outs."""

from __future__ import annotations

import asyncio
import gc
import ssl
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

import perdure
from perdure import Event
from perdure.backends.conformance import behind, expecting
from perdure.backends.registry import open_backend
from perdure.backends.spi import Appended, Refused
from perdure.clock import SystemClock
from perdure.model.ids import SessionKey
from tests.servers.cassandra import Cassandra
from tests.servers.etcd import Etcd
from tests.servers.fixture import Servers
from tests.servers.mongodb import MongoDB
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import HOST, Server
from tests.servers.seaweedfs import SeaweedFS
from tests.servers.tls import Authority, Front
from tests.servers.valkey import Valkey

TIMES = "connect_timeout=1.5&timeout=3"
"""A request has longer than a handshake."""
WITHIN = 60
"""Seconds in which every refusal has to come, on a machine that is busy."""


@dataclass(frozen=True)
class Secured:
    """How an engine is reached with TLS: `form` is its URL, with the port and the authority's file; `login` names a client's own."""

    name: str
    server: type[Server]
    node: str
    form: str
    login: str = "&cert={file}&cert_key={file}"
    asked: bool = False

    def __repr__(self) -> str:
        return self.name

    def url(self, front: Front, authority: Authority, host: str = HOST) -> str:
        """The URL of a front, for data that no other test sees."""
        settings = f"namespace=t{uuid4().hex[:12]}&{TIMES}"
        return self.form.format(at=f"{host}:{front.port}", ca=authority.ca) + f"&{settings}"


ENGINES = [
    Secured(
        "postgresql",
        PostgreSQL,
        "primary",
        "postgresql://postgres@{at}/postgres?sslmode=verify-full&sslrootcert={ca}",
        "&sslcert={file}&sslkey={file}",
        asked=True,
    ),
    Secured("valkey", Valkey, "primary", "rediss://{at}/0?ca={ca}"),
    Secured("mongodb", MongoDB, "n1", "mongodb://{at}/?directConnection=true&tls=true&tlsCAFile={ca}", "&tlsCertificateKeyFile={file}"),
    Secured("etcd", Etcd, "m1", "etcd://{at}?tls=on&ca={ca}"),
    Secured("cassandra", Cassandra, "n1", "cassandra://{at}/perdure?replication=1&tls=on&ca={ca}"),
    Secured("seaweedfs", SeaweedFS, "s3", "s3://test:secret@test/?endpoint=https://{at}&ca={ca}", ""),
]
everywhere = pytest.mark.parametrize("engine", ENGINES, ids=repr)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom the client trusts."""
    return Authority(tmp_path_factory.mktemp("authority"), "ours")


@pytest.fixture(scope="session")
def trusted(authority: Authority) -> ssl.SSLContext:
    return authority.certificate(HOST, "localhost")


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


async def refused(url: str) -> perdure.Error:
    """What opening raises, in time."""
    start = time.monotonic()
    with pytest.raises(perdure.Error) as error:
        await (await perdure.open(url)).close()
    assert time.monotonic() - start < WITHIN
    return error.value


@everywhere
@pytest.mark.parametrize("host", [HOST, "localhost"])
async def test_a_verified_connection_takes_commits(
    servers: Servers[Any], engine: Secured, host: str, authority: Authority, trusted: Any
) -> None:
    """With the authority's file, by name or by address: appends, their condition and a whole session work, all through TLS."""
    server = servers(engine.server)

    async with Front(server.port(engine.node), trusted, asked=engine.asked) as front:
        backend = await open_backend(engine.url(front, authority, host), clock=SystemClock())
        session = SessionKey("acme", "s")
        (outcome,) = await backend.append([behind(session)])
        assert isinstance(outcome, Appended)
        assert isinstance((await backend.append([expecting(session, None)]))[0], Refused)
        assert await backend.heads([session]) == [outcome.head]
        await backend.close()
        async with perdure.open(engine.url(front, authority, host)) as store:
            async with store.edit("s") as draft:
                draft.state["n"] = 1
            assert (await store.read("s")).state == {"n": 1}
            assert (await store.verify("s")).version == 1
        assert front.handshakes >= 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # httpx may leave a refused socket to the collector.
@everywhere
async def test_whoever_is_not_vouched_for_is_refused(servers: Servers[Any], engine: Secured, authority: Authority, tmp_path: Any) -> None:
    """An authority that the client does not know, and a certificate for another host, are `Unavailable` in time, and the message says that
    it was the certificate. Nothing of ours was sent."""
    server = servers(engine.server)
    stranger = Authority(tmp_path, "theirs")
    for context in (stranger.certificate(HOST, "localhost"), authority.certificate("elsewhere.example")):
        async with Front(server.port(engine.node), context, asked=engine.asked) as front:
            error = await refused(engine.url(front, authority))
            assert isinstance(error, perdure.Unavailable)
            assert "certificate" in str(error)
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # httpx may leave a refused socket to the collector.
@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine.login], ids=repr)
async def test_a_client_shows_its_own_certificate(servers: Servers[Any], engine: Secured, authority: Authority, tmp_path: Any) -> None:
    """Where the server serves only clients that it knows: a known one works; one without a certificate, or with a stranger's, is told so
    or finds nobody, in time."""
    server = servers(engine.server)
    known, stranger = authority.file("agent"), Authority(tmp_path, "theirs").file("agent")
    context = authority.certificate(HOST, "localhost", clients=authority)
    async with Front(server.port(engine.node), context, asked=engine.asked) as front:
        url = engine.url(front, authority)
        async with perdure.open(url + engine.login.format(file=known)) as store:
            assert (await store.append("s", Event("x"))).version == 1
        for wrong in (url, url + engine.login.format(file=stranger)):
            assert isinstance(await refused(wrong), perdure.Unavailable | perdure.Unauthorized)
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # httpx may leave a refused socket to the collector.
@everywhere
@pytest.mark.parametrize("trouble", ["cut", "garbage", "silent"])
async def test_a_handshake_that_goes_wrong_ends_in_time(engine: Secured, trouble: str, authority: Authority, trusted: Any) -> None:
    """A connection closed in mid-handshake, one answered with something else, and one never answered, are `Unavailable` in time."""
    async with Front(0, trusted, asked=engine.asked, trouble=trouble) as front:
        assert isinstance(await refused(engine.url(front, authority)), perdure.Unavailable)
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pymongo leaves a refused socket to the collector.
@everywhere
async def test_a_server_without_tls_is_not_spoken_to_plainly(servers: Servers[Any], engine: Secured, authority: Authority) -> None:
    """Where TLS is asked for and the server has none, the client does not fall back to plain text."""
    server = servers(engine.server)
    plain = engine.form.format(at=f"{HOST}:{server.port(engine.node)}", ca=authority.ca)
    error = await refused(f"{plain}&{TIMES}")
    assert isinstance(error, perdure.Unavailable)
    gc.collect()


async def test_files_that_cannot_be_used_are_invalid(tmp_path: Any) -> None:
    """An authority's file that is missing or holds something else is `Invalid` or `Unavailable`, before anything waits."""
    (tmp_path / "empty.pem").write_text("nothing")

    for engine in ENGINES:
        for file in ("missing.pem", "empty.pem"):
            url = engine.form.format(at=f"{HOST}:1", ca=tmp_path / file)
            error = await refused(f"{url}&{TIMES}")
            assert isinstance(error, perdure.Invalid | perdure.Unavailable), (engine, file)


async def test_an_event_of_a_store_whose_server_is_replaced_is_refused(servers: Servers[Any], authority: Authority, tmp_path: Any) -> None:
    """A store that is open already checks every new connection: an impostor that takes over the address gets nothing."""
    engine = ENGINES[1]
    server = servers(engine.server)
    ours, theirs = authority.certificate(HOST), Authority(tmp_path, "theirs").certificate(HOST)

    async with Front(server.port(engine.node), ours) as front, perdure.open(engine.url(front, authority)) as store:
        await store.append("s", Event("a"))
        front.replace(theirs)
        with pytest.raises((perdure.Unavailable, perdure.Unknown)):
            await store.append("s", Event("b"), key="k")
        front.replace(ours)
        assert (await store.append("s", Event("b"), key="k")).version == 2
