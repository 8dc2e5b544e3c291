"""Consul, built from its source: one agent, server and client in one, everything in memory."""

from __future__ import annotations

import json
from typing import Any, ClassVar
from urllib.request import Request, urlopen

from tests.servers.etcd import cached
from tests.servers.process import HOST, Server


class Consul(Server):
    """One agent in development mode; killed and started again it knows nothing, and its index begins at the beginning."""

    name: ClassVar[str] = "consul"
    install: ClassVar[str] = "python3 scripts/fetch_servers.py consul (with Go; about six minutes of processor time)"
    obtainable: ClassVar[bool] = False

    @classmethod
    def program(cls) -> str:
        return cached(cls, "consul/consul")

    @property
    def place(self) -> str:
        """Host and port of its API."""
        return f"{HOST}:{self.port('http')}"

    @property
    def url(self) -> str:
        """The service `perdure`, as `perdure.open` and `--register` take it."""
        return f"consul+http://{self.place}/perdure"

    @property
    def dns(self) -> str:
        """Host and port of its resolver."""
        return f"{HOST}:{self.port('dns')}"

    def start(self) -> None:
        flags = [f"-{name}-port={self.port(name)}" for name in ("http", "dns", "server", "serf-lan", "serf-wan")]
        flags += ["-grpc-port=-1", "-grpc-tls-port=-1", "-node=test", f"-bind={HOST}", f"-client={HOST}", "-disable-host-node-id"]
        self.spawn("agent", [self.program(), "agent", "-dev", *flags, "-log-level=warn", "-hcl=disable_update_check = true"])
        self.wait("it leads", lambda: ":" in self.ask("status/leader"))
        self.wait("it lists itself", lambda: self.ask("health/service/consul?passing"))

    def ask(self, path: str) -> Any:
        """What it answers to a question."""
        with urlopen(f"http://{self.place}/v1/{path}", timeout=10) as answer:
            return json.load(answer)

    def index(self) -> int:
        """How far what it knows of the nodes has changed: what blocking queries go by."""
        with urlopen(f"http://{self.place}/v1/health/service/perdure", timeout=10) as answer:
            return int(answer.headers["X-Consul-Index"])

    def tell(self, path: str, value: object = None) -> None:
        """Have something done."""
        body = b"" if value is None else json.dumps(value).encode()
        urlopen(Request(f"http://{self.place}/v1/{path}", data=body, method="PUT"), timeout=10).close()

    def passing(self) -> set[int]:
        """The ports of the nodes that pass their checks."""
        return {entry["Service"]["Port"] for entry in self.ask("health/service/perdure?passing")}
