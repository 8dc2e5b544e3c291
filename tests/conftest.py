"""What all tests share: how Hypothesis searches, and real servers."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.servers.fixture import server_of_my_own, servers

pytest.register_assert_rewrite("tests.backends.claims")  # What it asserts is shown with its values, as in a test.

__all__ = ["server_of_my_own", "servers"]

# No deadline: a test never asserts time. In CI the same commit gives the same verdict; elsewhere every run looks somewhere new.
settings.register_profile("dev", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, max_examples=100)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
