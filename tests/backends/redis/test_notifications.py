"""Notifications from Valkey: what a watcher is told while primaries fail over and slots move, and what it costs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
from redis import Redis
from redis.exceptions import ResponseError

import perdure
from perdure import Event
from perdure.backends.redis.layout import SHARDS, prefix, shard_of
from perdure.backends.registry import open_backend
from perdure.backends.spi import Notifying
from perdure.clock import SystemClock
from tests.backends.redis.test_cluster import elected, keys_of, other_primary, place
from tests.servers.fixture import Servers
from tests.servers.process import HOST
from tests.servers.valkey import Valkey, ValkeyCluster, ValkeyClusterElecting, ValkeySentinel, ask
from tests.support.backends.engines import Engine
from tests.support.backends.notifications import Watcher, key, no_polling, watcher_of, writing

__all__ = ["no_polling"]
VALKEY, CLUSTER = Engine("valkey", Valkey), Engine("valkey-cluster", ValkeyCluster)
IDS = [f"s{number}" for number in range(12)]
HASTY = "timeout=2&connect_timeout=1"


def clients(server: Valkey, node: str = "primary") -> list[str]:
    """The last commands of those who are connected to a node, but for who asks."""
    with Redis(HOST, server.port(node)) as client:
        return sorted(str(one["cmd"]) for one in client.client_list() if "client" not in str(one["cmd"]))


def calls(server: Valkey, node: str = "primary") -> dict[str, int]:
    """How often each command ran on a node."""
    with Redis(HOST, server.port(node)) as client:
        return {name.removeprefix("cmdstat_"): told["calls"] for name, told in client.info("commandstats").items()}


@pytest.mark.usefixtures("no_polling")
async def test_what_breaks_is_made_again(server_of_my_own: Servers[Valkey]) -> None:
    """While sessions are written, connections are cut, and the server is frozen for longer than the time-out, and killed: every commit
    comes once, in order, though nobody looks."""
    server = server_of_my_own(Valkey)

    async with watcher_of(f"{server.url}?{HASTY}", IDS) as news, writing(news):
        for _ in range(3):
            ask(server.port("primary"), "CLIENT", "KILL", "TYPE", "normal")
            await news.more(5)
        server.pause()
        await asyncio.sleep(3)
        server.resume()
        await news.more(5)
        server.kill()
        await asyncio.to_thread(server.start)
        await news.more(5)
        assert news.hears


def role(server: Valkey, node: str) -> dict[str, str]:
    """What a node says of replication."""
    told = ask(server.port(node), "INFO", "replication") if server.runs(node) else ""
    return dict(line.split(":", 1) for line in told.splitlines() if ":" in line)


def in_step(server: Valkey, node: str) -> bool:
    """Whether this node is a primary whose replica has all that it has."""
    told = role(server, node)
    replica = told.get("slave0", "")
    return told.get("role") == "master" and "state=online" in replica and f"offset={told['master_repl_offset']}," in replica


@pytest.mark.usefixtures("no_polling")
async def test_the_one_commit_that_falls_into_a_break_comes(server_of_my_own: Servers[Valkey]) -> None:
    """Sessions are written once just after connections were cut, and then no more, so no later news makes up for what was missed."""
    server = server_of_my_own(Valkey)

    async with watcher_of(server.url, IDS) as news:
        for _ in range(10):
            ask(server.port("primary"), "CLIENT", "KILL", "TYPE", "normal")
            await asyncio.gather(*[news.write(id) for id in IDS])
            await news.all_told()


@pytest.mark.usefixtures("no_polling")
async def test_the_one_commit_that_falls_into_a_move_comes(servers: Servers[ValkeyCluster]) -> None:
    """A session is written once when all keys of its slot have arrived and the slot is not handed over yet, then once more after that:
    both come, though no later news makes up for them, and the listener did not start anew."""
    server, namespace = servers(ValkeyCluster), "newshalf"
    _, slot = place(namespace, key("s"))

    async with watcher_of(f"{CLUSTER.url(server, namespace)}&{HASTY}", ["s"]) as news:
        await news.until_hears()
        before = started(server)
        source = server.owner(slot)
        target = other_primary(server, source)
        server.begin_move(slot, source, target)
        for one in keys_of(server, source, slot):
            server.move_key(one, source, target)
        await news.write("s")
        await news.all_told()
        server.end_move(slot, source, target)
        await news.write("s")
        await news.all_told()
        assert started(server) == before


def started(server: ValkeyCluster) -> int:
    """How often the end of a feed was asked for: once for each shard, when listening begins."""
    return sum(calls(server, node).get("xrevrange", 0) for node in server.primaries)


@pytest.mark.usefixtures("no_polling")
async def test_a_failover_behind_sentinels(server_of_my_own: Servers[ValkeySentinel]) -> None:
    """The primary is killed, its replica takes over, and the old one follows; then a failover that is asked for, with both alive. What is
    written before, meanwhile and after comes once, in order, though nobody looks. Nothing is lost: each time the replica is in step."""
    server = server_of_my_own(ValkeySentinel)

    def agreed(node: str) -> bool:
        """Whether this node leads, and all Sentinels know it: before, one may name another to clients."""
        address = f"address={HOST}:{server.port(node)},"
        return role(server, node)["role"] == "master" and all(
            address in ask(server.port(one), "INFO", "sentinel") for one in server.sentinels
        )

    async def until(what: str, check: Callable[[], object]) -> None:
        await asyncio.to_thread(server.wait, what, check)

    async with watcher_of(f"{server.url}?{HASTY}", IDS) as news, writing(news):
        async with news.at_rest():
            await until("a replica in step", lambda: in_step(server, "primary"))
            server.kill("primary")
        await until("the replica in its place", lambda: agreed("replica"))
        await news.more(5)
        await asyncio.to_thread(server.start)
        async with news.at_rest():
            await until("the old one in step", lambda: in_step(server, "replica"))
            await until("a failover", lambda: ask(server.port("s1"), "SENTINEL", "FAILOVER", "main"))
            await until("the first one in its place again", lambda: agreed("primary") and role(server, "replica")["role"] == "slave")
        await news.more(5)
        assert news.hears


@pytest.mark.usefixtures("no_polling")
async def test_an_election_of_a_cluster(server_of_my_own: Servers[ValkeyClusterElecting]) -> None:
    """A primary is killed and the Cluster elects its replica, while the sessions of its shards and of others are written: every commit
    comes once, in order, though nobody looks. Nothing is lost: the replica is in step."""
    server = server_of_my_own(ValkeyClusterElecting)

    async with watcher_of(f"{server.url}?{HASTY}", IDS) as news, writing(news):
        async with news.at_rest():
            await asyncio.to_thread(server.wait, "a replica in step", lambda: in_step(server, "p1"))
            server.kill("p1")
        await elected(server, "r1")
        await news.more(5)
        await asyncio.to_thread(server.start)
        await news.more(5)
        assert news.hears


@pytest.mark.usefixtures("no_polling")
async def test_slots_that_move(servers: Servers[ValkeyCluster]) -> None:
    """A shard's slot moves key by key to another primary and back while its sessions and others are written, and then at once where the
    servers can: every commit comes once, in order, though nobody looks, and the listener goes after it without starting anew."""
    server, namespace = servers(ValkeyCluster), "newsmoving"
    name, slot = place(namespace, key(IDS[0]))

    async def move(news: Watcher) -> None:
        source = await asyncio.to_thread(server.owner, slot)
        target = other_primary(server, source)
        await asyncio.to_thread(server.begin_move, slot, source, target)
        for one in keys_of(server, source, slot):
            await asyncio.to_thread(server.move_key, one, source, target)
        await asyncio.to_thread(server.end_move, slot, source, target)
        await news.more(10)

    def move_at_once() -> None:
        source = server.owner(slot)
        target = other_primary(server, source)
        with server.client(source) as client:
            try:
                client.execute_command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", server.id(target))
            except ResponseError:
                return  # Older servers cannot.
        server.wait("the slot moved", lambda: server.owner(slot) == target)

    async with watcher_of(CLUSTER.url(server, namespace), IDS) as news:
        assert any(place(namespace, key(id))[0] != name for id in IDS)
        async with writing(news):
            before = started(server)
            await move(news)
            await move(news)
            await asyncio.to_thread(move_at_once)
            await news.more(10)
            assert news.hears
            assert started(server) == before


async def test_who_may_not_wait_is_polled_for(server_of_my_own: Servers[Valkey]) -> None:
    """A user without the right to XREAD writes and watches: heads are looked at, nothing is an error; with the right it is told."""
    server = server_of_my_own(Valkey)
    ask(server.port("primary"), "ACL", "SETUSER", "agent", "on", ">pa55word", "~{perdure.*", "+@all", "-xread")
    url = server.url.replace("//", "//agent:pa55word@")

    async with watcher_of(url, IDS, watch_every=0.05) as news, writing(news):
        await news.more(3)
        assert not news.hears
        before = calls(server)["hmget"]
        await news.more(3)
        assert calls(server)["hmget"] > before
        ask(server.port("primary"), "ACL", "SETUSER", "agent", "+xread")
        await news.until_hears()


@pytest.mark.parametrize("kind", [VALKEY, CLUSTER], ids=str)
async def test_listening_has_its_own_connections_and_lets_go_of_them(kind: Engine, servers: Servers[Valkey]) -> None:
    """One connection waits, in a Cluster one for each shard, beside a pool of two that two hundred tasks share; after `close` there is none
    of the store left, and no thread."""
    server, threads = servers(kind.server), {thread.name for thread in threading.enumerate()}
    nodes = getattr(server, "primaries", ("primary",))

    def waiting() -> int:
        return sum(clients(server, node).count("xread") for node in nodes)

    def connected() -> int:
        return sum(len(clients(server, node)) for node in nodes)

    before = connected()
    async with perdure.open(f"{kind.url(server)}&pool=2", watch_every=3600) as store:
        await store.append("s0", Event("a"))
        watch = store.watch("s0", after=1)
        following = asyncio.ensure_future(anext(watch))
        backend = store._core.backend
        assert isinstance(backend, Notifying)
        await asyncio.to_thread(server.wait, "someone who waits", lambda: waiting() == (1 if kind is VALKEY else SHARDS))
        assert backend.hears
        await asyncio.gather(*(store.append(f"s{number}", Event("a")) for number in range(200)))
        assert (await following).version == 2
        await watch.aclose()
    await asyncio.to_thread(server.wait, "all gone", lambda: connected() == before)
    own = {thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}  # Those are the loop's.
    assert own <= threads


async def test_without_listeners_an_append_is_one_call_and_with_them_too(server_of_my_own: Servers[Valkey]) -> None:
    """Ten appends are ten function calls and no other command, whether someone listens or not; while nothing happens a listener asks
    twice in its time-out."""
    server = server_of_my_own(Valkey)

    listener = await open_backend(f"{server.url}?timeout=2", clock=SystemClock())
    async with perdure.open(server.url) as store:
        await store.append("s", Event("a"))

        async def ten() -> dict[str, int]:
            ask(server.port("primary"), "CONFIG", "RESETSTAT")
            for _ in range(10):
                await store.append("s", Event("a"))
            ran = calls(server)
            return {name: number for name, number in ran.items() if name in ("fcall", "fcall_ro", "publish", "xread")}

        assert await ten() == {"fcall": 10}
        heard: asyncio.Queue[int] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        assert isinstance(listener, Notifying)
        await listener.listen(lambda session, version: loop.call_soon_threadsafe(heard.put_nowait, version))
        ran = await ten()
        assert ran["fcall"] == 10
        assert ran["xread"] <= 11  # One answer may tell of several.
        assert set(ran) == {"fcall", "xread"}
        async with asyncio.timeout(10):
            while await heard.get() != 21:
                pass
    await listener.close()


async def test_an_entry_changed_by_hand_is_stepped_over(servers: Servers[Valkey]) -> None:
    """An entry in a feed that is none of ours breaks nothing: listening starts behind it, and whoever watches looks for himself."""
    server, namespace = servers(Valkey), "byhand"

    async with watcher_of(VALKEY.url(server, namespace), IDS[:1]) as news, writing(news):
        for fields in (("n", "x"), ("n", "no session", "v", "1"), ("n", "a\x1fb", "v", "x")):
            ask(server.port("primary"), "XADD", f"{prefix(namespace, shard_of(key(IDS[0])))}f", "*", *fields)
            await news.more(5)
