"""ADK's services on each engine that needs no server, on either kind of store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("google.adk", reason="pip install '.[google-adk]'")

import perdure
from perdure.adapters.google_adk import PerdureSessionService
from tests.adapters.coroutines import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh store on each engine in turn."""
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    """A fresh SQLite file, for what needs several stores on the same data."""
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture(params=["asynchronous", "blocking"])
def player(request: pytest.FixtureRequest, url: str) -> Callable[..., None]:
    """Run a scenario with a service of a class: on an asynchronous store, then on a blocking one."""

    async def on_asynchronous(service: Callable[[Any], Any], scenario: Callable[[Any], Any]) -> None:
        async with perdure.open(url) as store:
            await scenario(service(store))

    def run(service: Callable[[Any], Any], scenario: Callable[[Any], Any]) -> None:
        if request.param == "asynchronous":
            asyncio.run(on_asynchronous(service, scenario))
            return
        with perdure.sync.open(url) as store:
            asyncio.run(scenario(service(store)))

    return run


@pytest.fixture
def play(player: Callable[..., None]) -> Callable[[Callable[[Any], Any]], None]:
    """Run a scenario with a session service."""
    return partial(player, PerdureSessionService)
