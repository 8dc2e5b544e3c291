"""Turns a second of 64 sessions at once on MongoDB: Perdure, and a bare pymongo client that groups the same writes in bulk.

The server is the tests' own, a replica set of one node and of three; every write journaled on a majority. A turn is one append of two
messages of 400 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from _harness import alternate, machine, run, served, small, versus
from _turns import SESSIONS, Grouped, perdure_turns
from pymongo import AsyncMongoClient, UpdateOne, WriteConcern

from tests.servers.mongodb import MongoDB, MongoDBSet

TURNS = 3 if small() else 150
ROUNDS = 1 if small() else 5
PAGE = 16


class Bare(Grouped[tuple[str, int, bytes]]):
    """A client of one collection of heads, each with a tail of up to 16 records, and of one of older records: what waits goes together in
    one bulk of updates, each under its head's condition. A tail that is full is inserted there first, and then begun again."""

    def __init__(self, client: AsyncMongoClient[dict[str, Any]]) -> None:
        super().__init__()
        concern = WriteConcern(w="majority", j=True)
        self.heads = client["bare"].get_collection("heads", write_concern=concern)
        self.log = client["bare"].get_collection("log", write_concern=concern)
        self.tails: dict[str, list[bytes]] = {}

    def write(self, id: str, expected: int, body: bytes) -> tuple[str, int, bytes]:
        return id, expected, body

    async def send(self, batch: Sequence[tuple[str, int, bytes]]) -> None:
        updates, pages = [], []
        for id, expected, body in batch:
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


async def bare_turns(server: MongoDB | MongoDBSet) -> float:
    """The bare client."""
    async with AsyncMongoClient[dict[str, Any]](server.url, retryWrites=False) as mongo:
        client = Bare(mongo)
        await client.heads.insert_many([{"_id": f"s{number}", "version": 0, "hash": bytes(32)} for number in range(SESSIONS)])
        return await client.turns(TURNS)


def main() -> None:
    """Print a table for each kind of server."""
    machine()
    kinds: dict[str, type[MongoDB | MongoDBSet]] = {"one node": MongoDB, "three nodes": MongoDBSet}
    for title, kind in kinds.items():
        systems = {
            "Perdure": served(kind, lambda server: perdure_turns(server.url, TURNS)),
            "bare pymongo, grouped": served(kind, bare_turns),
        }
        versus(f"MongoDB, {title}, 64 sessions at once", "turns/s", alternate(systems, ROUNDS))


if __name__ == "__main__":
    run(main)
