"""What all tests share: how Hypothesis searches, real servers, asynchronous tests, and the tiers."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.servers.fixture import server_of_my_own, servers
from tests.support.scratch import use_memory
from tests.support.tiers import sort_into_tiers

pytest.register_assert_rewrite("tests.support.backends.scenarios")  # What it asserts is shown with its values, as in a test.

__all__ = ["server_of_my_own", "servers"]

use_memory()

# No deadline: a test never asserts time. In CI the same commit gives the same verdict; elsewhere every run looks somewhere new.
settings.register_profile("dev", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, max_examples=100)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def test_…` in an event loop of its own, for four minutes at most, or as its mark `timeout` says."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    mark = pyfuncitem.get_closest_marker("timeout")
    asyncio.run(_in_time(pyfuncitem.obj(**arguments), mark.args[0] if mark else 240))
    return True


async def _in_time(test: Coroutine[Any, Any, None], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        await test


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say of each test what it needs."""
    sort_into_tiers(items)
