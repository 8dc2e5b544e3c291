"""Durable appends a second through nodes of the session service: the client is one process, each node another.

batched    64 sessions at once through `perdure.open("http://…")`: what is ready goes in one request; to a node on SQLite, and to one, two
           and three nodes on one PostgreSQL
unbatched  one append a request, over 64 raw connections that send prepared bytes, to a node on SQLite; to the same node without metrics,
           access log and limits; and to a bare Starlette route that parses the same requests and answers the same bytes, and stores nothing
A turn is one append of two messages of 400 bytes. Processor time is that of all threads of a process, and of all nodes.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

from _harness import alternate, folder, machine, run, small, table, turn

import perdure
from perdure import Event
from perdure.codec.codec import Codec
from perdure.model.ids import SessionKey
from perdure.wire import HEADER_WIRE, MSGPACK
from perdure.wire import records as wire
from tests.servers.node import Nodes
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import HOST, free_port

SESSIONS = 64
TURNS = 4 if small() else 100
ROUNDS = 1 if small() else 3
LEAST_A_SECOND, LEAST_RATIO, MOST_OF_ONE = 5_000, 0.35, 1.15

BARE = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from perdure.wire import records as wire
async def append(request):
    asked = wire.decode(wire.Append, await request.body())
    answer = wire.Appended(tuple(wire.Stored(2) for _ in asked.attempts))
    return Response(wire.encode(answer), media_type="application/msgpack", headers={"Perdure-Store": "x" * 32, "Perdure-Wire": "1"})
app = Starlette(routes=[Route("/v1/records/append", append, methods=["POST"])])
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False, http="httptools")
"""

PLAIN = """
import asyncio, sys, perdure
from perdure.cli.commands.serve import _run
from perdure.service import server
from perdure.service.node import Node
from perdure.service.options import ServeOptions
async def main():
    async with perdure.open("sqlite:///store.db") as store:
        await server.run(Node(store, ServeOptions(port=int(sys.argv[1]), drain_delay=0)))
_run(main())
"""

spent: dict[str, list[float]] = {}
"""Microseconds of processor time an append, of each process."""


