"""Turns a second of 64 sessions at once on PostgreSQL: Perdure, a bare psycopg client that groups the same writes, LangGraph's saver.

The server is the tests' own, one node, every commit synced. A turn is one append of two messages of 400 bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from _harness import alternate, machine, run, small, table, turn

import perdure
from perdure import Event
from tests.servers.postgresql import PostgreSQL

SESSIONS = 64
TURNS = 3 if small() else 150
RIVAL_TURNS = 2 if small() else 15
ROUNDS = 1 if small() else 3


async def perdure_turns(url: str, _: int) -> float:
    """Ours, through the public API."""
    async with perdure.open(url) as store:

        async def session(number: int, turns: int) -> None:
            for count in range(turns):
                await store.append(f"s{number}", *[Event("message", message) for message in turn(count)])

        await together(session, 2)
        return await together(session, TURNS)


async def together(session: Callable[[int, int], Awaitable[None]], turns: int) -> float:
    """Turns a second of all sessions."""
    start = time.perf_counter()
    await asyncio.gather(*[session(number, turns) for number in range(SESSIONS)])
    return SESSIONS * turns / (time.perf_counter() - start)


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


class Bare:
    """A client of one table of heads and one of records: what waits goes together in one statement."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection
        self.waiting: list[tuple[str, int, bytes, bytes, asyncio.Future[None]]] = []
        self.flushing: asyncio.Task[None] | None = None

    async def append(self, id: str, expected: int, messages: list[dict[str, str]]) -> None:
        """Store one turn after the version expected."""
        done = asyncio.get_running_loop().create_future()
        self.waiting.append((id, expected, bytes(32), msgspec.json.encode(messages), done))
        if self.flushing is None:
            self.flushing = asyncio.create_task(self.flush())
        await done

    async def flush(self) -> None:
        """Send what waits until nothing does."""
        while self.waiting:
            batch, self.waiting = self.waiting, []
            ids, expected, hashes, bodies, futures = map(list, zip(*batch, strict=True))
            values = {"id": ids, "expected": expected, "hash": hashes, "body": bodies}
            cursor = await self.connection.execute(BARE, values, binary=True)
            assert len(await cursor.fetchall()) == len(batch)
            for future in futures:
                future.set_result(None)
        self.flushing = None


async def bare_turns(url: str, _: int) -> float:
    """The bare client."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=1) as connection:
        await connection.execute("DROP TABLE IF EXISTS bare_head, bare_log")
        await connection.execute("CREATE TABLE bare_head (id text PRIMARY KEY, version bigint, hash bytea) WITH (fillfactor = 60)")
        await connection.execute("CREATE TABLE bare_log (id text, version bigint, hash bytea, body bytea, PRIMARY KEY (id, version))")
        await connection.execute(f"INSERT INTO bare_head SELECT 's' || n, 0, '' FROM generate_series(0, {SESSIONS - 1}) n")
        client, done = Bare(connection), [0] * SESSIONS

        async def session(number: int, turns: int) -> None:
            for count in range(turns):
                await client.append(f"s{number}", done[number], turn(count))
                done[number] += 1

        await together(session, 2)
        return await together(session, TURNS)


async def langgraph_turns(url: str, _: int) -> float:
    """LangGraph's saver on a pool of 16 connections, a checkpoint a turn."""
    from langgraph.checkpoint.base import empty_checkpoint
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from psycopg.rows import dict_row
    from psycopg_pool import AsyncConnectionPool

    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(url, min_size=16, max_size=16, kwargs=options, open=False) as pool:
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


SYSTEMS = {"Perdure": perdure_turns, "bare psycopg, grouped": bare_turns, "LangGraph AsyncPostgresSaver": langgraph_turns}


def main() -> None:
    """Print the table."""
    machine()

    def measured(name: str) -> Callable[[Path], float]:
        def measure(place: Path) -> float:
            server = PostgreSQL(place)
            server.start()
            try:
                return asyncio.run(SYSTEMS[name](server.url, 0))
            finally:
                server.stop()

        return measure

    figures = alternate({name: measured(name) for name in SYSTEMS}, ROUNDS)
    mine = figures["Perdure"]
    rows = [(name, f"{figure:,.0f}", f"{mine / figure:.2f} x") for name, figure in figures.items()]
    table("PostgreSQL, 64 sessions at once", [("turns/s", "", "Perdure is"), *rows])


if __name__ == "__main__":
    run(main)
