"""The stores that consumers work on."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh store on each engine in turn."""
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/store.db"