def seconds_of(process: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def measured(name: str, count: int, *processes: int) -> Iterator[None]:
    """Note the processor time of this process and of others, for each of `count` appends."""
    mine, theirs = time.process_time(), sum(map(seconds_of, processes))
    yield
    spent.setdefault(f"{name}, client", []).append((time.process_time() - mine) / count * 1e6)
    spent.setdefault(f"{name}, server", []).append((sum(map(seconds_of, processes)) - theirs) / count * 1e6)


@contextmanager
def node(place: Path, count: int = 1, store: str = "") -> Iterator[Nodes]:
    """Nodes over a store, or a SQLite file in this folder."""
    server = Nodes(place, store, count=count)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def listening(place: Path, program: str) -> Iterator[tuple[int, int]]:
    """A program that listens on the port that it is given: its port and its process."""
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", program, str(port)], cwd=place) as process:
        try:
            asyncio.run(_listening(port))
            yield port, process.pid
        finally:
            process.terminate()


async def _listening(port: int) -> None:
    """Return when it listens."""
    while True:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


def batched(place: Path, name: str, count: int = 1, server: PostgreSQL | None = None) -> float:
    """Appends a second of one client with 64 sessions, through so many nodes on SQLite, or on this server."""

    async def session(store: perdure.Store, number: int, turns: int) -> None:
        for turned in range(turns):
            await store.append(f"s{number}", *[Event("message", message) for message in turn(turned)])

    async def all_sessions(store: perdure.Store, turns: int) -> float:
        start = time.perf_counter()
        await asyncio.gather(*[session(store, number, turns) for number in range(SESSIONS)])
        return SESSIONS * turns / (time.perf_counter() - start)

    async def measure(nodes: Nodes) -> float:
        async with perdure.open(nodes.url) as store:
            await all_sessions(store, 2)
            with measured(name, SESSIONS * TURNS, *[nodes.pid(each) for each in nodes.nodes]):
                return await all_sessions(store, TURNS)

    with node(place, count, "" if server is None else f"{server.url}?namespace=n{uuid4().hex[:12]}") as nodes:
        return asyncio.run(measure(nodes))


def requests_of(session: str) -> list[bytes]:
    """The requests of one session, each an append that follows the one before."""
    codec, key, head, made = Codec(), SessionKey("default", session), None, []
    for number in range(TURNS):
        id = f"{session:>8}{number:08d}".encode()
        record = codec.propose(key, [Event("message", message) for message in turn(number)], id=id).finish(head, time.time_ns())
        attempt = wire.Attempt(key, None if head is None else (head.version, head.hash), (record,), durability=2)
        body = wire.encode(wire.Append((attempt,)))
        lines = ("Host: localhost", f"Content-Type: {MSGPACK}", f"{HEADER_WIRE}: 1", f"Content-Length: {len(body)}", "", "")
        made.append("\r\n".join((f"POST {wire.APPEND} HTTP/1.1", *lines)).encode() + body)
        head = record.head
    return made


async def _send(port: int, requests: list[bytes]) -> None:
    reader, writer = await asyncio.open_connection(HOST, port)
    for request in requests:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        answer = wire.decode(wire.Appended, await reader.readexactly(length))
        assert all(isinstance(each, wire.Stored) for each in answer.answers), answer
    writer.close()


async def unbatched(port: int, requests: list[list[bytes]]) -> float:
    """Requests a second over one connection for each session."""
    start = time.perf_counter()
    await asyncio.gather(*[_send(port, each) for each in requests])
    return SESSIONS * TURNS / (time.perf_counter() - start)


def prepared() -> list[list[bytes]]:
    """The requests of all sessions."""
    return [requests_of(f"s{number}") for number in range(SESSIONS)]


def through_a_node(place: Path, name: str) -> float:
    """Unbatched appends a second."""
    requests = prepared()
    with node(place) as server, measured(name, SESSIONS * TURNS, server.pid("node0")):
        return asyncio.run(unbatched(server.port("node0"), requests))


def through_a_program(place: Path, name: str, program: str) -> float:
    """The same requests to what this program serves."""
    requests = prepared()
    with listening(place, program) as (port, process), measured(name, SESSIONS * TURNS, process):
        return asyncio.run(unbatched(port, requests))


def main() -> None:
    """All of it."""
    machine()
    systems: dict[str, Callable[..., float]] = {
        "batched, SQLite": batched,
        "unbatched, SQLite": through_a_node,
        "the same without metrics, log and limits": partial(through_a_program, program=PLAIN),
        "bare Starlette": partial(through_a_program, program=BARE),
    }
    with folder() as place:
        server = PostgreSQL(place)
        try:
            server.start()
            for count, words in ((1, "a node"), (2, "two nodes"), (3, "three nodes")):
                systems[f"batched, PostgreSQL, {words}"] = partial(batched, count=count, server=server)
            figures = alternate({name: partial(measure, name=name) for name, measure in systems.items()}, ROUNDS)
        finally:
            server.stop()
    show(figures)


def of_pairs(some: list[float], others: list[float]) -> float:
    """The median ratio of two figures of one round: what else the machine did then made both larger."""
    return statistics.median(one / other for one, other in zip(some, others, strict=True))


def show(figures: dict[str, float]) -> None:
    """Print the table."""
    sides = {side: {name: sorted(spent[f"{name}, {side}"])[ROUNDS // 2] for name in figures} for side in ("client", "server")}
    rows = [
        ("durable appends a second", "", "µs of processor time an append: client", "nodes"),
        *[(name, f"{figure:,.0f}", *[f"{sides[side][name]:,.0f}" for side in sides]) for name, figure in figures.items()],
    ]
    table("The session service", rows)
    nodes = {name: spent[f"{name}, server"] for name in figures}
    one, two, three = (nodes[f"batched, PostgreSQL, {count}"] for count in ("a node", "two nodes", "three nodes"))
    ratios = [
        ("", "", "reach"),
        ("batched, SQLite, appends a second", f"{figures['batched, SQLite']:,.0f}", f"≥ {LEAST_A_SECOND:,}"),
        ("unbatched / bare Starlette", f"{figures['unbatched, SQLite'] / figures['bare Starlette']:.2f} x", f"≥ {LEAST_RATIO}"),
        ("processor time: two nodes / one, PostgreSQL", f"{of_pairs(two, one):.2f} x", f"≤ {MOST_OF_ONE}"),
        ("processor time: three nodes / one, PostgreSQL", f"{of_pairs(three, one):.2f} x", ""),
        (
            "processor time: metrics, log and limits on / off",
            f"{of_pairs(nodes['unbatched, SQLite'], nodes['the same without metrics, log and limits']):.2f} x",
            "",
        ),
    ]
    table("In proportion", ratios)


if __name__ == "__main__":
    run(main)
