"""What the engine's tests share: the URLs of the engines that need no server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine.archived import SERVED, place


@pytest.fixture(params=["served"] if SERVED else ["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh store on each engine in turn."""
    if request.param == "served":
        yield from _served(tmp_path)
    else:
        yield "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def file_url(tmp_path: Path) -> Iterator[str]:
    """A fresh SQLite file, for what needs several stores on the same data."""
    if SERVED:
        yield from _served(tmp_path)
    else:
        yield f"sqlite:///{tmp_path}/store.db"


def _served(tmp_path: Path) -> Iterator[str]:
    from tests.support.service.nodes import serving  # it needs the extras of a service

    with serving(f"sqlite:///{tmp_path}/store.db", archive=place(tmp_path), tenants=True) as node:
        yield node.url
