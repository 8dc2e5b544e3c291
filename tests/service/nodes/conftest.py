"""A store on PostgreSQL, and three nodes on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.fixture import Servers
from tests.servers.node import Nodes
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Server
from tests.support.backends.engines import Engine


@pytest.fixture
def store_url(servers: Servers[Server]) -> str:
    """A store that no other test sees."""
    return Engine("postgresql", PostgreSQL).url(servers(PostgreSQL))


@pytest.fixture
def three_nodes(store_url: str, tmp_path: Path) -> Iterator[Nodes]:
    """Three nodes on it."""
    nodes = Nodes(tmp_path / "nodes", store_url, count=3)
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()
