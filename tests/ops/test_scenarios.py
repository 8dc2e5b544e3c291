"""Policies and the sweeper on the engines that need no server, with months in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import perdure
from tests.support.ops.scenarios import SCENARIOS
from tests.support.ops.simulated_clock import SimulatedClock


@pytest.mark.parametrize("engine", ["memory", "sqlite", "file"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_scenario(scenario: Callable[[perdure.Store, SimulatedClock], Any], engine: str, tmp_path: Path) -> None:
    """What the scenario says."""
    url = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/s.db", "file": f"file://{tmp_path}/files"}[engine]
    clock = SimulatedClock()
    async with perdure.open(url, clock=clock) as store:
        await scenario(store, clock)
