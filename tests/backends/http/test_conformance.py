"""The conformance kit through the wire of the record face, over relays that verify nothing: the kit's records are opaque."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from perdure.backends.conformance import CASES, Case
from tests.servers.fixture import Servers
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Server
from tests.support.backends.engines import Engine
from tests.support.service.nodes import serving_many, through

POSTGRESQL = Engine("postgresql", PostgreSQL)
NODES = 3


@asynccontextmanager
async def relayed(url: str, count: int = 1) -> AsyncIterator[Any]:
    """A fresh engine behind relays of its own."""
    with serving_many(url, count, relay=True) as nodes:
        async with through(*nodes) as backend:
            backend.behind = nodes
            yield backend


@asynccontextmanager
async def again(backend: Any) -> AsyncIterator[Any]:
    """A second client of the same relays."""
    async with through(*backend.behind) as other:
        yield other


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_relay_over_sqlite_conforms(case: Case, tmp_path: Path) -> None:
    """What SQLite does it does through the record face too, for two clients."""
    case.run(lambda: relayed(f"sqlite:///{tmp_path}/store.db"), again)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_relay_over_memory_conforms(case: Case) -> None:
    """So does the reference model."""
    case.run(lambda: relayed("memory:"), again)


@pytest.mark.parametrize("engine", [POSTGRESQL], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_three_relays_over_one_engine_conform(engine: Engine, case: Case, servers: Servers[Server]) -> None:
    """So does PostgreSQL through three relays, each with connections and memory of its own, where every request goes to another one than
    the last."""
    url = engine.url(servers(engine.server))
    case.run(lambda: relayed(url, NODES), again)
