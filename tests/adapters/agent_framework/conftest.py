"""Agent Framework's adapter on each engine that needs no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.coroutines import pytest_pyfunc_call

pytest.importorskip("agent_framework", reason="pip install '.[agent-framework]'")

__all__ = ["pytest_pyfunc_call"]


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh store on each engine in turn."""
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    """A fresh SQLite file, for what needs several stores on the same data."""
    return f"sqlite:///{tmp_path}/store.db"
