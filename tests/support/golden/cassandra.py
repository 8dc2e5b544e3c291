"""Cassandra: the statements that make the tables, and every value with the time at which it was written.

Rows of a log are written by conditional writes, others at a time that is their version: what comes later must be newer than either, so
each value goes back in at its own time.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.servers.cassandra import Cassandra
from tests.support.golden.places import Dump, data, fresh, text

NAMESPACE = "golden"
BUCKET = 8
"""Versions in a partition of the log: few, so that most are sealed."""


class CassandraKeyspace:
    """A keyspace of its own; the store in it has always the same namespace."""

    def __init__(self, server: Cassandra, _: Path) -> None:
        self._server = server
        self._keyspace = fresh()
        host = f"{','.join(server.hosts)}:{server.cql}"
        self.url = f"cassandra://{host}/{self._keyspace}?replication={server.members}&bucket={BUCKET}&namespace={NAMESPACE}"

    def dump(self) -> Dump:
        """See `Place`."""
        with self._server.cluster() as cluster:
            session = cluster.connect()
            found = session.execute(f"SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{self._keyspace}'")
            tables = sorted(name for (name,) in found)
            return {
                "schema": {table: self._statement(session, table) for table in tables},
                "rows": {table: self._rows(session, table) for table in tables},
            }

    def _statement(self, session: Any, table: str) -> str:
        """The statement that makes a table; what its id is made of is the keyspace's own."""
        ((*_, statement),) = session.execute(f"DESCRIBE TABLE {self._keyspace}.{table}")
        return re.sub(r"ID = [0-9a-f-]+\s+AND ", "", statement).replace(self._keyspace, "{ks}")

    def _columns(self, session: Any, table: str) -> dict[str, list[str]]:
        """The names of a table's columns by their kind: partition_key, clustering, static, regular."""
        kinds: dict[str, list[str]] = {"partition_key": [], "clustering": [], "static": [], "regular": []}
        query = f"SELECT column_name, kind FROM system_schema.columns WHERE keyspace_name = '{self._keyspace}' AND table_name = '{table}'"
        for name, kind in sorted(session.execute(query)):
            kinds[kind].append(name)
        return kinds

    def _rows(self, session: Any, table: str) -> list[Any]:
        """Each row as its names, its partition's values and its own; a value is [value, time]. Rows repeat their partition's."""
        columns = self._columns(session, table)
        values, names = columns["static"] + columns["regular"], columns["partition_key"] + columns["clustering"]
        asked = [f'"{name}"' for name in names + values] + [f'WRITETIME("{name}")' for name in values]
        rows = []
        for row in session.execute(f"SELECT {', '.join(asked)} FROM {self._keyspace}.{table}"):
            times = dict(zip(values, row[len(names) + len(values) :], strict=True))
            found = dict(zip(names + values, row, strict=False))
            parts = [
                {name: [_json(found[name]), times[name]] for name in columns[kind] if found[name] is not None}
                for kind in ("static", "regular")
            ]
            rows.append([{name: found[name] for name in names}, *parts])
        return sorted(rows, key=repr)

    def load(self, dump: Dump) -> None:
        """See `Place`."""
        with self._server.cluster() as cluster:
            session = cluster.connect()
            replication = f"{{'class': 'NetworkTopologyStrategy', 'replication_factor': {self._server.members}}}"
            session.execute(f"CREATE KEYSPACE {self._keyspace} WITH replication = {replication}")
            for statement in dump["schema"].values():
                session.execute(statement.replace("{ks}", self._keyspace))
            for table, rows in dump["rows"].items():
                for row in rows:
                    self._insert(session, table, *row)

    def _insert(self, session: Any, table: str, names: dict[str, Any], static: dict[str, Any], regular: dict[str, Any]) -> None:
        """One statement for each time at which some of its values were written."""
        place = {name: value for name, value in names.items() if value is not None}
        times: dict[int | None, dict[str, Any]] = {}
        for name, (value, at) in {**static, **regular}.items():
            times.setdefault(at, {})[name] = _plain(value)
        for at, values in (times or {None: {}}).items():
            given = {**place, **values}
            columns, marks = ", ".join(f'"{name}"' for name in given), ", ".join("%s" for _ in given)
            using = "" if at is None else f" USING TIMESTAMP {at}"
            session.execute(f"INSERT INTO {self._keyspace}.{table} ({columns}) VALUES ({marks}){using}", list(given.values()))


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": text(value)}
    return {"map": sorted(value.items())} if hasattr(value, "items") else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return data(value["bytes"]) if "bytes" in value else dict(value["map"])
    return value
