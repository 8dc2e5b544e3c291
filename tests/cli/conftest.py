"""The command line as a process of its own, on a store in the test's folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import perdure
import perdure.sync
from perdure import Event, op

SOURCE = Path(perdure.__file__).parents[1]


class Ran(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def rows(self) -> list[Any]:
        """Its JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`python -m perdure …` in the test's folder, with stdout no terminal."""
    environment = {name: value for name, value in os.environ.items() if name != "PERDURE_URL"}
    environment |= {"PYTHONPATH": str(SOURCE), "COLUMNS": "160", "NO_COLOR": "1"}

    def call(*arguments: str, stdin: str = "", **more: str) -> Ran:
        command = [sys.executable, "-W", "error", "-m", "perdure", *arguments]
        done = subprocess.run(
            command, check=False, cwd=tmp_path, env=environment | more, input=stdin, capture_output=True, text=True, timeout=120
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store at the default place of the test's folder: trip-42 has three versions, hello one."""
    address = f"sqlite:///{tmp_path}/perdure.db"
    with perdure.sync.open(address) as store:
        store.append("trip-42", Event("message", {"role": "user", "content": "Two nights\nin Lisbon"}), actor="ana", key="k-1")
        store.append("trip-42", Event("edited", None, (op.set("/status", "searching"), op.append("/offers", [{"id": 7}]))), actor="planner")
        store.append("trip-42", Event("edited", None, (op.set("/status", "booked"), op.add("/tokens", 2**70))))
        store.append("hello", Event("message", {"role": "assistant", "content": [{"type": "text", "text": "hi \x1b[31m"}]}))
    return address
