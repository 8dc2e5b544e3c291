"""The shared cache on real servers: it saves loads; whatever happens to it costs time only."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

import perdure
from perdure import Deleted, Event, Invalid, NotFound, SharedCacheInfo, Store, Unsupported, op, sync
from perdure.engine.read.shared.breaker import FAILURES_MAX
from perdure.engine.read.shared.tier import TTL_SECONDS
from perdure.engine.write.shared_secret import PLACE
from perdure.model.ids import SessionKey
from tests.servers.fixture import Servers
from tests.servers.memcached import Memcached
from tests.servers.process import HOST, Server
from tests.servers.valkey import Valkey, ask

PATIENT = 5.0
"""Seconds for a request of tests in which the cache has to answer, however slow the machine is."""
KINDS = pytest.mark.parametrize("kind", [Valkey, Memcached])


class SmallMemcached(Memcached):
    """Full after a few values: 2 MiB is the least that a server takes for items up to 1 MiB."""

    name = "memcached-small"
    megabytes = 2


def shared(store: Store) -> SharedCacheInfo:
    found = store.cache_info().shared
    assert found is not None
    return found


async def until(check: Callable[[], object]) -> None:
    """Until something holds, or a minute is over."""
    end = time.monotonic() + 60
    while not check():
        assert time.monotonic() < end, "it did not come"
        await asyncio.sleep(0.01)


async def put(store: Store, value: int, session: str = "s") -> None:
    async with store.edit(session) as draft:
        draft.state["n"] = value


async def offered(url: str, cache: str, session: str = "s") -> None:
    """One process reads a session, and what it loaded is in the cache."""
    async with perdure.open(url, shared_cache=cache, cache_timeout=PATIENT) as store:
        before = shared(store).stored
        await store.read(session)
        await until(lambda: shared(store).stored > before)


def keys(server: Server) -> list[bytes]:
    assert isinstance(server, Valkey)
    with Redis(HOST, server.port("primary")) as client:
        return list(client.keys("perdure:*"))


def flush(server: Server) -> None:
    if isinstance(server, Memcached):
        assert server.ask("flush_all") == "OK"
    else:
        assert ask(server.port("primary"), "FLUSHALL") == "OK"


def cache_url(server: Server) -> str:
    return server.url if isinstance(server, Memcached) else server.url.replace("/0", "/3")


@pytest.fixture
def cache(servers: Servers[Server], request: pytest.FixtureRequest) -> Iterator[Server]:
    """A running cache that holds nothing."""
    server = servers(request.getfixturevalue("kind"))
    flush(server)
    yield server
    flush(server)


@KINDS
async def test_what_one_process_loaded_saves_another_the_load(file_url: str, cache: Server, kind: type[Server]) -> None:
    """The other one looks at the head and loads nothing; state, version, hash, tags and times are those of the engine."""
    async with perdure.open(file_url) as plain:
        await put(plain, 1)
        await plain.configure("s", tags={"team": "ops"})
        true = (await plain.read("s")).to_dict()
    await offered(file_url, cache_url(cache))
    async with perdure.open(file_url, shared_cache=cache_url(cache), cache_timeout=PATIENT) as store:
        backend: Any = store._core.backend
        backend.load = None  # Calling it would fail.
        view = await store.read("s")
        assert view.to_dict() == true
        assert view.token
        assert shared(store).hits == 1
        assert (await store.read("s", consistency="eventual")).to_dict() == true
        assert shared(store).hits == 1, "it is in memory"


@KINDS
def test_the_blocking_api_reads_through_it(file_url: str, cache: Server, kind: type[Server]) -> None:
    """From threads without a loop."""
    with sync.open(file_url, shared_cache=cache_url(cache), cache_timeout=PATIENT) as store:
        store.append("s", Event("x", None, (op.set("/n", 1),)))
        assert store.read("s").state == {"n": 1}
    asyncio.run(offered(file_url, cache_url(cache)))
    with sync.open(file_url, shared_cache=cache_url(cache), cache_timeout=PATIENT) as store:
        assert store.read("s").state == {"n": 1}
        info = store.cache_info().shared
        assert info is not None
        assert info.hits == 1


@KINDS
async def test_an_older_value_is_no_answer(file_url: str, cache: Server, kind: type[Server]) -> None:
    """After another's commit the cache's value counts for nothing; the state is loaded, and takes its place."""
    async with perdure.open(file_url) as writer:
        await put(writer, 1)
        await offered(file_url, cache_url(cache))
        await put(writer, 2)
    async with perdure.open(file_url, shared_cache=cache_url(cache), cache_timeout=PATIENT) as store:
        assert (await store.read("s")).state == {"n": 2}
        assert (shared(store).stale, shared(store).hits) == (1, 0)
        await until(lambda: shared(store).stored)
    async with perdure.open(file_url, shared_cache=cache_url(cache), cache_timeout=PATIENT) as store:
        assert (await store.read("s")).state == {"n": 2}
        assert shared(store).hits == 1


async def test_no_edit_and_no_snapshot_is_made_of_it(file_url: str, servers: Servers[Server]) -> None:
    """An edit of a session that was read from the cache loads the session from the engine first, and so does what stores snapshots."""
    cache = servers(Valkey)
    flush(cache)
    async with perdure.open(file_url) as writer:
        for number in range(30):
            await writer.append("s", Event("x", "filler" * 400, (op.set(f"/{number}", str(number) * 3_000),)))
    await offered(file_url, cache_url(cache))
    async with perdure.open(file_url, shared_cache=cache_url(cache), cache_timeout=PATIENT, snapshot_bytes_min=0) as store:
        backend: Any = store._core.backend
        loads, snapshots = [], []
        load, put_snapshot = backend.load, backend.put_snapshot

        async def counted_load(*arguments: Any) -> Any:
            loads.append(arguments)
            return await load(*arguments)

        async def counted_put(*arguments: Any, **options: Any) -> Any:
            snapshots.append(arguments)
            return await put_snapshot(*arguments, **options)

        backend.load, backend.put_snapshot = counted_load, counted_put
        await store.read("s")
        assert (shared(store).hits, loads, snapshots) == (1, [], [])
        await store.append("s", Event("note"))
        await store.read("s", consistency="eventual")
        assert (loads, snapshots) == ([], [])
        async with store.edit("s") as draft:
            draft.state["mine"] = True
        assert len(loads) == 1
        await store.verify("s")


async def test_what_others_put_there_is_no_value(file_url: str, servers: Servers[Server]) -> None:
    """Garbage, a value with any part changed, another session's and another store's value: the state is the engine's, each time."""
    cache = servers(Valkey)
    flush(cache)
    url = cache_url(cache)
    async with perdure.open(file_url) as writer:
        await put(writer, 1)
        await put(writer, 7, "other")
    await offered(file_url, url)
    (mine,) = keys_in(cache)
    await offered(file_url, url, "other")
    (theirs,) = keys_in(cache) - {mine}
    with Redis(HOST, cache.port("primary"), db=3) as client:
        true = client.get(mine)
        assert isinstance(true, bytes)
        foreign = client.get(theirs)
        bad = [b"", b"x", b"\x00" * 32, true[:32], true[:-1], true + b"x", foreign, true[32:], bytes(1 << 20)]
        bad += [true[:at] + bytes([true[at] ^ 1]) + true[at + 1 :] for at in range(0, len(true), 7)]
        async with perdure.open(file_url, shared_cache=url, cache_timeout=PATIENT) as store:
            for count, value in enumerate(bad, 1):
                client.set(mine, value)
                store._core.cache.drop(SessionKey("default", "s"))
                stored = shared(store).stored
                assert (await store.read("s")).state == {"n": 1}
                assert (shared(store).forged, shared(store).hits) == (count, 0)
                await until(lambda stored=stored: shared(store).stored > stored)
            client.set(mine, true)
            store._core.cache.drop(SessionKey("default", "s"))
            assert (await store.read("s")).state == {"n": 1}
            assert shared(store).hits == 1


