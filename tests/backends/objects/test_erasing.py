"""Truncation and purge on object stores: what is dropped is gone from every object, also when it was interrupted or others did the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event
from perdure.backends.objects import driver as drivers
from perdure.backends.objects import shard as shards
from perdure.backends.objects.folder import Folder
from perdure.backends.spi import Head
from perdure.errors import Unavailable
from perdure.model.commit import Kind
from perdure.model.ids import SessionKey
from tests.servers.azurite import Azurite
from tests.servers.fake_gcs import FakeGCS
from tests.servers.fixture import Servers
from tests.servers.process import Server
from tests.servers.seaweedfs import SeaweedFS
from tests.support.backends.engines import Engine, diagnosis
from tests.support.backends.scenarios import engine

SESSIONS = [f"s{number}" for number in range(6)]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store?shards=1"


@pytest.fixture(params=[None, SeaweedFS, FakeGCS, Azurite])
def anywhere(request: pytest.FixtureRequest, url: str) -> str:
    """A folder, and the three clouds."""
    if request.param is None:
        return url
    servers: Servers[Server] = request.getfixturevalue("servers")
    return Engine("cloud", request.param).url(servers(request.param)) + "&shards=1"


async def fill(url: str) -> None:
    """Sessions that share their segments, each with words, keys and tags of its own, deleted."""
    async with perdure.open(url) as store:
        for turn in range(4):
            await asyncio.gather(*[store.append(id, Event("said", f"word of {id}."), key=f"key of {id}. {turn}") for id in SESSIONS])
        for id in SESSIONS:
            await store.configure(id, tags={"team": f"tag of {id}."})
            await store.delete(id)


async def held(backend: Any) -> bytes:
    """All bytes of all objects of the log and the index."""
    bucket = backend.driver._bucket

    async def read() -> bytes:
        names = [f"{folder}/{name}" for folder in ("log/0000", "index/0000") for name in await bucket.list(folder)]
        return b"".join([await bucket.get(name) or b"" for name in names])

    return bytes(await backend.run(read()))


def of(id: str) -> bytes:
    return f" of {id}.".encode()


async def test_purges_at_once_do_not_bring_one_another_back(anywhere: str) -> None:
    """Sessions of the same segments are purged at once, by two handles: nothing of any of them is left."""

    await fill(anywhere)
    one, two = await engine(anywhere), await engine(anywhere)
    await asyncio.gather(*[(one, two)[number % 2].purge(SessionKey("default", id)) for number, id in enumerate(SESSIONS[:-1])])
    left = await held(one)
    assert [id for id in SESSIONS if of(id) in left] == SESSIONS[-1:]
    await one.close()
    await two.close()


async def test_a_purge_that_was_interrupted_goes_on(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store went away after the entry of the purge: doctor tells of the bytes that are left, and the next purge removes them."""
    original = Folder.change
    session = SessionKey("default", "s0")
    changes = 0

    async def change(self: Folder, name: str, change: Callable[[bytes], bytes]) -> bytes:
        nonlocal changes
        changes += 1
        if changes == 2:
            raise Unavailable("The store is away.")
        return await original(self, name, change)

    await fill(url)
    backend = await engine(url)
    monkeypatch.setattr(Folder, "change", change)
    with pytest.raises(Unavailable):
        await backend.purge(session)
    assert of("s0") in await held(backend)
    await backend.close()
    assert any("'s0' for one" in finding["what"] for finding in diagnosis(url)["findings"])
    backend = await engine(url)
    before = backend.driver.shards[0].puts
    await backend.purge(session)
    assert backend.driver.shards[0].puts == before, "the log says it already"
    assert of("s0") not in await held(backend)
    assert of("s1") in await held(backend)
    await backend.close()


async def test_checkpoints_forget_a_purged_session(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and tags stand in checkpoints too: after a purge none holds them, and a cold open still finds every session."""
    monkeypatch.setattr(shards, "CHECKPOINT_BYTES_MIN", 500)

    await fill(url)
    backend = await engine(url)
    assert await backend.run(backend.driver._bucket.list("index/0000"))
    await backend.purge(SessionKey("default", "s0"))
    left = await held(backend)
    assert of("s0") not in left
    assert of("s1") in left
    await backend.close()
    backend = await engine(url)
    assert None not in await backend.heads([SessionKey("default", id) for id in SESSIONS])
    await backend.close()


async def test_a_key_of_a_life_that_was_purged_and_begun_anew_is_erased_too(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The purge was interrupted, the id was taken again and is purged again: nothing of the first life is left."""

    async def never(self: Folder, name: str, change: Callable[[bytes], bytes]) -> bytes:
        raise Unavailable("The store is away.")

    await fill(url)
    backend = await engine(url)
    with monkeypatch.context() as broken:
        broken.setattr(Folder, "change", never)
        with pytest.raises(Unavailable):
            await backend.purge(SessionKey("default", "s0"))
    await backend.close()
    async with perdure.open(url) as store:
        await store.append("s0", Event("said", "anew"), recreate=True)
        assert [info.tags async for info in store.list(prefix="s0")] == [{}]
        await store.delete("s0")
    backend = await engine(url)
    await backend.purge(SessionKey("default", "s0"))
    left = await held(backend)
    assert of("s0") not in left
    assert b"anew" not in left
    await backend.close()


async def test_a_read_under_which_another_process_truncates_is_no_corruption(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records vanish between the reader's look at the index and its look at the segments: it reads what is left."""
    monkeypatch.setattr(drivers, "CACHE_BYTES", 0)
    original = Folder.get
    session = SessionKey("default", "s")

    async with perdure.open(url) as store:
        for number in range(6):
            await store.append("s", Event("n", number))
        event = Event("anchored", {})
        await store._core.controls.write(session, Kind.anchor, event, durability=perdure.Durability.local)
        for number in range(3):
            await store.append("s", Event("n", number))
    one, two = await engine(url), await engine(url)
    await one.heads([session])
    anchor = (await two.read(session, after=6, before=8))[0]

    async def get(self: Folder, name: str) -> bytes | None:
        if name.endswith("0000000000000001"):
            monkeypatch.setattr(Folder, "get", original)
            await two.truncate(session, 7, (7, anchor.head.hash))
        return await original(self, name)

    monkeypatch.setattr(Folder, "get", get)
    assert [record.head.version for record in await one.read(session)] == [7, 8, 9, 10]
    loaded = await one.load(session)
    assert loaded is not None
    assert isinstance(loaded.row.head, Head)
    assert loaded.row.head.version == 10
    await one.close()
    await two.close()
