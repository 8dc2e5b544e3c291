"""Turns a second of 64 sessions at once on PostgreSQL: Perdure, a bare psycopg client that groups the same writes, LangGraph's saver.

The server is the tests' own, one node, every commit synced. A turn is one append of two messages of 400 bytes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import psycopg
from _harness import alternate, machine, run, served, small, turn, versus
from _turns import SESSIONS, Grouped, perdure_turns, together

from tests.servers.postgresql import PostgreSQL

TURNS = 3 if small() else 150
RIVAL_TURNS = 2 if small() else 15
ROUNDS = 1 if small() else 3


BARE = """
WITH a AS (
    SELECT * FROM unnest(%(id)s::text[], %(expected)s::bigint[], %(hash)b::bytea[], %(body)b::bytea[]) AS a (id, expected, hash, body)
), held AS (
    SELECT h.id FROM bare_head h JOIN a USING (id) WHERE h.version = a.expected ORDER BY h.id FOR UPDATE OF h
), moved AS (
    UPDATE bare_head h SET version = a.expected + 1, hash = a.hash FROM a JOIN held USING (id) WHERE h.id = a.id RETURNING h.id, h.version
), logged AS (
    INSERT INTO bare_log SELECT m.id, m.version, a.hash, a.body FROM moved m JOIN a USING (id)
)
SELECT id, version FROM moved
"""


class Bare(Grouped[tuple[str, int, bytes, bytes]]):
    """One table of heads and one of records, in one statement."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        super().__init__()
        self.connection = connection

    def write(self, id: str, expected: int, body: bytes) -> tuple[str, int, bytes, bytes]:
        return id, expected, bytes(32), body

    async def send(self, batch: Sequence[tuple[str, int, bytes, bytes]]) -> None:
        ids, expected, hashes, bodies = map(list, zip(*batch, strict=True))
        values = {"id": ids, "expected": expected, "hash": hashes, "body": bodies}
        cursor = await self.connection.execute(BARE, values, binary=True)
        assert len(await cursor.fetchall()) == len(batch)


async def bare_turns(server: PostgreSQL) -> float:
    """The bare client, on one connection."""
    async with await psycopg.AsyncConnection.connect(server.url, autocommit=True, prepare_threshold=1) as connection:
        await connection.execute("DROP TABLE IF EXISTS bare_head, bare_log")
        await connection.execute("CREATE TABLE bare_head (id text PRIMARY KEY, version bigint, hash bytea) WITH (fillfactor = 60)")
        await connection.execute("CREATE TABLE bare_log (id text, version bigint, hash bytea, body bytea, PRIMARY KEY (id, version))")
        await connection.execute(f"INSERT INTO bare_head SELECT 's' || n, 0, '' FROM generate_series(0, {SESSIONS - 1}) n")
        return await Bare(connection).turns(TURNS)


async def langgraph_turns(server: PostgreSQL) -> float:
    """LangGraph's saver on a pool of 16 connections, a checkpoint a turn."""
    from langgraph.checkpoint.base import empty_checkpoint
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from psycopg.rows import dict_row
    from psycopg_pool import AsyncConnectionPool

    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(server.url, min_size=16, max_size=16, kwargs=options, open=False) as pool:
        saver = AsyncPostgresSaver(pool)  # type: ignore[arg-type]
        await saver.setup()

        async def session(number: int, turns: int) -> None:
            config: Any = {"configurable": {"thread_id": f"{number}/{time.time_ns()}", "checkpoint_ns": ""}}
            messages: list[dict[str, str]] = []
            for count in range(turns):
                messages = [*messages, *turn(count)]
                checkpoint = empty_checkpoint() | {"id": f"{count:032d}", "channel_values": {"messages": messages}}
                checkpoint["channel_versions"] = {"messages": count + 1}
                config = await saver.aput(config, checkpoint, {"step": count}, {"messages": count + 1})  # type: ignore[arg-type]

        await together(session, 1)
        return await together(session, RIVAL_TURNS)


def main() -> None:
    """Print the table."""
    machine()
    systems = {
        "Perdure": served(PostgreSQL, lambda server: perdure_turns(server.url, TURNS)),
        "bare psycopg, grouped": served(PostgreSQL, bare_turns),
        "LangGraph AsyncPostgresSaver": served(PostgreSQL, langgraph_turns),
    }
    versus("PostgreSQL, 64 sessions at once", "turns/s", alternate(systems, ROUNDS))


if __name__ == "__main__":
    run(main)
