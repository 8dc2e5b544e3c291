"""PostgreSQL: a row a commit, a row for each head, one statement for a batch of sessions.

Condition   the statement that inserts compares the head rows, which it locks in one order; a deadlock with others is sent again
Durability  local: synchronous_commit as the server has it, at least `local`; quorum: with synchronous standbys; fsync off: buffered
Feed        by transaction id, below the oldest that still runs, so nothing that commits late is passed over
Pooler      seen at `open` (`connections.Connections.look`): statements are then not prepared, and nothing else needs a session
Errors      `connections.Connections`, once: a connection lost after a write was sent is `Unknown`
"""

from __future__ import annotations

from typing import Any

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from perdure.backends.postgresql.connections import Connections
from perdure.backends.postgresql.driver import PostgreSQLDriver
from perdure.backends.remote import RemoteBackend, open_remote, parse_address
from perdure.backends.remote.urls import count, name, one_of, seconds
from perdure.clock import Clock
from perdure.errors import Invalid

_OPTIONS: dict[str, tuple[Any, Any]] = {
    "namespace": ("perdure", name),
    "connect_timeout": (5.0, seconds),
    "timeout": (10.0, seconds),
    "pool": (4, count(2, 256)),
    "prepare": ("auto", one_of("auto", "on", "off")),
}


async def open(url: str, *, clock: Clock, create: bool = True) -> RemoteBackend:
    """Open `postgresql://user:password@host:port/database?option=value`. libpq's own options (`sslmode` …) are taken too.

    Without `create` nothing is made. Raises `Invalid`, `NotFound`, `Unauthorized`, `Unavailable`, `Unsupported`, `Corrupt`.
    """
    address = parse_address(url, _OPTIONS, foreign={known.keyword.decode() for known in Conninfo.get_defaults()}, hostless=True)
    options = address.options
    if options["namespace"].lower().startswith("pg_") or options["namespace"].lower() == "information_schema":
        raise Invalid(f"{address.place!r}: schemas named pg_… and information_schema are PostgreSQL's own: choose another namespace.")
    conninfo = address.url("postgresql")
    try:
        conninfo_to_dict(conninfo)
    except ProgrammingError as error:
        raise Invalid(f"{address.place!r}: {address.secrets.clean(' '.join(str(error).split()))}.") from None

    async def connect() -> PostgreSQLDriver:
        connections = Connections(
            conninfo,
            address.place,
            size=options["pool"],
            connect_timeout=options["connect_timeout"],
            timeout=options["timeout"],
            prepare=options["prepare"],
        )
        driver = PostgreSQLDriver(connections, options["namespace"])
        try:
            await driver.start(clock, create=create)
        except BaseException:
            await connections.close()
            raise
        return driver

    # libpq reads and writes its sockets itself: of a loop psycopg asks only to be called when one is ready.
    return await open_remote(connect, place=address.place, secrets=address.secrets, timeout=options["timeout"], any_loop=True)
