"""Following all sessions of a tenant, and consuming them, on every engine that needs a server."""

from __future__ import annotations

import pytest

import perdure
from tests.servers.fixture import Servers
from tests.servers.process import Server
from tests.support.backends.engines import ENGINES, Engine
from tests.support.backends.scenarios import run
from tests.support.engine import following
from tests.support.ops.consumers import effects_happen_once, quick

__all__ = ["quick"]

EVERY_ENGINE = pytest.mark.parametrize("engine", ENGINES, ids=str)
LONGEST = 240.0
"""Seconds that a test may take where the machine is slow."""


@EVERY_ENGINE
def test_everything_comes_in_order(engine: Engine, servers: Servers[Server]) -> None:
    """See `following.everything_comes_in_order`."""
    url = engine.url(servers(engine.server))

    async def scenario() -> None:
        async with perdure.open(url) as store:
            await following.everything_comes_in_order(store)

    run(scenario(), LONGEST)


@EVERY_ENGINE
def test_purged_and_truncated_sessions(engine: Engine, servers: Servers[Server]) -> None:
    """See `following.a_session_that_is_purged_goes_on` and `following.what_is_truncated_is_said`."""
    server = servers(engine.server)

    async def scenario() -> None:
        async with perdure.open(engine.url(server)) as store:
            await following.a_session_that_is_purged_goes_on(store)
            await following.what_is_truncated_is_said(store.for_tenant("another"))

    run(scenario(), LONGEST)


@EVERY_ENGINE
def test_writers_are_followed(engine: Engine, servers: Servers[Server]) -> None:
    """See `following.writers_are_followed`."""
    url = engine.url(servers(engine.server))

    async def scenario() -> None:
        async with perdure.open(url) as mine, perdure.open(url) as other:
            await following.writers_are_followed(mine, other)

    run(scenario(), LONGEST)


@EVERY_ENGINE
def test_of_two_consumers_at_once_one_works(engine: Engine, servers: Servers[Server]) -> None:
    """See `consumers.effects_happen_once`."""
    url = engine.url(servers(engine.server))

    async def scenario() -> None:
        async with perdure.open(url) as mine, perdure.open(url) as other:
            await effects_happen_once(mine, other, sessions=3, commits=6)

    run(scenario(), LONGEST)
