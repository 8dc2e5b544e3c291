"""Every benchmark runs at its small size, so that none rots between two measurements. Their figures are not looked at."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = sorted(path.name for path in (ROOT / "bench").glob("[!_]*.py"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs(name: str, tmp_path: Path) -> None:
    """It ends well, says on what machine it ran, and prints at least one table with figures."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(ROOT / "bench" / name), "--small"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "cores, Python" in done.stdout.splitlines()[0]
    assert any(line.startswith("|") and any(char.isdigit() for char in line) for line in done.stdout.splitlines())
    assert not any(tmp_path.glob(".bench-*"))
