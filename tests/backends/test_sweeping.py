"""Policies and the sweeper on each engine with its real server: the same scenarios as on the engines without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import perdure
from tests.servers.fixture import Servers
from tests.servers.process import Server
from tests.support.backends.engines import ENGINES, Engine
from tests.support.ops.scenarios import SCENARIOS
from tests.support.ops.simulated_clock import SimulatedClock


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
@pytest.mark.parametrize("engine", ENGINES, ids=str)
async def test_scenario(engine: Engine, scenario: Callable[[perdure.Store, SimulatedClock], Any], servers: Servers[Server]) -> None:
    """What the scenario says."""
    clock = SimulatedClock(running=True)
    async with perdure.open(engine.url(servers(engine.server)), clock=clock) as store:
        await scenario(store, clock)
