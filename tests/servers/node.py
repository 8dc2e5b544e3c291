"""Nodes of the session service: `perdure serve`, each a process on a free port, all on one store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from urllib.request import urlopen

from tests.servers.process import HOST, READY_SECONDS, Server


class Nodes(Server):
    """Any number of nodes on one store: `node0`, `node1` and so on."""

    name: ClassVar[str] = "nodes"
    install: ClassVar[str] = "pip install '.[service]'"

    def __init__(self, folder: Path, store: str | Sequence[str] = "", *, count: int = 1, options: tuple[str, ...] = ()) -> None:
        """`store` is its URL, or that of each node; without one, a SQLite file in the folder. `options` are given to each node."""
        super().__init__(folder)
        stores = [store or f"sqlite:///{self.folder}/store.db"] * count if isinstance(store, str) else store
        self.stores, self._count, self._options = stores, len(stores), options

    @classmethod
    def program(cls) -> str:
        return sys.executable

    def start(self) -> None:
        """Start the nodes that do not run, and return when all are ready."""
        for number in range(self._count):
            self.start_node(f"node{number}")

    def start_node(self, node: str) -> None:
        """Start one, with the port that it had, and return when it is ready."""
        self.spawn(node, self.command(node))
        self.wait(f"{node} is ready", lambda: urlopen(f"{self.url_of(node)}/readyz", timeout=5).status == 200)

    def wait_for_end(self, node: str) -> int:
        """The exit code of a node that was told to end."""
        return self._processes[node].wait(READY_SECONDS)

    def command(self, node: str) -> list[str]:
        """What runs it."""
        store = self.stores[int(node.removeprefix("node"))]
        soon = () if "--drain-delay" in self._options else ("--drain-delay", "0")
        return [self.program(), "-m", "perdure", "serve", store, "--port", str(self.port(node)), *soon, *self._options]

    def url_of(self, node: str) -> str:
        """The base URL of a node."""
        return f"http://{HOST}:{self.port(node)}"

    @property
    def url(self) -> str:
        """The URLs of all nodes, as `perdure.open` takes them."""
        return "http://" + ",".join(f"{HOST}:{self.port(f'node{number}')}" for number in range(self._count))
