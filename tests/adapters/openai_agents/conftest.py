"""The OpenAI Agents SDK's adapter on each engine that needs no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.coroutines import pytest_pyfunc_call

pytest.importorskip("agents", reason="pip install '.[openai-agents]'")

__all__ = ["pytest_pyfunc_call"]


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh store on each engine in turn."""
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/store.db"
