"""Appends whose time-out passes while they are on their way: `Unknown`, never a guess, and the key finds what became of them."""

from __future__ import annotations

import pytest

import perdure
from perdure import Event, Store
from tests.servers.fixture import Servers
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import HOST, Server
from tests.servers.proxy import Proxy
from tests.servers.valkey import Valkey
from tests.support.backends.engines import ENGINES, Engine
from tests.support.backends.scenarios import retrying, visit

TIMEOUTS = "&timeout=2&connect_timeout=1"
TRIES = 5
ANSWERED_FIRST = [engine for engine in ENGINES if engine.one_address and not engine.name.startswith("cassandra")]
"""Cassandra announces an append before it is sent, so that the time-out falls on what is no write yet; see its test_lost_answers."""


async def truth_is_found(store: Store, session: str, error: perdure.Error, *, late: bool = False) -> None:
    """The key says whether the append was applied, `Unavailable` that it was not; sent again, it is found or written, and is there once.

    `late`: the request may still lie before the server, and be applied between the two questions.
    """
    found = await retrying(lambda: store.find(session, "k"))
    assert found is None or isinstance(error, perdure.Unknown)
    again = await store.append(session, Event("sent"), key="k")
    assert again.version == 2
    assert again.duplicate is (found is not None) or (late and again.duplicate and isinstance(error, perdure.Unknown))
    assert found is None or (found.version, found.hash) == (again.version, again.hash)
    assert [event.type async for commit in store.history(session) for event in commit.events] == ["before", "sent"]


@pytest.mark.parametrize("engine", ANSWERED_FIRST, ids=str)
async def test_an_append_without_an_answer_is_unknown(engine: Engine, servers: Servers[Server]) -> None:
    """The request arrives and no answer comes back: `Unknown` when the time is up. When answers come again, the key finds the truth.

    Where no connection was free the append was not sent: that is `Unavailable`, and the next one is tried.
    """
    server = servers(engine.server)
    port = server.port(server.nodes[0])
    url = engine.url(server)
    await visit(url)  # What a server does once, and slowly, is done within the time-outs that are usual.
    async with Proxy(port) as proxy:
        url = url.replace(f"{HOST}:{port}", f"{HOST}:{proxy.port}")
        async with perdure.open(url + TIMEOUTS) as store:
            for number in range(TRIES):
                session = f"s{number}"
                await retrying(lambda session=session: store.append(session, Event("before"), key="before"))
                proxy.silent = True
                with pytest.raises((perdure.Unknown, perdure.Unavailable)) as caught:
                    await store.append(session, Event("sent"), key="k")
                assert proxy.dropped
                proxy.silent = False
                await truth_is_found(store, session, caught.value)
                if isinstance(caught.value, perdure.Unknown):
                    return
            pytest.fail("No append was ever sent.")


@pytest.mark.parametrize("kind", [PostgreSQL, Valkey], ids=lambda kind: kind.__name__)
async def test_an_append_to_a_server_that_stands_still_is_unknown(kind: type[Server], server_of_my_own: Servers[Server]) -> None:
    """The server is stopped before the append is sent: `Unknown`, for the request lies in its socket. It runs again, and the key finds the
    truth. Where no connection was free that is `Unavailable`, and the next one is tried."""
    server = server_of_my_own(kind)
    mark = "&" if "?" in server.url else "?"
    async with perdure.open(f"{server.url}{mark}{TIMEOUTS[1:]}") as store:
        for number in range(TRIES):
            session = f"s{number}"
            await store.append(session, Event("before"))
            server.pause(*server.nodes)
            with pytest.raises((perdure.Unknown, perdure.Unavailable)) as caught:
                await store.append(session, Event("sent"), key="k")
            server.resume(*server.nodes)
            await truth_is_found(store, session, caught.value, late=True)
            if isinstance(caught.value, perdure.Unknown):
                return
        pytest.fail("No append was ever sent.")
