"""Nodes of the session service: `perdure serve`, each a process on a free port, all on one store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar
from urllib.request import urlopen

from tests.servers.process import HOST, Server


class Nodes(Server):
    """Any number of nodes on one store: `node0`, `node1` and so on."""

    name: ClassVar[str] = "nodes"
    install: ClassVar[str] = "pip install '.[service]'"

    def __init__(self, folder: Path, store: str = "", *, count: int = 1, options: tuple[str, ...] = ()) -> None:
        """`store` is its URL; without one, a SQLite file in the folder. `options` are given to each node."""
        super().__init__(folder)
        self.store, self._count, self._options = store or f"sqlite:///{self.folder}/store.db", count, options

    @classmethod
    def program(cls) -> str:
        return sys.executable

    def start(self) -> None:
        """Start the nodes that do not run, and return when all are ready."""
        for number in range(self._count):
            self.start_node(f"node{number}")

    def start_node(self, node: str) -> None:
        """Start one, with the port that it had, and return when it is ready."""
        serve = [self.program(), "-m", "perdure", "serve", self.store, "--port", str(self.port(node)), "--drain-delay", "0"]
        self.spawn(node, [*serve, *self._options])
        self.wait(f"{node} is ready", lambda: urlopen(f"{self.url_of(node)}/readyz", timeout=5).status == 200)

    def url_of(self, node: str) -> str:
        """The base URL of a node."""
        return f"http://{HOST}:{self.port(node)}"

    @property
    def url(self) -> str:
        """The URLs of all nodes, as `perdure.open` takes them."""
        return "http://" + ",".join(f"{HOST}:{self.port(f'node{number}')}" for number in range(self._count))
