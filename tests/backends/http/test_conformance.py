"""The conformance kit through the wire of the record face, over a relay that verifies nothing: the kit's records are opaque."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from perdure.backends.conformance import CASES, Case
from tests.support.service.nodes import serving, through


@asynccontextmanager
async def relayed(url: str) -> AsyncIterator[Any]:
    """A fresh engine behind a relay of its own."""
    with serving(url, relay=True) as node:
        async with through(node) as backend:
            backend.behind = node
            yield backend


@asynccontextmanager
async def again(backend: Any) -> AsyncIterator[Any]:
    """A second client of the same relay."""
    async with through(backend.behind) as other:
        yield other


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_relay_over_sqlite_conforms(case: Case, tmp_path: Path) -> None:
    """What SQLite does it does through the record face too, for two clients."""
    case.run(lambda: relayed(f"sqlite:///{tmp_path}/store.db"), again)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_relay_over_memory_conforms(case: Case) -> None:
    """So does the reference model."""
    case.run(lambda: relayed("memory:"), again)
