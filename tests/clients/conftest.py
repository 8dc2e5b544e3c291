"""Programs of other languages, and a node for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.node import Nodes
from tests.support.service.programs import Programs


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """Runs programs of the TypeScript client."""
    return Programs(tmp_path / "programs")


@pytest.fixture
def nodes(programs: Programs, tmp_path: Path) -> Iterator[Nodes]:
    """One node as a process, on a SQLite store."""
    nodes = Nodes(tmp_path / "nodes")
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()