def keys_in(server: Server) -> set[bytes]:
    with Redis(HOST, server.port("primary"), db=3) as client:
        return set(client.keys("*"))


async def test_two_stores_share_nothing(file_url: str, tmp_path: Any, servers: Servers[Server]) -> None:
    """Stores with sessions of the same names keep apart; no name of a tenant or session, and no key, is seen in the cache."""
    cache = servers(Valkey)
    flush(cache)
    url = cache_url(cache)
    for number, place in enumerate((file_url, f"sqlite:///{tmp_path}/second.db")):
        async with perdure.open(place, tenant="secret-tenant") as writer:
            await put(writer, number, "secret-session")
        async with perdure.open(place, tenant="secret-tenant", shared_cache=url, cache_timeout=PATIENT) as store:
            assert (await store.read("secret-session")).state == {"n": number}
            assert (shared(store).misses, shared(store).forged) == (1, 0)
            await until(lambda store=store: shared(store).stored)
    assert len(keys_in(cache)) == 2
    assert b"secret" not in b"".join(keys_in(cache))
    with Redis(HOST, cache.port("primary"), db=3) as client:
        for key in keys_in(cache):
            assert 0 < client.ttl(key) <= TTL_SECONDS


async def test_a_purge_removes_the_value(file_url: str, servers: Servers[Server]) -> None:
    """A deleted session is `Deleted`, whatever the cache holds; a purge takes its value out of the cache."""
    cache = servers(Valkey)
    flush(cache)
    url = cache_url(cache)
    async with perdure.open(file_url) as writer:
        await put(writer, 1)
    await offered(file_url, url)
    async with perdure.open(file_url, shared_cache=url, cache_timeout=PATIENT) as store:
        await store.delete("s")
        with pytest.raises(Deleted):
            await store.read("s")
        await store.purge("s")
        await until(lambda: not keys_in(cache))


