"""Connections to one server, and the one place where PostgreSQL's errors become ours.

Each statement is a transaction of its own and leaves nothing behind in its connection, so a pooler in transaction mode may stand between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psycopg

from perdure.errors import Closed, Error, Invalid, Unauthorized, Unavailable, Unknown, Unsupported

_NOTHING_WRITTEN = ("40001", "40P01")
"""Serialization failure and deadlock: rolled back, may be sent again."""
TRIES = 4
"""How often a statement that met a deadlock is sent."""


class Connections:
    """Opens connections as they are needed, keeps them, and throws away those that failed. Time-outs in seconds.

    `prepare`: whether statements are prepared on the server, which a pooler in transaction mode may not allow.
    """

    def __init__(self, conninfo: str, place: str, *, size: int, connect_timeout: float, timeout: float, prepare: bool) -> None:
        self._conninfo, self._place, self._prepare = conninfo, place, prepare
        self._connect_timeout, self._timeout = connect_timeout, timeout
        self._idle: list[psycopg.AsyncConnection[Any]] = []
        self._open: set[psycopg.AsyncConnection[Any]] = set()
        self._room = asyncio.Semaphore(size)
        self._closed = False
        self.statements = 0
        """How many statements were sent, for whoever counts round trips."""

    async def fetch(self, statement: str, values: Mapping[str, Any] | None = None, *, writes: bool = False) -> list[tuple[Any, ...]]:
        """Run one statement and give its rows. Raises `Unknown` instead of `Unavailable` where a write was sent and not answered."""
        for attempt in range(TRIES):
            try:
                return await self._fetch(statement, values, writes=writes)
            except _RolledBackError as error:
                if attempt == TRIES - 1:
                    raise Unavailable(f"PostgreSQL at {self._place} rolled back {TRIES} times in a row: {error}.") from error
        raise AssertionError  # the loop returns or raises

    async def _fetch(self, statement: str, values: Mapping[str, Any] | None, *, writes: bool) -> list[tuple[Any, ...]]:
        try:
            async with asyncio.timeout(self._timeout):
                await self._room.acquire()
        except TimeoutError:
            raise Unavailable(f"All connections to PostgreSQL at {self._place} were in use for {self._timeout:g} s.") from None
        try:
            connection = self._idle.pop() if self._idle else await self._connect()
            work = asyncio.ensure_future(self._run(connection, statement, values))
            try:
                done, _ = await asyncio.wait({work}, timeout=self._timeout)
                if not done:
                    lost = Unknown if writes else Unavailable
                    raise lost(f"PostgreSQL at {self._place} did not answer within {self._timeout:g} s.")
                rows = work.result()
            except psycopg.Error as error:
                raise self._mapped(error, sent=True, writes=writes) from error
            finally:
                await self._give_back(connection, work)
        finally:
            self._room.release()
        return rows

    async def _run(
        self, connection: psycopg.AsyncConnection[Any], statement: str, values: Mapping[str, Any] | None
    ) -> list[tuple[Any, ...]]:
        self.statements += 1
        cursor = await connection.execute(statement, values, binary=True)
        return await cursor.fetchall() if cursor.description is not None else []

    async def _give_back(self, connection: psycopg.AsyncConnection[Any], work: asyncio.Future[Any]) -> None:
        sound = work.done() and not work.cancelled() and not connection.broken and not connection.closed
        if sound and connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE and not self._closed:
            self._idle.append(connection)
            return
        self._open.discard(connection)
        await connection.close()  # At once: asking a server that hangs to cancel would take as long again.
        work.cancel()
        work.add_done_callback(_seen)

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        if self._closed:
            raise Closed
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await psycopg.AsyncConnection.connect(
                    self._conninfo,
                    autocommit=True,
                    prepare_threshold=5 if self._prepare else None,
                    connect_timeout=int(self._connect_timeout) + 1,
                )
        except TimeoutError as error:
            raise Unavailable(f"PostgreSQL at {self._place} did not take the connection within {self._connect_timeout:g} s.") from error
        except psycopg.Error as error:
            raise self._mapped(error, sent=False, writes=False) from error
        self._open.add(connection)
        return connection

    def _mapped(self, error: psycopg.Error, *, sent: bool, writes: bool) -> Error | _RolledBackError:
        state, text = error.sqlstate or "", " ".join(str(error).split())
        said = f"PostgreSQL at {self._place}: {text}"
        if state in _NOTHING_WRITTEN:
            return _RolledBackError(text)
        if state[:2] == "28" or state == "42501" or (not sent and "authentication failed" in text):
            return Unauthorized(f"{said}.")
        if state == "3D000" or (not sent and 'database "' in text and "does not exist" in text):
            return Invalid(f"{said}. Create it with CREATE DATABASE, or name another in the URL.")
        if state == "25006":
            return Unsupported(f"{said}. This is a replica that takes no writes: name the primary, or add target_session_attrs=read-write.")
        if sent and writes and (not state or state[:2] in ("08", "57")):
            return Unknown(f"{said}. The connection was lost before the answer came.")
        if state[:2] == "42":
            return Unavailable(f"{said}. A table of Perdure was changed or dropped by hand: restore it.")
        return Unavailable(f"{said}.")

    async def close(self) -> None:
        """Close what is idle now and the rest when it comes back."""
        self._closed = True
        for connection in self._open:
            await connection.close()
        self._idle.clear()
        self._open.clear()


class _RolledBackError(Exception):
    """The transaction was rolled back for others' sake; nothing was written."""


def _seen(work: asyncio.Future[Any]) -> None:
    with suppress(asyncio.CancelledError):
        work.exception()
