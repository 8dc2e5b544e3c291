"""What the tests of all adapters share: fresh stores on each engine that needs no server."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh store on each engine in turn."""
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    """A fresh SQLite file, for what needs several stores on the same data."""
    return f"sqlite:///{tmp_path}/store.db"
