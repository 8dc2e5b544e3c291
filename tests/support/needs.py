"""What a test needs and does not find: it skips with the line that brings it, or fails where it must be there."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

REQUIRED = "PERDURE_REQUIRE_SERVERS"
"""Set to 1, what is missing and can be had fails the tests that need it; else they are skipped with the line that installs it."""


def missing(reason: str) -> NoReturn:
    """Skip, or fail where it must be there."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(reason)
    pytest.skip(reason)
