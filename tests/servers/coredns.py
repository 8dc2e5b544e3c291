"""CoreDNS, built from its source with the plugins that tests need: the authority of a zone in a file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import dns.message
import dns.query

from tests.servers.etcd import cached
from tests.servers.process import HOST, Server

ZONE = "nodes.test"


class CoreDns(Server):
    """One, which reads its zone again within a second when it has changed."""

    name: ClassVar[str] = "coredns"
    install: ClassVar[str] = "python3 scripts/fetch_servers.py coredns (with Go; half a minute of processor time)"
    obtainable: ClassVar[bool] = False
    _serial = 0

    @classmethod
    def program(cls) -> str:
        return cached(cls, "coredns/coredns")

    @property
    def place(self) -> str:
        """Host and port: the option `dns` of a URL."""
        return f"{HOST}:{self.port('node')}"

    @property
    def url(self) -> str:
        """The nodes, as `perdure.open` takes them."""
        return f"http+srv://_perdure._tcp.{ZONE}?dns={self.place}"

    def start(self) -> None:
        """Start it, with no record but the zone's own."""
        if not self._serial:
            self.publish(())
        file = self.folder / "Corefile"
        file.write_text(f"{ZONE}:{self.port('node')} {{\n bind {HOST}\n errors\n file {self._zone} {{\n  reload 200ms\n }}\n}}\n")
        self.spawn("node", [self.program(), "-conf", str(file)])
        self.wait("it knows the zone", lambda: self._published() == self._serial)

    @property
    def _zone(self) -> str:
        return str(self.folder / "zone")

    def publish(self, ports: Iterable[int], ttl: int = 1) -> None:
        """These are the nodes from now on, and the answers say so when this returns."""
        self._serial += 1
        lines = [f"$ORIGIN {ZONE}.", f"@ {ttl} IN SOA ns admin {self._serial} 60 60 60 {ttl}", f"@ IN NS ns\nns IN A {HOST}"]
        lines += [f"node {ttl} IN A {HOST}", *[f"_perdure._tcp {ttl} IN SRV 0 0 {port} node" for port in ports]]
        new = self.folder / "new"
        new.write_text("\n".join(lines) + "\n")
        new.rename(self._zone)
        if self.nodes:
            self.wait("the zone is read again", lambda: self._published() == self._serial)

    def _published(self) -> int:
        answer = dns.query.udp(dns.message.make_query(ZONE, "SOA"), HOST, port=self.port("node"), timeout=2)
        return int(answer.answer[0][0].serial)
