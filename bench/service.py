"""Durable appends a second through a node of the session service, SQLite after it: the client is one process, the node another.

batched    64 sessions at once through `perdure.open("http://…")`: what is ready goes in one request
unbatched  one append a request, over 64 raw connections that send prepared bytes, beside a bare Starlette route that parses the same
           requests and answers the same bytes, and stores nothing
A turn is one append of two messages of 400 bytes. Processor time is that of all threads of a process.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _harness import alternate, machine, run, small, table, turn

import perdure
from perdure import Event
from perdure.codec.codec import Codec
from perdure.model.ids import SessionKey
from perdure.wire import HEADER_WIRE, MSGPACK
from perdure.wire import records as wire
from tests.servers.node import Nodes
from tests.servers.process import HOST, free_port

SESSIONS = 64
TURNS = 4 if small() else 100
ROUNDS = 1 if small() else 3
LEAST_A_SECOND, LEAST_RATIO = 5_000, 0.35

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
def node(place: Path, count: int = 1) -> Iterator[Nodes]:
    """Nodes over a SQLite file in this folder."""
    server = Nodes(place, count=count)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def bare(place: Path) -> Iterator[tuple[int, int]]:
    """The bare route: its port and its process."""
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", BARE, str(port)], cwd=place, env={**os.environ, "PYTHONPATH": "src"}) as process:
        try:
            asyncio.run(_listening(port))
            yield port, process.pid
        finally:
            process.terminate()


async def _listening(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


def batched(place: Path, name: str = "batched", count: int = 1) -> float:
    """Appends a second of one client with 64 sessions, through so many nodes."""

    async def session(store: perdure.Store, number: int, turns: int) -> None:
        for turned in range(turns):
            await store.append(f"s{number}", *[Event("message", message) for message in turn(turned)])

    async def all_sessions(store: perdure.Store, turns: int) -> float:
        start = time.perf_counter()
        await asyncio.gather(*[session(store, number, turns) for number in range(SESSIONS)])
        return SESSIONS * turns / (time.perf_counter() - start)

    async def measure(server: Nodes) -> float:
        async with perdure.open(server.url) as store:
            await all_sessions(store, 2)
            with measured(name, SESSIONS * TURNS, *[server.pid(each) for each in server.nodes]):
                return await all_sessions(store, TURNS)

    with node(place, count) as server:
        return asyncio.run(measure(server))


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


def through_a_node(place: Path) -> float:
    """Unbatched appends a second."""
    requests = [requests_of(f"s{number}") for number in range(SESSIONS)]
    with node(place) as server, measured("unbatched", SESSIONS * TURNS, server.pid("node0")):
        return asyncio.run(unbatched(server.port("node0"), requests))


def through_bare_starlette(place: Path) -> float:
    """The same requests to the bare route."""
    requests = [requests_of(f"s{number}") for number in range(SESSIONS)]
    with bare(place) as (port, process), measured("bare Starlette", SESSIONS * TURNS, process):
        return asyncio.run(unbatched(port, requests))


def main() -> None:
    """All of it."""
    machine()
    systems: dict[str, Callable[[Path], Any]] = {
        "batched": batched,
        "batched, two nodes": lambda place: batched(place, "batched, two nodes", 2),
        "unbatched": through_a_node,
        "bare Starlette": through_bare_starlette,
    }
    figures = alternate(systems, ROUNDS)
    ratio = figures["unbatched"] / figures["bare Starlette"]
    reaches = (f"≥ {LEAST_A_SECOND:,}", "server ≤ 1.15 x one node's", f"≥ {LEAST_RATIO} x bare", "")
    rows = [
        ("durable appends a second, SQLite after a node", "", "µs of processor time: client", "server", "reach"),
        *[
            (name, f"{figure:,.0f}", *[f"{sorted(spent[f'{name}, {side}'])[ROUNDS // 2]:,.0f}" for side in ("client", "server")], reach)
            for (name, figure), reach in zip(figures.items(), reaches, strict=True)
        ],
        ("unbatched / bare Starlette", f"{ratio:.2f} x", "", "", f"≥ {LEAST_RATIO}"),
    ]
    table("The session service", rows)


if __name__ == "__main__":
    run(main)
