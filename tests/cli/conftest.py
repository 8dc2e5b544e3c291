"""The command line as a process of its own, on a store in the test's folder."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import perdure
import perdure.cli
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
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`perdure …` in the test's folder, with stdout no terminal; in this very process, which is quicker than one of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERDURE_URL", raising=False)

    def call(*arguments: str, stdin: str = "", encoding: str = "utf-8", columns: int = 160, **environment: str) -> Ran:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", newline="\n") for _ in range(2))
        with monkeypatch.context() as patch:
            for name, value in ({"NO_COLOR": "1", "COLUMNS": str(columns)} | environment).items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            status = perdure.cli.run(arguments)
        out.flush()
        err.flush()
        return Ran(status, out.buffer.getvalue().decode(encoding), err.buffer.getvalue().decode(encoding))  # type: ignore[attr-defined]

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
