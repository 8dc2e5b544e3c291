"""Turns a second of 64 sessions at once on MongoDB: Perdure, and a bare pymongo client that groups the same writes in bulk.

The server is the tests' own, a replica set of one node and of three; every write journaled on a majority. A turn is one append of two
messages of 400 bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from _harness import alternate, machine, run, small, table, turn
from pymongo import AsyncMongoClient, UpdateOne, WriteConcern

import perdure
from perdure import Event
from tests.servers.mongodb import MongoDB, MongoDBSet

SESSIONS = 64
TURNS = 3 if small() else 150
ROUNDS = 1 if small() else 5
PAGE = 16


async def together(session: Callable[[int, int], Awaitable[None]], turns: int) -> float:
    """Turns a second of all sessions."""
    start = time.perf_counter()
    await asyncio.gather(*[session(number, turns) for number in range(SESSIONS)])
    return SESSIONS * turns / (time.perf_counter() - start)


async def perdure_turns(url: str) -> float:
    """Ours, through the public API."""
    async with perdure.open(url) as store:

        async def session(number: int, turns: int) -> None:
            for count in range(turns):
                await store.append(f"s{number}", *[Event("message", message) for message in turn(count)])

        await together(session, 2)
        return await together(session, TURNS)


class Bare:
    """A client of one collection of heads, each with a tail of up to 16 records, and of one of older records: what waits goes together in
    one bulk of updates, each under its head's condition. A tail that is full is inserted there first, and then begun again."""

    def __init__(self, client: AsyncMongoClient[dict[str, Any]]) -> None:
        concern = WriteConcern(w="majority", j=True)
        self.heads = client["bare"].get_collection("heads", write_concern=concern)
        self.log = client["bare"].get_collection("log", write_concern=concern)
        self.waiting: list[tuple[str, int, bytes, asyncio.Future[None]]] = []
        self.flushing: asyncio.Task[None] | None = None
        self.tails: dict[str, list[bytes]] = {}

    async def append(self, id: str, expected: int, messages: list[dict[str, str]]) -> None:
        """Store one turn after the version expected."""
        done = asyncio.get_running_loop().create_future()
        self.waiting.append((id, expected, msgspec.json.encode(messages), done))
        if self.flushing is None:
            self.flushing = asyncio.create_task(self.flush())
        await done

    async def flush(self) -> None:
        """Send what waits until nothing does."""
        while self.waiting:
            batch, self.waiting = self.waiting, []
            updates, pages = [], []
            for id, expected, body, _ in batch:
                tail = self.tails.setdefault(id, [])
                head = {"version": expected + 1, "hash": bytes(32)}
                change: dict[str, Any] = {"$set": head, "$push": {"tail": body}}
                if len(tail) == PAGE:
                    pages.append({"_id": f"{id}/{expected}", "records": tail})
                    tail = self.tails[id] = []
                    change = {"$set": {**head, "tail": [body]}}
                tail.append(body)
                updates.append(UpdateOne({"_id": id, "version": expected, "hash": bytes(32)}, change))
            if pages:
                await self.log.insert_many(pages, ordered=False)
            result = await self.heads.bulk_write(updates, ordered=False)
            assert result.matched_count == len(batch)
            for *_, future in batch:
                future.set_result(None)
        self.flushing = None


async def bare_turns(url: str) -> float:
    """The bare client."""
    async with AsyncMongoClient[dict[str, Any]](url, retryWrites=False) as mongo:
        client, done = Bare(mongo), [0] * SESSIONS
        await client.heads.insert_many([{"_id": f"s{number}", "version": 0, "hash": bytes(32)} for number in range(SESSIONS)])

        async def session(number: int, turns: int) -> None:
            for count in range(turns):
                await client.append(f"s{number}", done[number], turn(count))
                done[number] += 1

        await together(session, 2)
        return await together(session, TURNS)


SYSTEMS = {"Perdure": perdure_turns, "bare pymongo, grouped": bare_turns}


def main() -> None:
    """Print a table for each kind of server."""
    machine()
    for title, kind in {"one node": MongoDB, "three nodes": MongoDBSet}.items():

        def measured(name: str, kind: type[MongoDB] = kind) -> Callable[[Path], float]:
            def measure(place: Path) -> float:
                server = kind(place)
                server.start()
                try:
                    return asyncio.run(SYSTEMS[name](server.url))
                finally:
                    server.stop()

            return measure

        figures = alternate({name: measured(name) for name in SYSTEMS}, ROUNDS)
        mine = figures["Perdure"]
        rows = [(name, f"{figure:,.0f}", f"{mine / figure:.2f} x") for name, figure in figures.items()]
        table(f"MongoDB, {title}, 64 sessions at once", [("turns/s", "", "Perdure is"), *rows])


if __name__ == "__main__":
    run(main)