@KINDS
async def test_what_is_too_large_is_not_sent(file_url: str, cache: Server, kind: type[Server]) -> None:
    """A state that the cache would not take is loaded from the engine each time."""
    import random

    noise = random.Random(1)
    async with perdure.open(file_url) as writer:
        for number in range(12):
            large = "".join(map(chr, noise.choices(range(0x4E00, 0x9FA5), k=400_000)))
            await writer.append("s", Event("x", None, (op.set(f"/{number}", large),)))
    async with perdure.open(file_url, shared_cache=cache_url(cache), cache_timeout=PATIENT) as store:
        for _ in range(2):
            assert len((await store.read("s")).state) == 12
            store._core.cache.drop(SessionKey("default", "s"))
        await until(lambda: shared(store).too_large == 2)
        assert (shared(store).stored, shared(store).failures) == (0, 0)


@KINDS
@pytest.mark.parametrize("fault", ["paused", "killed", "flushed"])
async def test_faults_cost_time_only(
    file_url: str, server_of_my_own: Servers[Server], kind: type[Server], fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """While the cache is paused, killed or flushed under clients that read and write, each of them sees versions rise and all that was
    acknowledged; afterwards the cache is used again."""
    caplog.set_level(logging.CRITICAL)
    server = server_of_my_own(kind)
    url = cache_url(server)
    names = [f"s{number}" for number in range(4)]
    acknowledged = dict.fromkeys(names, 0)
    stop = False

    async def write(store: Store) -> None:
        number = 0
        while not stop:
            name = names[number % len(names)]
            receipt = await store.append(name, Event("x", None, (op.add("/n", 1),)))
            acknowledged[name] = max(acknowledged[name], receipt.version)
            number += 1
            await asyncio.sleep(0.002)

    async def read(store: Store, reads: list[int]) -> None:
        shown = dict.fromkeys(names, 0)
        while not stop:
            for number, name in enumerate(names):
                if number % 2:
                    store._core.cache.drop(SessionKey("default", name))
                least = acknowledged[name]
                view = await store.read(name)
                assert view.version >= max(least, shown[name])
                assert view.state == {"n": view.version}
                shown[name] = view.version
                later = await store.read(name, consistency="eventual")
                assert later.version >= shown[name]
                assert later.state == {"n": later.version}
                reads[0] += 1
            await asyncio.sleep(0)

    async with (
        perdure.open(file_url) as writer,
        perdure.open(file_url, shared_cache=url) as first,
        perdure.open(file_url, shared_cache=url, cache_timeout=PATIENT if fault == "flushed" else 0.02) as second,
    ):
        for name in names:
            acknowledged[name] = (await writer.append(name, Event("x", None, (op.add("/n", 1),)))).version
        reads = [0], [0]
        tasks = [asyncio.create_task(work) for work in (write(writer), read(first, reads[0]), read(second, reads[1]))]

        async def progress(count: int) -> None:
            goal = [done[0] + count for done in reads]
            await until(lambda: any(task.done() for task in tasks) or all(done[0] >= want for done, want in zip(reads, goal, strict=True)))

        try:
            await progress(20)
            for _ in range(3):
                if fault == "paused":
                    server.pause()
                elif fault == "killed":
                    server.kill()
                else:
                    flush(server)
                await progress(20)
                if fault == "paused":
                    server.resume()
                elif fault == "killed":
                    server.start()
                await progress(20)
            if fault != "flushed":
                assert shared(first).failures >= FAILURES_MAX
                assert shared(first).skipped > 0
        finally:
            stop = True
            await asyncio.gather(*tasks)

    async with perdure.open(file_url, shared_cache=url, cache_timeout=PATIENT) as store:
        await store.read("s0")
        await until(lambda: shared(store).stored or shared(store).hits)


@pytest.mark.parametrize("kind", [Valkey, SmallMemcached])
async def test_a_full_cache_costs_time_only(file_url: str, server_of_my_own: Servers[Server], kind: type[Server]) -> None:
    """A cache with room for a few states evicts or refuses; every state that is read is the engine's."""
    import random

    server = server_of_my_own(kind)
    if isinstance(server, Valkey):
        ask(server.port("primary"), "CONFIG", "SET", "maxmemory", "3mb")
        ask(server.port("primary"), "CONFIG", "SET", "maxmemory-policy", "noeviction")
    noise = random.Random(1)
    async with perdure.open(file_url, shared_cache=cache_url(server), cache_timeout=PATIENT, cache_bytes=0) as store:
        texts = {f"s{number}": noise.randbytes(100_000).hex() for number in range(40)}
        for name, text in texts.items():
            await store.append(name, Event("x", None, (op.set("/text", text),)))
        for _ in range(2):
            for name, text in texts.items():
                assert (await store.read(name)).state == {"text": text}
        info = shared(store)
        await until(lambda: not store._core.shared._under_way)  # type: ignore[union-attr]
        assert info.forged == 0
        if isinstance(server, Valkey):
            assert shared(store).failures > 0, "some were refused"
        else:
            assert info.misses > len(texts), "some were evicted"


async def test_a_cache_that_was_never_there(file_url: str) -> None:
    """The store opens, reads and writes; after a few failures in a row nothing is sent."""
    async with perdure.open(file_url, shared_cache="redis://127.0.0.1:1/0", cache_bytes=0) as store:
        await put(store, 1)
        for _ in range(3 * FAILURES_MAX):
            assert (await store.read("s")).state == {"n": 1}
        assert FAILURES_MAX <= shared(store).failures <= 2 * FAILURES_MAX, "reads, and what was offered after each"
        assert (shared(store).skipped > 0, shared(store).hits) == (True, 0)


async def test_the_key_is_made_once_and_shown_to_nobody(file_url: str) -> None:
    """Many openers make one key. It is in a session of the store's own, that no caller's tenant reaches; nothing that is shown has it."""
    cache = "redis://user:pass-word-1@127.0.0.1:1/0"
    stores = await asyncio.gather(*[perdure.open(file_url, shared_cache=cache)._open() for _ in range(8)])
    secrets = {store._core.shared._secret for store in stores}  # type: ignore[union-attr]
    (secret,) = secrets
    commits = [commit async for commit in stores[0]._core.reader.commits(PLACE)]
    assert len(commits) == 1
    shown = "".join(map(repr, [stores[0], stores[0].cache_info(), stores[0]._core.settings, stores[0]._core.shared]))
    assert secret.hex() not in shown
    assert "pass-word-1" not in shown
    for tenant in ("~", "~acme", "x" * 255):
        with pytest.raises(Invalid, match="A tenant"):
            stores[0].for_tenant(tenant)
        with pytest.raises(Invalid, match="A tenant"):
            await perdure.open(file_url, tenant=tenant)
    assert [info async for info in stores[0].list()] == []
    for store in stores:
        await store.close()


async def test_without_create_no_key_is_made(file_url: str) -> None:
    """`create=False` makes nothing: where there is no key yet it is `NotFound`, and with one the store opens."""
    cache = "redis://127.0.0.1:1/0"
    async with perdure.open(file_url) as store:
        await put(store, 1)
    with pytest.raises(NotFound, match="no key for a shared cache"):
        await perdure.open(file_url, shared_cache=cache, create=False)
    async with perdure.open(file_url, shared_cache=cache):
        pass
    async with perdure.open(file_url, shared_cache=cache, create=False) as store:
        assert (await store.read("s")).state == {"n": 1}


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "is a URL"),
        (7, "is a URL"),
        ("localhost", "is a URL"),
        ("http://host/", "the schemes are memcached, redis, rediss"),
        ("redis+cluster://host", "the schemes are"),
        ("redis://", "names no host"),
        ("redis://host/name", "the database is a number"),
        ("redis://host:1/0?pool=3", "has no option 'pool'"),
        ("redis://a:1,b:2/0", "several hosts"),
        ("redis://host:1/0?ca=/x", "rediss://"),
        ("redis://user:pass-word-1@host:x/0", "malformed"),
        ("memcached://", "names no host"),
        ("memcached://host/0", "no databases"),
        ("memcached://user@host", "go together"),
        ("memcached://host:11211?x=1", "no option"),
    ],
)
async def test_a_url_that_makes_no_sense_is_invalid(file_url: str, url: Any, says: str, tmp_path: Any) -> None:
    """Said at `open`, before anything is made, without what may be a secret."""
    pytest.importorskip("emcache")
    with pytest.raises(Invalid, match=says) as caught:
        await perdure.open(file_url, shared_cache=url)
    assert "pass-word-1" not in str(caught.value)
    assert not (tmp_path / "store.db").exists()


async def test_a_missing_library_names_the_line_that_installs_it(file_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without emcache a Memcached URL is `Unsupported`."""
    import sys

    monkeypatch.setitem(sys.modules, "emcache", None)
    monkeypatch.delitem(sys.modules, "perdure.engine.read.shared.memcached", raising=False)
    with pytest.raises(Unsupported, match=r"pip install '\.\[memcached\]'"):
        await perdure.open(file_url, shared_cache="memcached://127.0.0.1:1")
