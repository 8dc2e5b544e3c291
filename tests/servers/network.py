"""Hosts of a test's own on one machine: network namespaces around a switch, and cuts between them. Needs root and Linux's `ip`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from itertools import pairwise
from types import TracebackType
from typing import Self

SUBNET = "198.18.0"
"""Addresses set aside for tests of networks; seen from within these namespaces alone."""


class Network:
    """`hosts` hosts, numbered from 1, and a client that sees them all. What is outside sees none, nor do they see what is outside."""

    def __init__(self, name: str, hosts: int) -> None:
        self.name, self.hosts = name, hosts

    @staticmethod
    def missing() -> str:
        """Why there can be none here; empty: there can."""
        if os.geteuid() or shutil.which("ip") is None:
            return "needs root and the command ip (Debian's iproute2)"
        return ""

    @property
    def client(self) -> str:
        """The namespace of the client, which holds the switch."""
        return f"{self.name}c"

    def host(self, number: int) -> str:
        """The namespace of a host."""
        return f"{self.name}h{number}"

    def address(self, number: int) -> str:
        """The address of a host."""
        return f"{SUBNET}.{10 + number}"

    @staticmethod
    def inside(namespace: str, command: Sequence[str]) -> list[str]:
        """A command as it is started in a namespace; its process is the command's own."""
        return ["ip", "netns", "exec", namespace, *command]

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def _make(self) -> None:
        _ip("netns", "add", self.client)
        _ip("-n", self.client, "link", "set", "lo", "up")
        _ip("-n", self.client, "link", "add", "switch", "type", "bridge")
        _ip("-n", self.client, "addr", "add", f"{SUBNET}.1/24", "dev", "switch")
        _ip("-n", self.client, "link", "set", "switch", "up")
        for number in range(1, self.hosts + 1):
            host = self.host(number)
            _ip("netns", "add", host)
            _ip("-n", host, "link", "set", "lo", "up")
            _ip("-n", self.client, "link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", host)
            _ip("-n", self.client, "link", "set", f"port{number}", "master", "switch", "up")
            _ip("-n", host, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
            _ip("-n", host, "link", "set", "eth0", "up")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Take it all down; what still runs in it is killed."""
        for namespace in [*map(self.host, range(1, self.hosts + 1)), self.client]:
            found = subprocess.run(["ip", "netns", "pids", namespace], check=False, capture_output=True, text=True)
            for pid in found.stdout.split():
                subprocess.run(["kill", "-9", pid], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)

    def cut(self, number: int) -> None:
        """Cut a host off from the other hosts; the client still reaches them all."""
        for other in self._others(number):
            for here, there in pairwise((number, other, number)):
                _ip("-n", self.host(here), "route", "add", "blackhole", f"{self.address(there)}/32")

    def heal(self, number: int) -> None:
        """Undo a cut."""
        for other in self._others(number):
            for here, there in pairwise((number, other, number)):
                _ip("-n", self.host(here), "route", "del", "blackhole", f"{self.address(there)}/32")

    def _others(self, number: int) -> list[int]:
        return [other for other in range(1, self.hosts + 1) if other != number]


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
