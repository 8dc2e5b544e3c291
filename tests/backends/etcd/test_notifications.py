"""Notifications from etcd: what a watcher is told while members die and history is compacted, and what it costs."""

from __future__ import annotations

import asyncio
import base64
from contextlib import aclosing, suppress
from typing import Any

import pytest

import perdure
from perdure import Event
from perdure.backends.etcd.gateway import prefix_end, text
from perdure.backends.etcd.layout import Layout
from perdure.backends.etcd.notifications import notices
from perdure.backends.registry import open_backend
from perdure.clock import SystemClock
from perdure.errors import Unavailable
from tests.backends.etcd.test_etcd import ask
from tests.servers.etcd import Etcd, EtcdCluster
from tests.servers.fixture import Servers
from tests.support.backends.engines import Engine
from tests.support.backends.notifications import no_polling, watcher_of, writing
from tests.support.backends.scenarios import nothing_left

__all__ = ["no_polling"]
ETCD = Engine("etcd", Etcd)
IDS = [f"s{number}" for number in range(8)]
HASTY = "timeout=2&connect_timeout=1"


def compact(server: Etcd) -> None:
    """Forget every revision but the newest, if the first member can be asked."""
    with suppress(OSError):
        ask(server, "kv/compaction", {"revision": server.ask("m1", "maintenance/status")["header"]["revision"]})


@pytest.mark.usefixtures("no_polling")
async def test_members_that_die_and_history_that_is_compacted(server_of_my_own: Servers[EtcdCluster]) -> None:
    """While sessions are written and all but the newest revision is compacted again and again, each of three members is killed in turn,
    the one that is watched among them, and that one is frozen for longer than the time-out: every commit comes once, in order, though
    nobody looks."""
    server = server_of_my_own(EtcdCluster)

    async def compacting() -> None:
        while True:
            await asyncio.to_thread(compact, server)
            await asyncio.sleep(0.02)

    async with watcher_of(f"{server.url}?{HASTY}", IDS) as news, writing(news):
        task = asyncio.create_task(compacting())
        for node in server.names:
            server.kill(node)
            await news.more(5)
            await asyncio.to_thread(server.start)
            await news.more(5)
        server.pause("m1")
        await asyncio.sleep(3)
        server.resume("m1")
        await news.more(5)
        task.cancel()
        await news.until_hears()


@pytest.mark.usefixtures("no_polling")
async def test_a_member_that_lost_the_others_is_not_taken_for_silent(server_of_my_own: Servers[EtcdCluster]) -> None:
    """The watched member alone stays of three, and keeps the connection open: within the time-outs nothing is said to be heard any more.
    When the others are back it is, and what is written then comes."""
    server = server_of_my_own(EtcdCluster)

    async with watcher_of(f"{server.url}?{HASTY}", IDS) as news:
        await news.until_hears()
        server.kill("m2", "m3")
        await news.until_hears(hears=False)
        await asyncio.to_thread(server.start)
        await news.until_hears()
        for id in IDS:
            await news.write(id)
        await news.all_told()


async def test_a_watch_that_is_too_far_behind_is_ended_as_unavailable(server_of_my_own: Servers[Etcd]) -> None:
    """What etcd says when it has compacted what a watch has not seen yet is an error from which listening starts anew."""
    server = server_of_my_own(Etcd)

    class Late:
        """A gateway whose watches start at the first revision."""

        def __init__(self, gateway: Any) -> None:
            self._gateway = gateway

        def stream(self, path: str, body: dict[str, Any], alive: dict[str, Any]) -> Any:
            return self._gateway.stream(path, {"create_request": body["create_request"] | {"start_revision": "1"}}, alive)

    backend: Any = await open_backend(server.url, clock=SystemClock())
    compact(server)

    async def listen() -> None:
        async with aclosing(notices(Late(backend.driver.gateway), Layout("perdure"))) as heard:  # type: ignore[arg-type]
            async for session, _ in heard:
                assert session is None

    with pytest.raises(Unavailable, match="compacted"):
        await asyncio.wait_for(backend.run(listen()), 30)
    await backend.close()


