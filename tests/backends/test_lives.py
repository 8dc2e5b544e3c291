"""Second lives and purge on every engine that needs a server: keys, history and stubs hold there as on a file."""

from __future__ import annotations

import pytest

import perdure
from perdure import Event, op
from tests.servers.fixture import Servers
from tests.servers.process import Server
from tests.support.backends.engines import ENGINES, Engine

KEYS = ("k", "é" * 127)
"""A key, and one of as many bytes as a name may have."""


async def live_and_die(url: str) -> None:
    async with perdure.open(url) as store, perdure.open(url) as other:
        event = Event("x", None, (op.add("/n", 1),))
        for life in range(3):
            for key in KEYS:
                first = await store.append("s", event, key=key, recreate=True)
                again = await other.append("s", event, key=key)
                assert (first.duplicate, again.duplicate, again.version) == (False, True, first.version)
            assert (await other.read("s")).state == {"n": 2}
            started = first.version - 2
            assert [commit.key async for commit in other.history("s")] == [*KEYS]
            assert [commit.version async for commit in store.history("s", newest_first=True)] == [started + 2, started + 1]
            if started:
                with pytest.raises(perdure.Deleted):
                    await other.read("s", at=started)
            assert (await other.verify("s")).version == first.version
            await other.delete("s")
            assert await store.find("s", "k") is None
            with pytest.raises(perdure.Deleted):
                await store.append("s", event, key="k")
            if life == 1:
                await store.purge("s")
                assert (await other.verify("s")).commits == 0
                assert await store.find("s", "k", include_deleted=True) is None
        await store.append("s", event, recreate=True)
        fork = await store.fork("s")
        await store.append(fork, event)
        await store.append("s", event)
        await store.merge(fork, into="s")
        assert (await other.read("s")).state == {"n": 3}
        await other.verify("s")


@pytest.mark.parametrize("engine", ENGINES, ids=str)
async def test_lives_and_purges(engine: Engine, servers: Servers[Server]) -> None:
    """Keys count once in each life, an earlier life is not read, a purged session goes on from its stub, and all of it verifies."""
    await live_and_die(engine.url(servers(engine.server)))
