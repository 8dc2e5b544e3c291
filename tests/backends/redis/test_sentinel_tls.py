"""Sentinels under TLS: what is asked of them is as private as what is asked of the primary, unless the URL says otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event
from tests.servers.fixture import Servers
from tests.servers.process import HOST
from tests.servers.sentinel_tls import HalfSecureSentinel, SecureSentinel
from tests.servers.tls import Authority, Front
from tests.support.backends.scenarios import retrying

TIMES = "&connect_timeout=1.5&timeout=3"


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 90))


async def refusal(url: str) -> str:
    """The reason for which opening is `Unavailable`."""
    with pytest.raises(perdure.Unavailable) as error:
        await (await perdure.open(url + TIMES)).close()
    return str(error.value)


async def test_sentinels_and_nodes_under_tls_fail_over(server_of_my_own: Servers[SecureSentinel]) -> None:
    """Commits go through TLS, before and after a failover, to whom the Sentinels name."""
    servers = server_of_my_own(SecureSentinel)

    async with perdure.open(servers.url + TIMES) as store:
        await store.append("s", Event("a"))
        await asyncio.to_thread(servers.wait, "the replica in step", lambda: servers.follows("replica") == "up")
        await asyncio.sleep(0.5)
        servers.kill("primary")
        await asyncio.to_thread(servers.wait, "the replica in its place", lambda: servers.follows("replica") is None)
        await retrying(lambda: store.append("s", Event("b"), key="k"))
        assert [commit.events[0].type async for commit in store.history("s")] == ["a", "b"]


async def test_sentinels_that_nobody_vouches_for_are_not_believed(servers: Servers[SecureSentinel], tmp_path: Path) -> None:
    """An unknown authority is `Unavailable`, and the message says that it was the certificate; so is a stranger in a Sentinel's place.
    Asked in plain text Sentinels under TLS say nothing."""
    there = servers(SecureSentinel)
    stranger = Authority(tmp_path, "theirs")

    assert "certificate" in await refusal(there.url.replace(str(there.authority.ca), str(stranger.ca)))
    assert await refusal(f"{there.url}&sentinel_tls=off")
    async with Front(0, stranger.certificate(HOST)) as front:
        assert "certificate" in await refusal(f"rediss+sentinel://{HOST}:{front.port}/main?ca={there.authority.ca}")


async def test_plain_sentinels_before_nodes_under_tls_are_asked_for(server_of_my_own: Servers[HalfSecureSentinel]) -> None:
    """With `sentinel_tls=off` they serve; without it they are not spoken to plainly."""
    servers = server_of_my_own(HalfSecureSentinel)

    assert await refusal(servers.url)
    async with perdure.open(f"{servers.url}&sentinel_tls=off{TIMES}") as store:
        assert (await store.append("s", Event("a"))).version == 1


@pytest.mark.parametrize("trouble", ["cut", "garbage", "silent"])
async def test_a_handshake_with_a_sentinel_that_goes_wrong_ends_in_time(trouble: str, tmp_path: Path) -> None:
    """Closed in the middle, answered with something else, or never answered, it is `Unavailable`."""
    authority = Authority(tmp_path, "ours")

    async with Front(0, authority.certificate(HOST), trouble=trouble) as front:
        await refusal(f"rediss+sentinel://{HOST}:{front.port}/main?ca={authority.ca}")
