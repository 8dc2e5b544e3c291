"""Memcached: one node, in as much memory as its class says. It is a cache: what it held is gone when it is started again."""

from __future__ import annotations

import os
import socket

from tests.servers.etcd import CACHE
from tests.servers.process import HOST, Server


class Memcached(Server):
    """As Debian delivers it: 64 MiB, items up to 1 MiB."""

    name = "memcached"
    install = "python3 dev.py fetch"
    megabytes = 64

    @classmethod
    def program(cls) -> str:
        cached = CACHE / "memcached" / "usr" / "bin" / "memcached"
        return str(cached) if cached.exists() else cls.found("", "memcached")

    @property
    def url(self) -> str:
        return f"memcached://{HOST}:{self.port('node')}"

    def start(self) -> None:
        libraries = ":".join(str(folder) for folder in (CACHE / "memcached" / "usr" / "lib").glob("*-linux-*"))
        command = [self.program(), "-l", HOST, "-p", str(self.port("node")), "-U", "0", "-m", str(self.megabytes)]
        if os.geteuid() == 0:
            command += ["-u", "nobody"]
        self.spawn("node", command, env=os.environ | ({"LD_LIBRARY_PATH": libraries} if libraries else {}))
        self.wait("an answer", lambda: self.ask("version").startswith("VERSION"))

    def ask(self, line: str, data: bytes | None = None) -> str:
        """One command, with its data, and the first line of the answer."""
        with socket.create_connection((HOST, self.port("node")), 5) as connection:
            connection.sendall(line.encode() + b"\r\n" + (b"" if data is None else data + b"\r\n"))
            with connection.makefile("rb") as answer:
                return answer.readline().decode().strip()
