"""PostgreSQL: the statements that `pg_dump` gives for the schema, and its tables' rows as COPY gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.servers.postgresql import PostgreSQL
from tests.support.golden.places import Dump, fresh

XID_FIRST = 3
"""The first number of an ordinary transaction."""


class PostgreSQLSchema:
    """A schema of the database. Numbers of transactions are kept by their order alone, as the lowest there can be: those of another
    server lie in this one's future, where the feed would not look."""

    def __init__(self, server: PostgreSQL, _: Path) -> None:
        self._namespace = fresh()
        self._server = server
        self.url = f"{server.url}?namespace={self._namespace}"

    def dump(self) -> Dump:
        """See `Place`."""
        place = f"host={self._server.host('primary')} port={self._server.port('primary')} user=postgres dbname=postgres"
        script = self._server.run("pg_dump", "--schema-only", "--no-owner", f"--schema={self._namespace}", "-d", place)
        lines = [line for line in script.splitlines() if line and not line.startswith(("--", "\\"))]
        with psycopg.connect(self._server.url, autocommit=True) as connection:
            rows = {table: self._copied(connection, table) for table in self._tables(connection)}
        return {"schema": "\n".join(lines).replace(self._namespace, "{ns}"), "rows": rows}

    def _tables(self, connection: psycopg.Connection[Any]) -> list[str]:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", [self._namespace])
        return [table for (table,) in found]

    def _columns(self, connection: psycopg.Connection[Any], table: str) -> dict[str, str]:
        """The names of a table's columns and their types; they stand as the primary key wants them sorted."""
        found = connection.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE (table_schema, table_name) = (%s, %s)"
            " ORDER BY ordinal_position",
            [self._namespace, table],
        )
        return dict(found.fetchall())

    def _copied(self, connection: psycopg.Connection[Any], table: str) -> str:
        columns = self._columns(connection, table)
        rank = f"dense_rank() OVER (ORDER BY xid) + {XID_FIRST - 1}"
        shown = ", ".join(rank if type == "xid8" else f'"{name}"' for name, type in columns.items())
        query = f'COPY (SELECT {shown} FROM "{self._namespace}"."{table}" ORDER BY 1, 2) TO STDOUT'
        with connection.cursor().copy(query) as copy:
            return b"".join(bytes(block) for block in copy).decode()

    def load(self, dump: Dump) -> None:
        """See `Place`."""
        with psycopg.connect(self._server.url) as connection:
            connection.execute(dump["schema"].replace("{ns}", self._namespace))
            for table, rows in dump["rows"].items():
                with connection.cursor().copy(f'COPY "{self._namespace}"."{table}" FROM STDIN') as copy:
                    copy.write(rows)
            sequence = sql.SQL("SELECT setval(pg_get_serial_sequence({}, 'n'), max(n)) FROM {}").format(
                sql.Literal(f'"{self._namespace}"."session"'), sql.Identifier(self._namespace, "session")
            )
            connection.execute(sequence)
