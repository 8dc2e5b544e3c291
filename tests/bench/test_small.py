"""Every benchmark runs at its small size, so that none rots between two measurements. Their figures are not looked at."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.needs import missing

MISSING = 3
WHEELS = ("engines_mongodb.py", "engines_objects.py", "engines_postgresql.py", "engines_redis.py", "service.py")
ROOT = Path(__file__).parents[2]
BENCHMARKS = sorted(path.name for path in (ROOT / "bench").glob("[!_]*.py"))


def _needs(name: str) -> list[pytest.MarkDecorator]:
    """A benchmark of an engine asks for its server; all but those that are wheels are fetched."""
    if name in WHEELS:
        return [pytest.mark.server]
    return [pytest.mark.server, pytest.mark.fetched] if name.startswith("engines_") else []


@pytest.mark.parametrize("name", [pytest.param(name, marks=_needs(name)) for name in BENCHMARKS])
def test_a_benchmark_runs(name: str) -> None:
    """It ends well, says on what machine it ran, leaves nothing, and prints at least one table with figures."""
    command = [sys.executable, str(ROOT / "bench" / name), "--small"]
    with tempfile.TemporaryDirectory() as place:  # Its path is short: servers make sockets in it.
        environment = {**os.environ, "TMPDIR": place, "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode or not any(Path(place).glob(".bench-*"))
    if done.returncode == MISSING:
        missing(done.stderr.strip())
    assert done.returncode == 0, done.stderr[-2000:]
    assert "cores, Python" in done.stdout.splitlines()[0]
    assert any(line.startswith("|") and any(char.isdigit() for char in line) for line in done.stdout.splitlines())
