"""Clocks of a server's nodes that are hours apart and step back while they run: libfaketime, for programs that take their time from the C
library and wait by monotonic clocks."""

from __future__ import annotations

import os
import shutil
import tempfile
from itertools import cycle
from pathlib import Path

from tests.servers.process import Missing
from tests.support.scratch import open_to_all

CACHE = Path(os.environ.get("PERDURE_TEST_SERVERS") or Path.home() / ".cache" / "perdure-test-servers")
HOURS = (3, -3, 0)
"""How far ahead the clocks of the first nodes are when they start; the next ones begin anew."""


class Clocks:
    """What a server's nodes take for the time; monotonic clocks are left alone. Raises `Missing`."""

    def __init__(self) -> None:
        library = next((CACHE / "libfaketime").glob("usr/lib/*/faketime/libfaketime.so.1"), None)
        if library is None:
            raise Missing("libfaketime is not installed: python3 dev.py fetch")
        self._hours = cycle(HOURS)
        self._folder = Path(tempfile.mkdtemp(prefix="perdure-clocks-", dir=open_to_all()))
        self._folder.chmod(0o755)  # A server's own user reads it too.
        self._library = shutil.copy(library, self._folder)

    def environment(self, node: str) -> dict[str, str]:
        """What a node is started with, the same clock each time."""
        if not self._file(node).exists():
            self.set(node, next(self._hours))
        return {
            "LD_PRELOAD": self._library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file(node)),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, node: str, hours: float) -> None:
        """Put a node's clock ahead of the machine's, or behind it; the node sees it within a second."""
        self._file(node).write_text(f"{hours * 3600:+.0f}")

    def rule(self, pid: int) -> bool:
        """Whether a process has them."""
        return self._library in Path(f"/proc/{pid}/maps").read_text()

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, node: str) -> Path:
        return self._folder / node
