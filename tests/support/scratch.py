"""Where tests put their files: in memory, where there is enough of it. Each durable commit waits for a disk, and most tests make some."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
ENOUGH = 6 << 30
"""Bytes that have to be free: real servers are started there too."""


def use_memory() -> None:
    """Make memory the temporary folder of this process and of those that it starts; who sets TMPDIR has decided.

    No test loses by it. A process that is killed leaves what it has written to either, and a loss of power is a fault that tests make.
    """
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK):
        return
    if min(shutil.disk_usage(MEMORY).free, _available_memory()) >= ENOUGH:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


def open_to_all() -> str:
    """A folder for what another user's process reads: the way to TMPDIR may be closed to it."""
    return str(MEMORY) if tempfile.gettempdir() == str(MEMORY) else "/tmp"


def _available_memory() -> int:
    """Bytes of memory that this machine has to give; 0 where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), 0)
