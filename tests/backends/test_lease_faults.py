"""Leases on real engines while answers are lost, the holder is cut off, and a server fails over: no two commits under one order of tokens,
and no holder that answers is deposed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import pytest

import perdure
from perdure import Event, Store
from perdure.backends.spi import Append
from tests.servers.cassandra import Cassandra
from tests.servers.fixture import Servers
from tests.servers.postgresql import PostgreSQL, PostgreSQLStandby
from tests.servers.process import HOST, Server
from tests.servers.proxy import Proxy
from tests.servers.valkey import Valkey, ValkeySentinel

TIMEOUTS = "&timeout=2&connect_timeout=1"
SERVERS: dict[str, type[Server]] = {"postgresql": PostgreSQL, "valkey": Valkey, "cassandra": Cassandra}
CASSANDRA = pytest.param("cassandra", marks=[pytest.mark.fetched, pytest.mark.slow("a ttl of ten seconds, on a JVM")])
EVERY = pytest.mark.parametrize("engine", ["postgresql", "valkey", CASSANDRA])
pytestmark = pytest.mark.server


class Line(Proxy):
    """A proxy that can also be cut: nothing goes through, either way, and new connections are closed at once."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.is_cut = False

    def interrupt(self) -> None:
        """From now on nothing goes through."""
        self.is_cut = True
        for client in list(self._clients):
            client.cancel()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_cut:
            await super()._talk(reader, writer)


@asynccontextmanager
async def stores(engine: str, servers: Servers[Server]) -> AsyncIterator[tuple[Line, Store, Store, float]]:
    """The line, a store behind it, a store beside it, and the shortest ttl there."""
    server = servers(SERVERS[engine])
    mark = "&" if "?" in server.url else "?"
    url = f"{server.url}{mark}namespace=t{uuid4().hex[:12]}"
    port = server.port(server.nodes[0])
    async with (
        Line(port) as line,
        perdure.open(url) as beside,
        perdure.open(url.replace(f"{HOST}:{port}", f"{HOST}:{line.port}") + TIMEOUTS) as behind,
    ):
        await beside.append("other", Event("warm"))
        await behind.append("other", Event("warm"))
        yield line, behind, beside, 3.0 if beside.capabilities.notification else 10.0
        line.is_cut = line.silent = False
        line.cut(0)


class Loses:
    """Loses the answers of the next appends of one session, as the server sees them: they were sent, and their connection breaks."""

    def __init__(self, line: Line, store: Store, session: str) -> None:
        self._line, self._session, self._append = line, session, store._core.backend.append
        self.left = self.lost = 0
        store._core.backend.append = self.append  # type: ignore[method-assign]

    async def append(self, appends: Sequence[Append]) -> Any:
        if not self.left or appends[0].session.id != self._session:
            return await self._append(appends)
        self.left -= 1
        self._line.cut(1_000_000)
        try:
            return await self._append(appends)
        finally:
            self.lost += 1
            self._line.cut(0)


async def history(store: Store) -> list[perdure.Commit]:
    """All commits, those of the leases too."""
    await store.verify("s")
    return [commit async for commit in store.history("s", control=True)]


async def judge(store: Store) -> list[str]:
    """Commits of work carry the token that is in force, and tokens rise. The owners, in order."""
    owners: dict[str, None] = {}
    newest = 0
    for commit in await history(store):
        assert commit.epoch >> 14 >= newest
        newest = commit.epoch >> 14
        for event in commit.events:
            if event.type == "work":
                assert event.data["token"] == newest, commit
                owners[event.data["owner"]] = None
    return list(owners)


async def work(store: Store, lease: perdure.Lease) -> perdure.Receipt:
    """One commit of work, whose outcome is known in the end."""
    key = uuid4().hex
    while True:
        try:
            event = Event("work", {"owner": lease.owner, "token": lease.token})
            return await store.append("s", event, key=key, lease=lease)
        except (perdure.Unknown, perdure.Unavailable):
            await asyncio.sleep(0.05)


async def count(store: Store, type: str) -> int:
    """How many events of this type there are."""
    return sum(event.type == type for commit in await history(store) for event in commit.events)


async def asked(store: Store, challenges: int) -> None:
    """Wait until the session's holder was asked so often."""
    async with asyncio.timeout(120):
        while await count(store, "challenged") < challenges:  # noqa: ASYNC110 - what is waited for is in the store
            await asyncio.sleep(0.05)


@EVERY
async def test_lost_answers(engine: str, servers: Servers[Server]) -> None:
    """The answers of a take, a challenge, a holder's answer and a release are lost, and the connection with them: the take counts for the
    one who made it, the holder is asked once more at most, one that answers keeps its lease, and who waits need not wait for its ttl."""
    async with stores(engine, servers) as (line, behind, beside, ttl):
        loses = Loses(line, behind, "s")

        loses.left = 1
        async with behind.lease("s", owner="a", ttl=ttl, wait=60) as lease:
            assert loses.lost == 1
            await work(behind, lease)
            assert await count(beside, "leased") == 1

            loses.left = 1  # The answer to the challenge.
            waiting = asyncio.create_task(beside.lease("s", owner="b", ttl=ttl, wait=3 * ttl).__aenter__())
            with pytest.raises(perdure.Held):
                await waiting
            assert loses.lost == 2
            assert not lease.lost.is_set()
            await work(behind, lease)
            loses.left = 1
        # The release was lost: the keeper of its store lets go, or had let go.
        assert loses.lost >= 3
        async with beside.lease("s", owner="b", ttl=ttl, wait=60) as lease:
            await work(beside, lease)
            loses.left = 1  # The challenge.
            before = await count(beside, "challenged")
            with pytest.raises(perdure.Held):
                await behind.lease("s", owner="c", ttl=ttl, wait=ttl).__aenter__()
            assert loses.lost >= 4
            await asked(beside, before + 1)
            await lease.confirm()
            await work(beside, lease)
        assert await judge(beside) == ["a", "b"]


