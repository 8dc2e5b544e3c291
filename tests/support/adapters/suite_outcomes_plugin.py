"""A pytest plugin that writes down how each test ended, for the one who started this pytest. Loaded by `-p`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

RESULTS = "PERDURE_SUITE_RESULTS"
"""The variable that names the file to write."""
_failed: set[str] = set()
_passed: set[str] = set()


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file that cannot be read has failed."""
    if report.failed:
        _failed.add(report.nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test has failed if its set-up, its body or its end did."""
    if report.failed:
        _failed.add(report.nodeid)
    elif report.when == "call" and report.passed:
        _passed.add(report.nodeid)


def pytest_sessionfinish() -> None:
    """Write them down."""
    Path(os.environ[RESULTS]).write_text(json.dumps({"passed": sorted(_passed - _failed), "failed": sorted(_failed)}))
