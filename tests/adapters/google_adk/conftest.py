"""ADK's services on each engine that needs no server, on either kind of store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

pytest.importorskip("google.adk", reason="pip install '.[google-adk]'")

import perdure
from perdure.adapters.google_adk import PerdureSessionService


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
