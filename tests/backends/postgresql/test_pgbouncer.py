"""PgBouncer in transaction mode: what it may hand to the wrong client, and how the engine sees that it is there."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

import perdure
from perdure import Durability, Event
from tests.servers.fixture import Servers
from tests.servers.pgbouncer import PgBouncer, PgBouncerIgnoring
from tests.support.backends.engines import Engine, diagnosis

KINDS = pytest.mark.parametrize("kind", [PgBouncer, PgBouncerIgnoring])


@KINDS
async def test_stores_on_shared_connections_never_meet(kind: type[PgBouncer], servers: Servers[PgBouncer]) -> None:
    """Four stores of different namespaces take turns on three server connections, each statement far more often than it takes to be
    prepared: each has its own commits and nobody else's, and none is left prepared on the server."""
    server = servers(kind)
    urls = [Engine("pgbouncer", kind).url(server) for _ in range(4)]

    async def work(url: str) -> None:
        async with perdure.open(url) as store:
            for number in range(25):
                await asyncio.gather(*[store.append(f"s{session}", Event("a", [url, number])) for session in range(4)])
                assert (await store.read("s0")).version == number + 1
            for session in range(4):
                data = [commit.events[0].data async for commit in store.history(f"s{session}")]
                assert data == [[url, number] for number in range(25)]
            assert len([info async for info in store.list()]) == 4

    await asyncio.gather(*map(work, urls))
    with psycopg.connect(server.url, autocommit=True, prepare_threshold=None) as shared:
        assert shared.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)


@KINDS
def test_a_pooler_is_seen_and_doctor_tells(kind: type[PgBouncer], servers: Servers[Any]) -> None:
    """Through PgBouncer a pooler is seen and nothing is prepared; straight to the same server none is seen and statements are prepared."""
    server = servers(kind)
    straight = server.url.replace(str(server.port("pgbouncer")), str(server.port("primary")))
    for url, seen, prepared in ((server.url, "seen", "no"), (straight, "none seen", "yes"), (f"{straight}?prepare=off", "none seen", "no")):
        told = diagnosis(url)
        assert told["healthy"] and told["status"] == 0
        assert (told["server"]["pooler"], told["server"]["prepared statements"]) == (seen, prepared)


@KINDS
async def test_prepared_statements_are_refused_where_they_could_be_anothers(kind: type[PgBouncer], servers: Servers[PgBouncer]) -> None:
    """`prepare=on` is `Unsupported` where the pooler hands statements on under the names that every client gives; `off` works."""
    url = servers(kind).url

    with pytest.raises(perdure.Unsupported, match="max_prepared_statements"):
        await perdure.open(f"{url}?namespace=refused&prepare=on")._open()
    async with perdure.open(f"{url}?namespace=taken&prepare=off") as store:
        assert (await store.append("s", Event("a"))).version == 1


async def test_libpq_options_that_a_pooler_refuses_are_named(servers: Servers[PgBouncer]) -> None:
    """The user's own `options` in the URL, which PgBouncer does not take, are `Invalid` with what to do; other parameters are taken."""
    url = servers(PgBouncer).url

    with pytest.raises(perdure.Invalid, match="ignore_startup_parameters"):
        await perdure.open(f"{url}?options=-c%20work_mem%3D8MB")._open()
    async with perdure.open(f"{url}?namespace=named&application_name=agents&target_session_attrs=read-write") as store:
        assert (await store.append("s", Event("a"))).version == 1


async def test_what_a_commit_sets_ends_with_it(servers: Servers[PgBouncer]) -> None:
    """A level asked for is the commit's own: after `buffered` commits no connection of the pool has a synchronous_commit of its own."""
    server = servers(PgBouncer)

    async with perdure.open(Engine("pgbouncer", PgBouncer).url(server)) as store:
        for number in range(20):
            receipt = await store.append(f"s{number}", Event("a"), durability="buffered")
            assert receipt.durability is Durability.buffered
            with psycopg.connect(server.url, autocommit=True, prepare_threshold=None) as shared:
                assert shared.execute("SELECT setting, source FROM pg_settings WHERE name = 'synchronous_commit'").fetchone() == (
                    "on",
                    "default",
                )
        assert (await store.append("t", Event("a"))).durability is Durability.local


async def test_a_pool_too_small_for_all_makes_them_wait(servers: Servers[Any]) -> None:
    """Ten stores of eight connections each, on three: everyone's commits are stored, in order, none `Unavailable`; all agree on the id."""
    url = Engine("pgbouncer", PgBouncer).url(servers(PgBouncer)) + "&pool=8"

    stores = await asyncio.gather(*(perdure.open(url)._open() for _ in range(10)))
    assert len({store.id for store in stores}) == 1
    for turn in range(5):
        await asyncio.gather(*(store.append(f"s{number}", Event("a")) for number, store in enumerate(stores)))
        await asyncio.gather(*(store.append("shared", Event("a")) for store in stores))
        assert (await stores[0].read("shared")).version == 10 * (turn + 1)
    for store in stores:
        await store.close()
