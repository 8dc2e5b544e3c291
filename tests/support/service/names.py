"""An authority of the DNS in a test, over UDP and TCP on the test's loop: SRV records that the test sets, and 127.0.0.1 for all names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.servers.process import HOST

TARGET = "node.test"
"""The name of the nodes. They have to know it as a host that is theirs."""


class Names:
    """What the authority says. Change it at any time."""

    def __init__(self) -> None:
        self.port = 0
        self.records: Sequence[tuple[int, int, int, str]] = ()
        """Priority, weight, port, target."""
        self.ttl = 1
        self.alias: str | None = None
        """A name of which the name that is asked for is an alias, with a TTL of 2 s."""
        self.rcode = dns.rcode.NOERROR
        self.silent = False
        self.asked: list[tuple[str, str]] = []
        """Of each question its transport and its type."""

    def nodes(self, *ports: int) -> None:
        """The service has nodes at these ports, of one priority."""
        self.records = [(0, 0, port, f"{TARGET}.") for port in ports]

    def answer(self, data: bytes, transport: str) -> bytes | None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        self.asked.append((transport, dns.rdatatype.to_text(question.rdtype)))
        if self.silent:
            return None
        answer = dns.message.make_response(query)
        if question.rdtype == dns.rdatatype.SRV:
            answer.set_rcode(self.rcode)
            name: Any = question.name
            if self.alias is not None:
                answer.answer.append(dns.rrset.from_text(name, 2, "IN", "CNAME", self.alias))
                name = self.alias
            if self.records:
                texts = [f"{priority} {weight} {port} {target}" for priority, weight, port, target in self.records]
                answer.answer.append(dns.rrset.from_text(name, self.ttl, "IN", "SRV", *texts))
        elif question.rdtype == dns.rdatatype.A:
            answer.answer.append(dns.rrset.from_text(question.name, 1, "IN", "A", HOST))
        most = 65535 if transport == "tcp" else max(query.payload, 512)
        try:
            return answer.to_wire(max_size=most)
        except dns.exception.TooBig:
            short = dns.message.make_response(query)
            short.flags |= dns.flags.TC
            return short.to_wire()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, names: Names) -> None:
        self._names = names

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if (answer := self._names.answer(data, "udp")) is not None:
            self._transport.sendto(answer, addr)


@asynccontextmanager
async def authority() -> AsyncIterator[Names]:
    """An authority that ends with the block."""
    names, loop = Names(), asyncio.get_running_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            size = int.from_bytes(await reader.readexactly(2))
            if (answer := names.answer(await reader.readexactly(size), "tcp")) is not None:
                writer.write(len(answer).to_bytes(2) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    tcp = await asyncio.start_server(serve, HOST, 0)
    names.port = tcp.sockets[0].getsockname()[1]
    udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(names), local_addr=(HOST, names.port))
    try:
        yield names
    finally:
        udp.close()
        tcp.close()
        await tcp.wait_closed()
