"""The keyspace and its tables, and what schema 2 adds to those of schema 1. Whatever is there stays."""

from __future__ import annotations

import re
from importlib.resources import files
from uuid import NAMESPACE_URL, uuid5

from perdure.backends.cassandra.client import Client
from perdure.errors import Corrupt, Invalid

_TABLES = 1
"""Goes into the ids of the tables, and stays."""
_DUE_TABLES = ("due", "due_window")
_CELLS = {"cells": "blob static"}
_HEADER = {"min_writer": "int", "lock_token": "text", "lock_count": "int"}


async def make_tables(client: Client, replication: str) -> None:
    """Make the keyspace, if it is to be made, and all tables. Raises `Invalid`."""
    keyspace = client.keyspace
    if not await client.ask(system_query("keyspaces", "replication", keyspace)):
        if not replication:
            raise Invalid(
                f"There is no keyspace {keyspace!r} at {client.place}: create it, or add ?replication=3 (replicas in each datacentre) or "
                "?replication=east:3,west:3 to the URL and it is created."
            )
        await client.change_schema(
            f'CREATE KEYSPACE IF NOT EXISTS "{keyspace}" WITH replication = '
            f"{{'class': 'NetworkTopologyStrategy', {_factors(replication)}}} AND durable_writes = true"
        )
    for statement in table_statements(keyspace).values():
        await client.change_schema(statement)


def table_statements(keyspace: str) -> dict[str, str]:
    """The statements of schema.cql by their tables; `store` comes last: where it is, all are."""
    text = re.sub(r"^--.*\n", "", files(__package__).joinpath("schema.cql").read_text(), flags=re.MULTILINE)
    made = {}
    for statement in text.split(";"):
        if named := re.search(r"\{ks\}\.(\w+)", statement):
            id = uuid5(NAMESPACE_URL, f"perdure/{keyspace}/{named[1]}/{_TABLES}")
            made[named[1]] = statement.replace("{ks}", f'"{keyspace}"').replace("{id}", str(id)).strip()
    made["store"] = made.pop("store")
    return made


def _factors(replication: str) -> str:
    if replication.isdecimal():
        return f"'replication_factor': {replication}"
    return ", ".join(f"'{name}': {factor}" for name, factor in (part.split(":") for part in replication.split(",")))


async def add_header_columns(client: Client) -> None:
    """The columns of `store` that came with schema 2."""
    await _add_columns(client, "store", _HEADER)


async def add_cells(client: Client) -> None:
    """The column of `log` that came with schema 2."""
    await _add_columns(client, "log", _CELLS)


async def add_due_tables(client: Client) -> None:
    """The tables that came with schema 2."""
    there = {table for (table,) in await client.ask(system_query("tables", "table_name", client.keyspace))}
    statements = table_statements(client.keyspace)
    for table in _DUE_TABLES:
        if table not in there:
            await client.change_schema(statements[table])


async def add_schema_2(client: Client) -> None:
    """All that came with schema 2."""
    await add_header_columns(client)
    await add_cells(client)
    await add_due_tables(client)


async def _add_columns(client: Client, table: str, columns: dict[str, str]) -> None:
    async def missing() -> dict[str, str]:
        rows = await client.ask(f"{system_query('columns', 'column_name', client.keyspace)} AND table_name = '{table}'")
        return {name: kind for name, kind in columns.items() if (name,) not in {tuple(row) for row in rows}}

    for name, kind in (await missing()).items():
        try:
            await client.change_schema(f'ALTER TABLE "{client.keyspace}".{table} ADD {name} {kind}')
        except Corrupt:  # Another process was first, or the table is a foreign one.
            if name in await missing():
                raise


def system_query(table: str, column: str, keyspace: str) -> str:
    """What system_schema says of a keyspace."""
    return f"SELECT {column} FROM system_schema.{table} WHERE keyspace_name = '{keyspace}'"
