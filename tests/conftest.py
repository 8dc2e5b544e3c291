"""What all tests share: how Hypothesis searches, real servers, and the tiers."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.servers.fixture import server_of_my_own, servers
from tests.support.tiers import sort_into_tiers

pytest.register_assert_rewrite("tests.backends.claims")  # What it asserts is shown with its values, as in a test.

__all__ = ["server_of_my_own", "servers"]

# No deadline: a test never asserts time. In CI the same commit gives the same verdict; elsewhere every run looks somewhere new.
settings.register_profile("dev", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, max_examples=100)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say of each test what it needs."""
    sort_into_tiers(items)
