"""Turns a second of 64 sessions at once on etcd: Perdure, and a bare HTTP client that makes the same conditional write in a loop.

The server is one member, which syncs its log before it answers. A turn is one append of two messages of 400 bytes. The bare client sends a
transaction that compares the session's head and puts head and record, and nothing else: one request a turn, over as many connections as
Perdure has; etcd syncs for all that wait. Perdure's requests carry up to 64 sessions each.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from itertools import count
from typing import Any

import httpx
import msgspec
from _harness import alternate, folder, machine, run, small, turn, versus
from _turns import SESSIONS, perdure_turns, together

from tests.servers.etcd import Etcd

CONNECTIONS = 8
TURNS = 2 if small() else 40
ROUNDS = 1 if small() else 5

rounds = count()


def _text(value: bytes) -> str:
    return b64encode(value).decode()


async def bare_turns(server: Etcd) -> float:
    """The bare client."""
    name, heads = f"bare{next(rounds)}", [b""] * SESSIONS
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    async with httpx.AsyncClient(base_url=server.client(server.names[0]), limits=limits, timeout=30) as client:

        async def session(number: int, turns: int) -> None:
            place = f"{name}/{number}"
            for turned in range(turns):
                old, new = heads[number], b"%096d" % turned
                key = _text(f"{place}/head".encode())
                seen: dict[str, Any] = {"target": "VALUE", "value": _text(old)} if old else {"target": "VERSION", "version": "0"}
                puts = [(key, new), (_text(f"{place}/{turned}".encode()), msgspec.json.encode(turn(turned)))]
                body = {
                    "compare": [{"key": key, "result": "EQUAL"} | seen],
                    "success": [{"request_put": {"key": where, "value": _text(what)}} for where, what in puts],
                }
                answer = await client.post("/v3/kv/txn", content=msgspec.json.encode(body))
                assert answer.json()["succeeded"]
                heads[number] = new

        await together(session, 2)
        heads[:], name = [b""] * SESSIONS, f"bare{next(rounds)}"
        return await together(session, TURNS)


def main() -> None:
    """Print the table."""
    machine()
    with folder() as place:
        server = Etcd(place.absolute() / "server")
        server.start()
        try:
            systems = {
                "Perdure": lambda _: asyncio.run(perdure_turns(f"{server.url}?namespace=n{next(rounds)}&pool={CONNECTIONS}", TURNS)),
                "bare httpx, a conditional transaction": lambda _: asyncio.run(bare_turns(server)),
            }
            versus("etcd, one member, 64 sessions at once", "turns/s", alternate(systems, ROUNDS))
        finally:
            server.stop()


if __name__ == "__main__":
    run(main)
