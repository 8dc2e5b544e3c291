"""A store that is closed while the interpreter ends, by a finaliser or by `atexit`: that ends too, and in our words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import perdure
from perdure import sync

WAIT = 120
"""Seconds after which the process counts as hung."""
PROGRAM = """
import atexit
import sys
from perdure import Error, Event, sync

url, when, what = sys.argv[1:]


class Keeper:
    def __init__(self):
        self.store = sync.open(url)
        self.store.append("s", Event("first"))

    def end(self):
        try:
            if what == "write":
                self.store.append("s", Event("last"))
            self.store.close()
            print("closed", flush=True)
        except Error as error:
            print(error.code, flush=True)

    def __del__(self):
        if when == "finaliser":
            self.end()


keeper = Keeper()
if when == "atexit":
    atexit.register(keeper.end)
"""


@pytest.mark.parametrize("what", ["write", "close"])
@pytest.mark.parametrize("when", ["finaliser", "atexit"])
@pytest.mark.parametrize("engine", ["memory", "sqlite", "file"])
def test_a_store_may_be_closed_while_the_interpreter_ends(tmp_path: Path, engine: str, when: str, what: str) -> None:
    """In `atexit` everything works; a finaliser at the very end may find the threads gone, and is told `Closed` instead of waiting."""
    url = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/a.db", "file": f"file://{tmp_path}/files"}[engine]
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, url, when, what]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    late = when == "finaliser" and what == "write" and engine != "memory"
    assert ended.stdout.split() == ["closed" if not late else perdure.Closed.code]
    if engine != "memory":
        with sync.open(url) as store:
            types = [event.type for commit in store.history("s") for event in commit.events]
        assert types == (["first", "last"] if what == "write" and not late else ["first"])
