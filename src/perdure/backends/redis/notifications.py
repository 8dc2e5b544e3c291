"""Notifications from Redis: each shard's feed is a stream, and a read of a stream can wait for its next entry. Appends do nothing for it.

One connection waits at all shards, in a Cluster, where a read touches one slot only, one at each. They are the listener's own: none of
those that other requests share ever waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from redis import exceptions as redis
from redis.asyncio import Connection

from perdure.backends.redis.connections import PAUSES, Connections, Words
from perdure.backends.redis.layout import session_of
from perdure.backends.remote import Notice, cancel_and_wait, gather_all
from perdure.errors import Corrupt, Error

ENTRIES = 1000
"""Most entries of one stream in one answer."""
_Queue = asyncio.Queue[Sequence[Notice] | Error]


async def notices(connections: Connections, streams: Sequence[str]) -> AsyncGenerator[Notice, None]:
    """See `remote.NotificationSource`."""
    await connections.locate()
    last = await connections.each([(stream, ("XREVRANGE", stream, "+", "-", "COUNT", 1)) for stream in streams])
    places = {stream: entries[0][0] if entries else b"0-0" for stream, entries in zip(streams, last, strict=True)}
    groups = [[stream] for stream in streams] if connections.route.clustered else [list(streams)]
    waiters = [_Waiter(connections, {stream: places[stream] for stream in group}) for group in groups]
    queue: _Queue = asyncio.Queue(1)
    tasks: list[asyncio.Task[None]] = []
    try:
        await gather_all(*[waiter.start() for waiter in waiters])
        tasks += [asyncio.create_task(waiter.run(queue)) for waiter in waiters]
        yield None, 0
        while True:
            found = await queue.get()
            if isinstance(found, Error):
                raise found
            for notice in found:
                yield notice
    finally:
        await cancel_and_wait(*tasks)
        for waiter in waiters:
            await waiter.close()


class _Waiter:
    """Waits at streams that lie on one node; goes after them when their slot moves, and misses nothing on the way."""

    def __init__(self, connections: Connections, places: Mapping[str, bytes]) -> None:
        """`places`: the entry of each stream that was read last."""
        self._connections, self._places = connections, dict(places)
        self._pool = connections.route.pool_of(next(iter(places)))
        self._connection: Connection | None = None
        self._asking = False

    async def start(self) -> None:
        """Connect, and read once without waiting: what is not allowed is refused here."""
        await self._read()

    async def run(self, queue: _Queue) -> None:
        """Put what comes, and in the end the error that ended it."""
        patience = int(self._connections.timeout * 500)  # Milliseconds: a server that is not heard of for twice as long is gone.
        try:
            while True:
                if found := await self._read("BLOCK", patience):
                    await queue.put(found)
        except Error as error:
            await queue.put(error)

    async def _read(self, *wait: str | int) -> list[Notice]:
        while True:
            words = ("XREAD", *wait, "COUNT", ENTRIES, "STREAMS", *self._places, *self._places.values())
            try:
                return self._noted(await self._ask(words))
            except redis.AskError as redirect:
                await self.close()
                self._asking = not isinstance(redirect, redis.MovedError)
                self._pool = self._connections.route.pool_at(self._pool, redirect.host, redirect.port)
                await asyncio.sleep(PAUSES[-1])  # While a slot is handed over, two nodes may each name the other one.
            except (redis.RedisError, OSError, TimeoutError) as error:
                raise self._connections.mapped(error, unsure=False) from error

    async def _ask(self, words: Words) -> Any:
        if self._connection is None:
            self._connection = await self._pool.get_connection()
        if self._asking:  # The slot is not the node's yet.
            await self._connection.send_command("ASKING")
            await self._connection.read_response()
        await self._connection.send_command(*words)
        return await self._connection.read_response()

    def _noted(self, answer: Any) -> list[Notice]:
        """The newest version of each session in an answer of XREAD."""
        newest: dict[bytes, int] = {}
        try:
            for stream, entries in answer or ():
                for place, (_, name, _, version) in entries:
                    newest[name] = int(version)
                    self._places[stream.decode()] = place
            return [(session_of(name), version) for name, version in newest.items()]
        except (TypeError, ValueError) as error:
            raise Corrupt(f"A feed in Redis was changed by hand: {error}.") from error

    async def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)