@EVERY
@pytest.mark.slow("several ttls")
async def test_answers_that_are_lost_again_and_again(engine: str, servers: Servers[Server]) -> None:
    """Two workers take the lease from one another by turns; each second append of one of them loses its answer."""
    async with stores(engine, servers) as (line, behind, beside, ttl):
        loses = Loses(line, behind, "s")

        async def worker(store: Store, owner: str, rounds: int) -> int:
            done = 0
            while done < rounds:
                with suppress(perdure.Held, perdure.Fenced, perdure.Unavailable, perdure.Unknown):
                    loses.left = 1 if store is behind else loses.left
                    async with store.lease("s", owner=owner, ttl=ttl, wait=4 * ttl) as lease:
                        for _ in range(3):
                            loses.left = 1 if store is behind else loses.left
                            await work(store, lease)
                        done += 1
            return done

        async with asyncio.timeout(280):
            done = await asyncio.gather(worker(behind, "a", 6), worker(beside, "b", 6))
        assert done == [6, 6]
        assert set(await judge(beside)) == {"a", "b"}
        assert loses.lost > 12


@EVERY
@pytest.mark.slow("longer than a ttl")
async def test_a_holder_that_is_cut_off_is_followed_and_fenced(engine: str, servers: Servers[Server]) -> None:
    """The holder reaches nobody for longer than its ttl. Another one takes over; the holder is told that its lease is lost, and when it
    reaches the engine again its writes are `Fenced`."""
    async with stores(engine, servers) as (line, behind, beside, ttl), behind.lease("s", owner="a", ttl=ttl, wait=60) as lease:
        await work(behind, lease)
        line.interrupt()
        async with beside.lease("s", owner="b", ttl=ttl, wait=10 * ttl) as other:
            await work(beside, other)
            async with asyncio.timeout(60):
                await lease.lost.wait()
            line.is_cut = False
            with pytest.raises(perdure.Fenced):
                await work(behind, lease)
            await work(beside, other)
        assert await judge(beside) == ["a", "b"]


@EVERY
@pytest.mark.slow("longer than a ttl")
async def test_a_holder_that_is_cut_off_alone_goes_on(engine: str, servers: Servers[Server]) -> None:
    """Nobody wants the session meanwhile: when the holder reaches the engine again, what it writes under its token is stored."""
    async with stores(engine, servers) as (line, behind, beside, ttl), behind.lease("s", owner="a", ttl=ttl, wait=60) as lease:
        await work(behind, lease)
        line.interrupt()
        async with asyncio.timeout(60):
            await lease.lost.wait()
        line.is_cut = False
        await work(behind, lease)
        assert await judge(beside) == ["a"]


async def promoted(pair: PostgreSQLStandby) -> None:
    """The primary dies, its synchronous standby takes its place, and it comes back as the other's standby."""
    pair.kill("primary")
    await asyncio.to_thread(pair.sql, "SELECT pg_promote()", "standby")
    await asyncio.to_thread(pair.copy, "standby", "primary")
    await asyncio.to_thread(pair.launch, "primary")
    await asyncio.to_thread(pair.await_standby, "standby", "primary")


async def elected(servers: ValkeySentinel) -> None:
    """The primary dies, the Sentinels put its replica in its place, and it comes back and follows."""
    servers.kill("primary")
    await asyncio.to_thread(servers.wait, "the replica in its place", lambda: servers.follows("replica") is None)
    await asyncio.to_thread(servers.start)
    await asyncio.to_thread(servers.wait, "the old one following", lambda: servers.follows("primary") == "up")


FAILOVERS: dict[type[Server], tuple[Any, str, Any]] = {
    PostgreSQLStandby: (lambda server: server.either + "&namespace=lease", "local", promoted),
    ValkeySentinel: (lambda server: server.url + "?namespace=lease&replicas=1", "quorum", elected),
}


@pytest.mark.slow("a failover")
@pytest.mark.parametrize("kind", FAILOVERS, ids=lambda kind: kind.name)
async def test_a_failover(kind: type[Server], server_of_my_own: Servers[Server]) -> None:
    """The server fails over while somebody holds the session and another one waits. What was acknowledged above `failover_loss` is there,
    the holder keeps its lease and its token's order, and the one who waits gets it afterwards, with a higher token."""
    server = server_of_my_own(kind)
    url_of, durability, fail_over = FAILOVERS[kind]
    url, ttl = url_of(server) + TIMEOUTS, 60.0
    async with perdure.open(url, durability=durability) as mine, perdure.open(url, durability=durability) as other:
        async with mine.lease("s", owner="a", ttl=ttl, wait=60) as lease:
            token, receipts = lease.token, [await work(mine, lease)]
            waiting = asyncio.create_task(other.lease("s", owner="b", ttl=ttl, wait=280).__aenter__())
            await asked(mine, 1)
            failing = asyncio.create_task(fail_over(server))
            while not failing.done():
                receipts.append(await work(mine, lease))
                await asyncio.sleep(0.05)
            await failing
            receipts += [await work(mine, lease) for _ in range(5)]
            assert not lease.lost.is_set()
            assert not waiting.done()
        after = await waiting
        assert after.token > lease.token >= token
        await work(other, after)
        await after.release()
        assert await judge(other) == ["a", "b"]
        loss = mine.capabilities.failover_loss
        kept = {receipt.id for receipt in receipts if loss is None or receipt.durability > loss}
        assert len(kept) > 5
        assert kept <= {commit.id for commit in await history(other)}
