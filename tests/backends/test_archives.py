"""Archives beside every engine that needs a server, and in every kind of bucket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import perdure
from perdure import Event, op
from tests.servers.azurite import Azurite
from tests.servers.fake_gcs import FakeGCS
from tests.servers.fixture import Servers
from tests.servers.process import Server
from tests.servers.seaweedfs import SeaweedFS
from tests.support.backends.engines import ENGINES, Engine

CLOUDS = [Engine("s3", SeaweedFS), Engine("gs", FakeGCS), Engine("az", Azurite)]
TURNS = 24


async def lives(url: str, archive: str) -> None:
    """A session is compacted, archived, forked, restored by two writers, dropped, deleted and purged, while two stores read it."""
    async with perdure.open(url, archive=archive, snapshot_bytes_min=2_000) as store, perdure.open(url, archive=archive) as other:

        async def history(store: perdure.Store, name: str, **options: Any) -> list[perdure.Commit]:
            return [commit async for commit in store.history(name, **options)]

        for number in range(TURNS):
            await store.append("s", Event("turn", {"text": "hello " * 30}, (op.append("/turns", [number]),)), key=f"k{number}")
        before = await history(other, "s")
        assert (await store.compact("s", keep=8)).commits == TURNS - 8
        fork = await other.fork("s", at=5)
        done = await store.archive("s")
        assert done.segment_bytes > 0
        for reader in (store, other):
            view = await reader.read("s")
            assert (view.state, view.status) == ({"turns": list(range(TURNS))}, perdure.Status.archived)
            assert (await history(reader, "s"))[:TURNS] == before
            assert (await history(reader, "s", newest_first=True))[-TURNS:] == before[::-1]
            for version in (1, 10, TURNS - 8, TURNS):
                assert (await reader.read("s", at=version)).state == {"turns": list(range(version))}
            assert (await reader.read(fork)).state == {"turns": list(range(5))}
            assert (await reader.find("s", "k3")).version == 4  # type: ignore[union-attr]
            await reader.verify("s")
            await reader.verify(fork)
        assert [info.session async for info in other.list(status="archived")] == ["s"]
        await asyncio.gather(*[each.append("s", Event("x", None, (op.add("/n", 1),))) for each in (store, other)])
        assert (await other.read("s")).state == {"turns": list(range(TURNS)), "n": 2}
        async with store.edit(fork) as draft:
            draft.state["fork"] = True
        await store.merge(fork, into="s")
        await other.archive("s")
        await store.verify("s")
        assert await other.restore("s")
        for _ in range(4):
            await store.append("s", Event("x"))
        for name in (fork, "s"):
            if name == "s":
                await store.compact("s", keep=2, drop=True)
                await other.verify("s")
                assert (await other.read("s")).state == {"turns": list(range(TURNS)), "n": 2, "fork": True}
                with pytest.raises(perdure.Truncated):
                    await history(other, "s")
            await store.delete(name)
            await store.verify(name)
            await store.purge(name)


@pytest.mark.parametrize("engine", ENGINES, ids=str)
async def test_a_life_with_an_archive(engine: Engine, servers: Servers[Server], tmp_path: Path) -> None:
    """On each engine's real server a session that is compacted, archived, restored, dropped and purged reads as one that was not."""
    await lives(engine.url(servers(engine.server)), f"file://{tmp_path}/archive")
    assert [path.name for path in (tmp_path / "archive").rglob("*-*-*") if path.is_file()] == []


@pytest.mark.parametrize("cloud", CLOUDS, ids=str)
async def test_an_archive_in_a_bucket(cloud: Engine, servers: Servers[Server], tmp_path: Path) -> None:
    """The same with segments in a bucket of each kind of cloud."""
    address, _, options = cloud.url(servers(cloud.server)).partition("?")
    kept = "&".join(option for option in options.split("&") if not option.startswith(("namespace=", "shards=")))
    await lives(f"sqlite:///{tmp_path}/store.db", f"{address.rstrip('/')}/{uuid4().hex}?{kept}")