async def test_who_may_not_watch_is_polled_for(server_of_my_own: Servers[Etcd]) -> None:
    """A user with rights to the sessions of one tenant alone writes and watches: heads are looked at, nothing is an error; with rights to
    all heads it is told, and goes on to be when its token has died."""
    server = server_of_my_own(Etcd)
    await _written_once(server.url)
    heads, rest = Layout("perdure").all(b"h"), Layout("perdure").all(b"")[:-1]
    for name in ("root", "agent"):
        ask(server, "auth/user/add", {"name": name, "password": "s3cret"})
    ask(server, "auth/role/add", {"name": "tenant"})
    for start, end in ((rest, heads), (prefix_end(heads), prefix_end(rest)), (heads + b"default\0", heads + b"default\1")):
        ask(server, "auth/role/grant", grant(start, end))
    for user, role in (("root", "root"), ("agent", "tenant")):
        ask(server, "auth/user/grant", {"user": user, "role": role})
    ask(server, "auth/enable", {})
    root = ask(server, "auth/authenticate", {"name": "root", "password": "s3cret"})["token"]

    url = server.url.replace("//", "//agent:s3cret@")
    async with watcher_of(url, IDS, watch_every=0.05) as news, writing(news):
        await news.more(3)
        assert not news.hears
        ask(server, "auth/role/grant", grant(heads, prefix_end(heads)), root)
        await news.until_hears()
        server.kill()
        await asyncio.to_thread(server.start)
        await news.more(3)
        await news.until_hears()


async def _written_once(url: str) -> None:
    async with perdure.open(url) as store:
        await store.append("first", Event("a"))


def grant(start: bytes, end: bytes) -> dict[str, Any]:
    """The right to read and write the keys from `start` up to `end`."""
    return {"name": "tenant", "perm": {"permType": "READWRITE", "key": text(start), "range_end": text(end)}}


async def test_listening_has_its_own_connection_and_lets_go_of_it(servers: Servers[Etcd]) -> None:
    """With a pool of one a watch waits while two hundred tasks append; after `close` there is no socket and no thread of the store left."""
    url = ETCD.url(servers(Etcd))

    async def scenario() -> None:
        async with watcher_of(f"{url}&pool=1", IDS) as news:
            await news.until_hears()
            await asyncio.gather(*(news.write(id) for id in IDS * 25))
            await news.all_told()

    with nothing_left():
        await scenario()


async def test_an_append_is_one_request_whoever_listens(servers: Servers[Etcd]) -> None:
    """Ten appends are ten requests, whether another store listens or not, and are all heard; before someone listens nothing is asked."""
    url = ETCD.url(servers(Etcd))

    listener: Any = await open_backend(url, clock=SystemClock())
    async with perdure.open(url) as store:
        await store.append("s", Event("a"))
        gateway = store._core.backend.driver.gateway

        async def ten() -> int:
            before = gateway.requests
            for _ in range(10):
                await store.append("s", Event("a"))
            return gateway.requests - before

        asked = listener.driver.gateway.requests
        assert await ten() == 10
        assert listener.driver.gateway.requests == asked
        heard: asyncio.Queue[int] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        await listener.listen(lambda session, version: loop.call_soon_threadsafe(heard.put_nowait, version))
        assert await ten() == 10
        async with asyncio.timeout(10):
            assert [await heard.get() for _ in range(11)] == [0, *range(12, 22)]
    await listener.close()


async def test_a_key_changed_by_hand_is_stepped_over(servers: Servers[Etcd]) -> None:
    """A key among the heads that is none of ours breaks nothing: listening starts anew behind it."""
    server, namespace = servers(Etcd), "newsbyhand"

    async with watcher_of(ETCD.url(server, namespace), IDS[:1]) as news, writing(news):
        for key in (b"x", b"another\0s\0", b"\xff\0s\0"):
            encoded = base64.b64encode(Layout(namespace).all(b"h") + key).decode()
            await asyncio.to_thread(ask, server, "kv/put", {"key": encoded, "value": base64.b64encode(b"mine").decode()})
            await news.more(5)
