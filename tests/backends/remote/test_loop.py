"""The loop that a network client runs on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure.backends.remote import open_remote
from perdure.backends.remote.loop import LOOP_FACTORY
from perdure.cli.commands import serve
from perdure.clock import SystemClock
from tests.servers.fixture import Servers
from tests.servers.postgresql import PostgreSQL
from tests.support.backends.memory_driver import MemoryDriver, memory


class Loop(asyncio.SelectorEventLoop):
    """A loop of another make."""


async def _kind() -> type[asyncio.AbstractEventLoop]:
    return type(asyncio.get_running_loop())


async def kind_of_loop(*, any_loop: bool) -> type[asyncio.AbstractEventLoop]:
    """What a client that is opened here runs on."""

    async def connect() -> MemoryDriver:
        return MemoryDriver(memory())

    backend = await open_remote(connect, place="test://nowhere", timeout=10, any_loop=any_loop)
    try:
        return await backend.run(_kind())
    finally:
        await backend.close()


async def test_a_client_that_works_on_any_loop_runs_on_one_of_the_context() -> None:
    """Every other one on asyncio's own, and so does each that is opened outside of it."""
    token = LOOP_FACTORY.set(Loop)
    try:
        assert [await kind_of_loop(any_loop=True), await kind_of_loop(any_loop=False)] == [Loop, type(asyncio.get_running_loop())]
    finally:
        LOOP_FACTORY.reset(token)
    assert await kind_of_loop(any_loop=True) is type(asyncio.get_running_loop())


@pytest.mark.server
async def test_that_of_postgresql_is_one(servers: Servers[PostgreSQL]) -> None:
    """A node on PostgreSQL gains by it."""
    from perdure.backends import postgresql

    token = LOOP_FACTORY.set(Loop)
    try:
        backend: Any = await postgresql.open(servers(PostgreSQL).url, clock=SystemClock())
    finally:
        LOOP_FACTORY.reset(token)
    try:
        assert await backend.run(_kind()) is Loop
    finally:
        await backend.close()


def test_a_node_makes_them_uvloops() -> None:
    """As its own loop is, and nothing else of the process."""
    uvloop = pytest.importorskip("uvloop")
    kinds = []

    async def main() -> None:
        kinds.extend([await _kind(), await kind_of_loop(any_loop=True)])

    serve._run(main())
    assert kinds == [uvloop.Loop, uvloop.Loop]
    assert asyncio.run(kind_of_loop(any_loop=True)) is not uvloop.Loop
