"""A network of a test's own, as a cluster's node has one: loopback, and a bridge that pods are put on. Needs root and Linux's `ip`."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
PODS = "10.244"
"""The first half of pods' addresses; seen from within the network alone."""
BRIDGE, GATEWAY = "pods", f"{PODS}.0.1"
CLONE_NEWNET = 0x4000_0000


class Namespace:
    """A thread in a network of its own. The threads and programs that its work starts are in there too, and nothing else is; with the
    last of them the network is gone."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self.run(_enter)

    @staticmethod
    def missing() -> str:
        """Why there can be none here; empty: there can."""
        if os.geteuid() or not all(map(shutil.which, ("ip", "unshare", "nsenter"))):
            return "needs root and the commands ip, unshare and nsenter (Debian's iproute2 and util-linux)"
        return ""

    def run(self, work: Callable[[], T]) -> T:
        """Do this in there, and return what it returns. Raises what it raises."""
        return self._thread.submit(work).result()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()


class Host:
    """A host on the bridge: the network of one process, which is not a program yet. `begin` lets it become one."""

    def __init__(self, number: int, command: list[str], **popen: object) -> None:
        self.address = f"{PODS}.{1 + number // 250}.{1 + number % 250}"
        waits = ["unshare", "--net", "sh", "-c", 'read go && exec "$@"', "host", *command]
        self.process: subprocess.Popen[bytes] = subprocess.Popen(waits, stdin=subprocess.PIPE, **popen)  # type: ignore[call-overload]
        self._cable = f"pod{number}"

    def begin(self) -> None:
        """Connect it, and let its program start."""
        pid, ours = self.process.pid, Path("/proc/thread-self/ns/net").readlink()
        while Path(f"/proc/{pid}/ns/net").readlink() == ours:
            if self.process.poll() is not None:
                raise RuntimeError(f"unshare ended with {self.process.returncode}.")
            time.sleep(0.005)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        _ip("link", "set", self._cable, "master", BRIDGE, "up")
        for words in (("link", "set", "lo", "up"), ("addr", "add", f"{self.address}/16", "dev", "eth0"), ("link", "set", "eth0", "up")):
            subprocess.run(self.inside(["ip", *words]), check=True)
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.close()

    def inside(self, command: list[str]) -> list[str]:
        """A command as it is started on this host."""
        return ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", *command]


def _enter() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "There can be no network of one's own here")
    _ip("link", "set", "lo", "up")
    _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("addr", "add", f"{GATEWAY}/16", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
