"""A real server for the tests: its processes on loopback, free ports and a folder of its own; killed, paused and brought back at will."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tests.servers.network import Network

if TYPE_CHECKING:
    from tests.servers.clocks import Clocks

HOST = "127.0.0.1"
READY_SECONDS = 90


class Missing(Exception):
    """A server is not installed; the message is the line that installs it."""


class Server(ABC):
    """One server, of one node or several, each a process under a name. Data and ports stay when a node is killed and started again.

    A class says how to find its program, how to start a node and when it serves; the rest is here.
    """

    name: ClassVar[str]
    install: ClassVar[str]
    """The line that installs it."""
    obtainable: ClassVar[bool] = True
    """Whether the registries that a test machine reaches have it."""
    ending: ClassVar[signal.Signals] = signal.SIGTERM
    """What ends a node kindly and soon."""
    network: Network | None = None
    """Where each node has a host of its own; set before it starts."""
    clocks: Clocks | None = None
    """Where nodes have clocks of their own; set before it starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        self._ports: dict[str, int] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.program()

    @classmethod
    @abstractmethod
    def program(cls) -> str:
        """The path of the server's program. Raises `Missing`."""

    @abstractmethod
    def start(self) -> None:
        """Start the nodes that do not run, and return when the server really serves."""

    @property
    @abstractmethod
    def url(self) -> str:
        """What `perdure.open` takes to reach it."""

    @classmethod
    def found(cls, wheel: str = "", *commands: str) -> str:
        """The program that the pattern `wheel` names among installed packages, else the first of `commands` on PATH. Raises `Missing`."""
        for place in map(Path, sys.path):
            if wheel and (file := next(place.glob(wheel), None)):
                return str(file.absolute())
        for command in commands:
            if path := shutil.which(command):
                return path
        raise Missing(f"{cls.name} is not installed: {cls.install}")

    def port(self, name: str) -> int:
        """The port of that name, the same one each time; free when it was first asked for."""
        if name not in self._ports:
            self._ports[name] = free_port()
        return self._ports[name]

    def place(self, node: str) -> int:
        """The number of the host that a node has in a network."""
        return int(node[-1])

    def host(self, node: str) -> str:
        """The address of a node."""
        return HOST if self.network is None else self.network.address(self.place(node))

    def spawn(self, node: str, command: Sequence[str], **popen: Any) -> None:
        """Start a node unless it runs; what it says goes to NODE.log in the folder."""
        if self.runs(node):
            return
        if self.network is not None:
            command = self.network.inside(self.network.host(self.place(node)), command)
        if self.clocks is not None:
            popen["env"] = {**popen.get("env", os.environ), **self.clocks.environment(node)}
        with (self.folder / f"{node}.log").open("ab") as log:
            self._processes[node] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **popen
            )

    def runs(self, node: str) -> bool:
        """Whether the node's process is there."""
        process = self._processes.get(node)
        return process is not None and process.poll() is None

    def pid(self, node: str) -> int:
        """The process of a node."""
        return self._processes[node].pid

    @property
    def nodes(self) -> list[str]:
        """The names of the nodes that were started, in that order."""
        return list(self._processes)

    def wait(self, what: str, check: Callable[[], object], seconds: float = READY_SECONDS) -> None:
        """Until `check` returns something true. What it raises means: not yet. A node that ended meanwhile is an error."""
        end, last = time.monotonic() + seconds, "nothing yet"
        while time.monotonic() < end:
            for node, process in self._processes.items():
                if process.poll() not in (None, -signal.SIGKILL):
                    raise RuntimeError(f"{self.name}: {node} ended with {process.returncode}:\n{self.log(node)}")
            try:
                if check():
                    return
            except Exception as error:  # noqa: BLE001 - any error of any client, while a server starts
                last = repr(error)
            time.sleep(0.03)
        raise TimeoutError(f"{self.name}: {what} did not come in {seconds} s; {last}")

    def log(self, node: str) -> str:
        """The last lines of what a node said."""
        return "\n".join((self.folder / f"{node}.log").read_text(errors="replace").splitlines()[-30:])

    def send(self, sign: signal.Signals, *nodes: str) -> None:
        """Send a signal to nodes (default: all) and all processes below them."""
        for node in nodes or self.nodes:
            if self.runs(node):
                for pid in tree(self._processes[node].pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, sign)

    def kill(self, *nodes: str) -> None:
        """Kill -9, at once and with everything below."""
        self.send(signal.SIGKILL, *nodes)
        for node in nodes or self.nodes:
            self._processes[node].wait(20)

    def pause(self, *nodes: str) -> None:
        """Freeze: connections stay, no answer comes."""
        self.send(signal.SIGSTOP, *nodes)

    def resume(self, *nodes: str) -> None:
        """Go on after `pause`."""
        self.send(signal.SIGCONT, *nodes)

    def stop(self) -> None:
        """End every node, kindly and then for certain."""
        self.resume()
        for process in reversed(self._processes.values()):
            if process.poll() is None:
                process.send_signal(self.ending)
        for process in reversed(self._processes.values()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        self.kill()


def free_port() -> int:
    """A port nothing listens on, below the range from which outgoing connections take theirs."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return port


def tree(root: int) -> list[int]:
    """A process and all below it."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            below.setdefault(parent, []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found += below.get(pid, [])
    return found
