"""The feed's streams: they grow with what is kept, not with all that ever was."""

from __future__ import annotations

from typing import Any

from perdure.backends.redis.layout import prefix, shard_of
from perdure.model.ids import SessionKey
from tests.servers.fixture import Servers
from tests.servers.process import Server
from tests.servers.valkey import Valkey, ask
from tests.support.backends.engines import Engine
from tests.support.backends.feed_sweeps import sweeps
from tests.support.backends.scenarios import opened

TURNS = 40
SESSIONS = [key for n in range(1000) if shard_of(key := SessionKey("acme", f"s{n}")) == 0][:10]


async def test_entries_of_what_is_gone_are_swept_and_no_other(servers: Servers[Server]) -> None:
    """See `sweeping.sweeps`; the stream keeps at most twice the entries that are alive, and a step."""
    server = servers(Valkey)
    url = Engine("valkey", Valkey).url(server, "sweeping")
    stream = f"{prefix('sweeping', 0)}f"

    async def bound(alive: set[Any]) -> None:
        assert int(ask(server.port("primary"), "XLEN", stream)) <= 2 * len(alive) + 64

    async with opened(url) as backend:
        await sweeps(backend, SESSIONS, TURNS, bound=bound)
