"""Connections to one server, and the one place where PostgreSQL's errors become ours.

Each statement is a transaction of its own and leaves nothing in its connection, so a pooler in transaction mode may stand between.
What would stay in a connection are prepared statements. With a pooler, where clients share connections and all number their
statements alike, one could run another's. So none are prepared there, unless the pooler is seen to keep each client's apart.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from perdure.errors import Closed, Error, Invalid, Unauthorized, Unavailable, Unknown, Unsupported

T = TypeVar("T")

_NOTHING_WRITTEN = ("40001", "40P01")
"""Serialization failure and deadlock: rolled back, may be sent again."""
TRIES = 4
"""How often a statement that met a deadlock is sent."""
_PREPARE_AFTER = 5
"""How often a statement is run before it is prepared."""
_PLAN_ONCE = "-c plan_cache_mode=force_generic_plan"
"""The statements are written so that one plan is good for all values: planning `append` each time would take as long as running it."""
_NO_STARTUP = "unsupported startup parameter"
_REFUSED = re.compile(
    r'authentication failed|no password supplied|no pg_hba.conf entry|pg_hba.conf rejects|role "[^"]*" (?:does not exist|is not permitted)'
    r"|permission denied for database"
)
"""What libpq says of a login that was refused; it gives no SQLSTATE while it connects."""
_CUT = ("08", "57")
"""Classes of errors with which a connection ends."""
_BAD_VALUE = ("22", "54")
"""Classes of errors of a value that the server cannot store: out of range, not to be encoded, too large."""


class Connections:
    """Opens connections as they are needed, keeps them, and throws away those that failed. Time-outs in seconds.

    `prepare`: whether statements are prepared on the server: `on`, `off`, or `auto`: unless a pooler is seen.
    """

    def __init__(self, conninfo: str, place: str, *, size: int, connect_timeout: float, timeout: float, prepare: str) -> None:
        self._conninfo, self.place = conninfo, place
        self._prepare, self._plan_once = prepare, prepare != "off"
        self.prepares = prepare != "off"
        """Whether statements are prepared."""
        self.pooled = False
        """Whether something stands between that gives a client's statements to connections of its own."""
        self._connect_timeout, self._timeout = connect_timeout, timeout
        self._idle: list[psycopg.AsyncConnection[Any]] = []
        self._open: set[psycopg.AsyncConnection[Any]] = set()
        self._room = asyncio.Semaphore(size)
        self._closed = False
        self.statements = 0
        """How many statements were sent: tests count round trips by it."""
        self.asides = 0
        """How many were sent beside them, for which nobody waits."""

    async def fetch(
        self, statement: str, values: Mapping[str, Any] | None = None, *, writes: bool = False, aside: bool = False
    ) -> list[tuple[Any, ...]]:
        """Run one statement and give its rows. Raises `Unknown` instead of `Unavailable` where a write was sent and not answered."""
        for attempt in range(TRIES):
            if aside:
                self.asides += 1
            else:
                self.statements += 1
            try:
                return await self._once_more(statement, values, writes=writes)
            except _RolledBackError as error:
                if attempt == TRIES - 1:
                    raise Unavailable(f"PostgreSQL at {self.place} rolled back {TRIES} times in a row: {error}.") from error
        raise AssertionError  # the loop returns or raises

    async def _once_more(self, statement: str, values: Mapping[str, Any] | None, *, writes: bool) -> list[tuple[Any, ...]]:
        """A read that met a connection which the server had closed meanwhile is sent again, on a new one."""
        if not writes:
            with suppress(_CutError):
                return await self._fetch(statement, values, writes=False, again=True)
        return await self._fetch(statement, values, writes=writes, again=False)

    async def _fetch(self, statement: str, values: Mapping[str, Any] | None, *, writes: bool, again: bool) -> list[tuple[Any, ...]]:
        """`again`: where a connection that was idle turns out to be cut, raise `_CutError`; otherwise that is an error as any other."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._room.acquire()
        except TimeoutError:
            raise Unavailable(f"All connections to PostgreSQL at {self.place} were in use for {self._timeout:g} s.") from None
        try:
            connection = await self._take() if writes or again else None
            waited = connection is not None
            connection = connection or await self._connect()
            work = asyncio.ensure_future(self._run(connection, statement, values))
            try:
                rows = await self._answer(work, Unknown if writes else Unavailable)
            except psycopg.Error as error:
                if again and waited and (not error.sqlstate or error.sqlstate[:2] in _CUT) and connection.closed:
                    raise _CutError from error
                raise self._mapped(error, sent=True, writes=writes) from error
            finally:
                await self._give_back(connection, work)
        finally:
            self._room.release()
        return rows

    async def _take(self) -> psycopg.AsyncConnection[Any] | None:
        """An idle connection that the server has not closed, as far as can be seen without asking it."""
        while self._idle:
            connection = self._idle.pop()
            if not _cut(connection):
                return connection
            self._open.discard(connection)
            await connection.close()
        return None

    async def _answer(self, work: asyncio.Future[T], late: type[Error]) -> T:
        done, _ = await asyncio.wait({work}, timeout=self._timeout)
        if not done:
            raise late(f"PostgreSQL at {self.place} did not answer within {self._timeout:g} s.")
        return work.result()

    async def _run(
        self, connection: psycopg.AsyncConnection[Any], statement: str, values: Mapping[str, Any] | None
    ) -> list[tuple[Any, ...]]:
        cursor = await connection.execute(statement, values, binary=True)
        return await cursor.fetchall() if cursor.description is not None else []

    async def _give_back(self, connection: psycopg.AsyncConnection[Any], work: asyncio.Future[Any]) -> None:
        sound = work.done() and not work.cancelled() and not connection.broken and not connection.closed
        if sound and connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE and not self._closed:
            self._idle.append(connection)
        else:
            await self._throw_away(connection, work)

    async def _throw_away(self, connection: psycopg.AsyncConnection[Any], work: asyncio.Future[Any]) -> None:
        self._open.discard(connection)
        await connection.close()  # At once: asking a server that hangs to cancel would take as long again.
        work.cancel()
        work.add_done_callback(_seen)

    async def listen(self, statements: Iterable[str], alive_every: float) -> AsyncGenerator[str | None, None]:
        """What the server notifies, on a connection beside the pool that is closed with this: first `None`, when these statements were run.

        After so many seconds without news the server is asked whether it is still there. Raises what `fetch` raises.
        """
        connection = await self._connect()
        work: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            for statement in statements:
                work = asyncio.ensure_future(connection.execute(statement))
                await self._answer(work, Unavailable)
            yield None
            while True:
                async with aclosing(connection.notifies(timeout=alive_every)) as notifies:
                    async for notify in notifies:
                        yield notify.payload
                work = asyncio.ensure_future(connection.execute("SELECT 1"))
                await self._answer(work, Unavailable)
        except psycopg.Error as error:
            raise self._mapped(error, sent=True, writes=False) from error
        finally:
            await self._throw_away(connection, work)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Callable[[str], Awaitable[list[tuple[Any, ...]]]], None]:
        """One transaction of several statements, on a connection beside the pool, and without a time-out. Raises what `fetch` raises."""
        connection = await self._connect()

        async def run(statement: str) -> list[tuple[Any, ...]]:
            return await self._run(connection, statement, None)

        try:
            async with connection.transaction():
                yield run
        except psycopg.Error as error:
            mapped = self._mapped(error, sent=True, writes=True)
            raise Unavailable(f"{mapped}.") if isinstance(mapped, _RolledBackError) else mapped from error
        finally:
            self._open.discard(connection)
            await connection.close()

    async def look(self) -> None:
        """See whether a pooler stands between, and settle with it what is prepared. Before all else, once. Raises `Unsupported` too.

        A pooler makes up the process id that it gives its clients, or drops what they say of themselves at the start.
        """
        ((pid, planned, encoding),) = await self.fetch(
            "SELECT pg_backend_pid(), current_setting('plan_cache_mode'), current_setting('server_encoding')"
        )
        if encoding != "UTF8":
            raise Unsupported(
                f"The database of {self.place} has the encoding {encoding}, which does not hold every text: make one with CREATE DATABASE …"
                " ENCODING 'UTF8' TEMPLATE template0, and name it in the URL."
            )
        connection = self._idle.pop()
        self.pooled = self.pooled or pid != connection.info.backend_pid or (self._plan_once and planned != "force_generic_plan")
        self.prepares = self._prepare == "on" or (self._prepare == "auto" and not self.pooled)
        connection.prepare_threshold = _PREPARE_AFTER if self.prepares else None
        work = asyncio.ensure_future(_keeps_apart(connection) if self.pooled and self.prepares else asyncio.sleep(0, result=True))
        try:
            await asyncio.wait({work}, timeout=self._timeout)
            if not (work.done() and work.result()):
                raise Unsupported(
                    f"PostgreSQL at {self.place} is behind a pooler that does not keep its clients' prepared statements apart:"
                    " take prepare=on out of the URL, or let the pooler track them (PgBouncer 1.21 and newer: max_prepared_statements)."
                )
        finally:
            await self._give_back(connection, work)

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        if self._closed:
            raise Closed
        try:
            async with asyncio.timeout(self._connect_timeout):
                try:
                    connection = await self._dial()
                except psycopg.OperationalError as error:
                    if not self._plan_once or _NO_STARTUP not in str(error):
                        raise
                    self._plan_once, self.pooled = False, True
                    self.prepares = self._prepare == "on"
                    connection = await self._dial()
        except TimeoutError as error:
            raise Unavailable(f"PostgreSQL at {self.place} did not take the connection within {self._connect_timeout:g} s.") from error
        except psycopg.Error as error:
            raise self._mapped(error, sent=False, writes=False) from error
        self._open.add(connection)
        return connection

    async def _dial(self) -> psycopg.AsyncConnection[Any]:
        conninfo = make_conninfo(self._conninfo, client_encoding="UTF8")
        if self._plan_once:
            given = conninfo_to_dict(conninfo).get("options", "")
            conninfo = make_conninfo(conninfo, options=f"{_PLAN_ONCE} {given}".strip())
        return await psycopg.AsyncConnection.connect(
            conninfo,
            autocommit=True,
            prepare_threshold=_PREPARE_AFTER if self.prepares else None,
            connect_timeout=int(self._connect_timeout) + 1,
        )

    def _mapped(self, error: psycopg.Error, *, sent: bool, writes: bool) -> Error | _RolledBackError:
        state, text = error.sqlstate or "", " ".join(str(error).split())
        said = f"PostgreSQL at {self.place}: {text}"
        if state in _NOTHING_WRITTEN:
            return _RolledBackError(text)
        if state[:2] == "28" or state == "42501" or (not sent and _REFUSED.search(text)):
            return Unauthorized(f"{said}.")
        if state == "3D000" or (not sent and 'database "' in text and "does not exist" in text):
            return Invalid(f"{said}. Create it with CREATE DATABASE, or name another in the URL.", missing="database")
        if not sent and _NO_STARTUP in text:
            return Invalid(
                f"{said}. A pooler stands between: take it out of the URL, or name it in the pooler's ignore_startup_parameters."
            )
        if state == "25006":
            return Unsupported(f"{said}. This is a replica that takes no writes: name the primary, or add target_session_attrs=read-write.")
        if state[:2] in _BAD_VALUE or isinstance(error, psycopg.DataError):
            return Invalid(f"{said}. PostgreSQL cannot store it, and nothing was written.")
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


async def _keeps_apart(connection: psycopg.AsyncConnection[Any]) -> bool:
    """Whether a pooler prepares our statements under names of its own."""
    try:
        async with connection.transaction():
            cursor = await connection.execute("SELECT name FROM pg_prepared_statements", prepare=True)
            names = {name for (name,) in await cursor.fetchall()}
    except psycopg.Error:
        return False  # Another client's statement has the name, or the pooler has no place for any.
    return bool(names) and not any(name.startswith("_pg3_") for name in names)


def _cut(connection: psycopg.AsyncConnection[Any]) -> bool:
    """Whether the end of a connection has arrived. The first look takes what the server said before it ended."""
    try:
        connection.pgconn.consume_input()
        connection.pgconn.consume_input()
    except psycopg.Error:
        return True
    return connection.closed


class _CutError(Exception):
    """A connection that had been idle was cut when a read was sent on it."""


class _RolledBackError(Exception):
    """The transaction was rolled back for others' sake; nothing was written."""


def _seen(work: asyncio.Future[Any]) -> None:
    with suppress(asyncio.CancelledError):
        work.exception()
