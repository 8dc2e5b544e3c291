"""ADK's session service on each engine that needs no server, on either kind of store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("google.adk", reason="pip install 'perdure[google-adk]'")

import perdure
from perdure.adapters.google_adk import PerdureSessionService

Scenario = Callable[[PerdureSessionService], Awaitable[None]]


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh store on each engine in turn."""
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    """A fresh SQLite file, for what needs several stores on the same data."""
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture(params=["asynchronous", "blocking"])
def play(request: pytest.FixtureRequest, url: str) -> Callable[[Scenario], Any]:
    """Run a scenario with a service on an asynchronous store, then on a blocking one."""

    async def on_asynchronous(scenario: Scenario) -> None:
        async with perdure.open(url) as store:
            await scenario(PerdureSessionService(store))

    def run(scenario: Scenario) -> None:
        if request.param == "asynchronous":
            asyncio.run(on_asynchronous(scenario))
            return
        with perdure.sync.open(url) as store:
            asyncio.run(scenario(PerdureSessionService(store)))  # type: ignore[arg-type]

    return run
