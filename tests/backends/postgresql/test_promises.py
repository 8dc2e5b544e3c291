"""PostgreSQL: what a receipt says when the server promises less than when it was opened."""

from __future__ import annotations

import pytest

import perdure
from perdure import Event
from perdure.backends.spi import Durability
from tests.servers.fixture import Servers
from tests.servers.postgresql import PostgreSQLStandby


async def test_a_server_that_waits_for_no_standby_any_more(server_of_my_own: Servers[PostgreSQLStandby]) -> None:
    """What asks for `quorum` is stored and `Unknown`; what asks for less is told `local`. With the standby back, a retry is told where its
    key was applied, and new commits are `quorum`."""
    pair = server_of_my_own(PostgreSQLStandby)
    waits_for_none = "SELECT current_setting('synchronous_standby_names') = ''"

    async with perdure.open(pair.url, durability="quorum") as safe, perdure.open(pair.url) as quick:
        assert (await safe.append("s", Event("a"))).durability is Durability.quorum
        pair.sql("ALTER SYSTEM SET synchronous_standby_names = ''")
        pair.sql("SELECT pg_reload_conf()")
        pair.wait("no standby to wait for", lambda: pair.sql(waits_for_none) == "t")
        with pytest.raises(perdure.Unknown, match="'local' is all it promises now"):
            await safe.append("s", Event("b"), key="k")
        assert (await quick.append("s", Event("c"))).durability is Durability.local
        pair.await_standby("primary", "standby")
        pair.wait("a standby to wait for", lambda: pair.sql(waits_for_none) == "f")
        again = await safe.append("s", Event("b"), key="k")
        assert (again.version, again.duplicate, again.durability) == (2, True, Durability.local)
        assert (await safe.append("s", Event("d"))).durability is Durability.quorum
