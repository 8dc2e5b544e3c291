"""etcd: one member, or three; a member that is killed comes back with its data."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.servers.process import Missing, Server

CACHE = Path(os.environ.get("PERDURE_TEST_SERVERS") or Path.home() / ".cache" / "perdure-test-servers")
"""Where servers lie that come neither as a wheel nor on PATH."""


def cached(kind: type[Server], path: str) -> str:
    """The program at a path in the cache, or at a full one. Raises `Missing`."""
    program = CACHE / path
    if not program.exists():
        raise Missing(f"{kind.name} is not installed: {kind.install}")
    return str(program)


class Etcd(Server):
    """One member."""

    name = "etcd"
    install = "python3 dev.py fetch"
    members = 1

    @classmethod
    def program(cls) -> str:
        cached = CACHE / "etcd" / "usr" / "bin" / "etcd"
        return str(cached) if cached.exists() else cls.found("", "etcd")

    @property
    def names(self) -> list[str]:
        return [f"m{number}" for number in range(1, self.members + 1)]

    @property
    def url(self) -> str:
        return f"etcd://{','.join(f'{self.host(node)}:{self.port(node)}' for node in self.names)}"

    def alone(self, node: str) -> str:
        """The URL of clients who speak to one member."""
        return f"etcd://{self.host(node)}:{self.port(node)}"

    def client(self, node: str) -> str:
        """The address of a member for clients."""
        return f"http://{self.host(node)}:{self.port(node)}"

    def peer(self, node: str) -> str:
        """The address of a member for the others."""
        return f"http://{self.host(node)}:{self.port(f'{node} peer')}"

    def start(self) -> None:
        cluster = ",".join(f"{node}={self.peer(node)}" for node in self.names)
        for node in self.names:
            flags = f"--name {node} --data-dir {self.folder / node} --log-level warn --heartbeat-interval 50 --election-timeout 500"
            flags += f" --listen-client-urls {self.client(node)} --advertise-client-urls {self.client(node)}"
            flags += f" --listen-peer-urls {self.peer(node)} --initial-advertise-peer-urls {self.peer(node)}"
            self.spawn(node, [self.program(), *flags.split(), "--initial-cluster", cluster, "--logger", "zap"])
        for node in self.names:
            self.wait(f"{node} ready", lambda node=node: self.healthy(node))

    @property
    def primary(self) -> str:
        """The member that leads."""
        for node in self.names:
            status = self.ask(node, "maintenance/status")
            if status["leader"] == status["header"]["member_id"]:
                return node
        raise RuntimeError("No member leads.")

    def ask(self, node: str, what: str) -> dict[str, Any]:
        """What a member answers to a question without words."""
        with urllib.request.urlopen(urllib.request.Request(f"{self.client(node)}/v3/{what}", data=b"{}"), timeout=2) as response:
            return json.loads(response.read())

    def healthy(self, node: str) -> bool:
        """Whether a member can serve a linearizable read."""
        request = urllib.request.Request(f"{self.client(node)}/v3/kv/range", data=json.dumps({"key": "YQ=="}).encode())
        try:
            with urllib.request.urlopen(request, timeout=2) as response:
                return response.status == 200
        except urllib.error.HTTPError as error:
            with error:
                return b"user name is empty" in error.read()  # It serves, and asks who we are.


class EtcdCluster(Etcd):
    """Three members."""

    name = "etcd-cluster"
    members = 3
