"""Opening a store: the keyspace and the tables where they are missing, the store's identity, what its servers promise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, uuid5

from perdure.backends.cassandra.client import Client
from perdure.backends.cassandra.layout import LAYOUT
from perdure.backends.common.refusals import no_store
from perdure.backends.common.store_header import StoreHeader, open_header
from perdure.backends.spi import Durability
from perdure.clock import Clock
from perdure.errors import Error, Invalid

QUORUM = 3
"""Replicas from which a write is on a majority of several disks."""


class Store(NamedTuple):
    """A store's identity and the size of its buckets."""

    id: str
    bucket: int


async def open_store(client: Client, namespace: str, replication: str, bucket: int, clock: Clock, *, create: bool) -> Store:
    """Find the store, or with `create` make what is missing of it. Several processes may do so at once.

    Raises `Invalid` for a missing keyspace and no `replication`, `NotFound` without `create`,
    `Unsupported` for a newer layout, `Corrupt` for foreign tables.
    """
    tables = {table for (table,) in await client.ask(_system("tables", "table_name", client.keyspace))}
    if "store" not in tables and not create:
        raise no_store(client.place, f"the table {client.keyspace}.store")
    if "store" not in tables:
        await _make_tables(client, replication)

    async def read() -> Any:
        return next(iter(await client.run("store", namespace)), None)

    async def make(id: str) -> None:
        await client.decide(("make_store", (namespace, LAYOUT, id, bucket)))

    what = f"the row {namespace!r} of {client.keyspace}.store"
    header = await open_header(read, make, _header, place=client.place, what=what, known=LAYOUT, clock=clock, create=create)
    return Store(header.id, (await read())[2])


def _header(row: tuple[int | None, str | None, int | None]) -> StoreHeader:
    layout, id, size = row
    if layout is None or not id or not size:
        raise ValueError(f"{row!r}")
    return StoreHeader(layout, id)


async def _make_tables(client: Client, replication: str) -> None:
    keyspace = client.keyspace
    if not await client.ask(_system("keyspaces", "replication", keyspace)):
        if not replication:
            raise Invalid(
                f"There is no keyspace {keyspace!r} at {client.place}: create it, or add ?replication=3 (replicas in each datacentre) or "
                "?replication=east:3,west:3 to the URL and it is created."
            )
        await client.change_schema(
            f'CREATE KEYSPACE IF NOT EXISTS "{keyspace}" WITH replication = '
            f"{{'class': 'NetworkTopologyStrategy', {_factors(replication)}}} AND durable_writes = true"
        )
    for statement in _tables(keyspace):
        await client.change_schema(statement)


def _tables(keyspace: str) -> list[str]:
    """The statements of schema.cql; `store` comes last: where it is, all are."""
    text = re.sub(r"^--.*\n", "", files(__package__).joinpath("schema.cql").read_text(), flags=re.MULTILINE)
    made = []
    for statement in text.split(";"):
        if named := re.search(r"\{ks\}\.(\w+)", statement):
            id = uuid5(NAMESPACE_URL, f"perdure/{keyspace}/{named[1]}/{LAYOUT}")
            made.append(statement.replace("{ks}", f'"{keyspace}"').replace("{id}", str(id)).strip())
    return made[1:] + made[:1]


def _factors(replication: str) -> str:
    if replication.isdecimal():
        return f"'replication_factor': {replication}"
    return ", ".join(f"'{name}': {factor}" for name, factor in (part.split(":") for part in replication.split(",")))


def replication(text: str) -> str:
    """The option's parser: a number of replicas, or one for each datacentre."""
    if not re.fullmatch(r"[1-9]|[\w-]+:[1-9](,[\w-]+:[1-9])*", text, re.ASCII):
        raise ValueError("is a number of replicas from 1 to 9, or datacentre:number,datacentre:number")
    return text


def _system(table: str, column: str, keyspace: str) -> str:
    return f"SELECT {column} FROM system_schema.{table} WHERE keyspace_name = '{keyspace}'"


class Promise(NamedTuple):
    """What the servers say of how they keep a write."""

    durability: Durability
    replicas: Mapping[str, int]
    """How many replicas each datacentre has; one named `all` where it is one number for the cluster."""
    durable_writes: bool
    syncs: Mapping[str, str]
    """The nodes that were asked, and when each syncs its commit log."""


async def table_lives(client: Client) -> dict[str, int]:
    """The tables whose rows end by themselves, and after how many seconds."""
    rows = await client.ask(_system("tables", "table_name, default_time_to_live", client.keyspace))
    return {table: seconds for table, seconds in rows if seconds}


async def promise(client: Client) -> Promise:
    """Ask the keyspace and every node that is up. What cannot be seen counts as the weaker."""
    ((options, durable),) = await client.ask(_system("keyspaces", "replication, durable_writes", client.keyspace))
    replicas = {("all" if "." in name or name == "replication_factor" else name): int(n) for name, n in options.items() if n.isdecimal()}
    syncs = {}
    for host in client.cluster.metadata.all_hosts():
        if host.is_up is not False:
            syncs[host.address] = await _sync(client, host)
    here = [replicas[client.datacenter]] if client.local and client.datacenter in replicas else list(replicas.values())
    synced = bool(syncs) and all(sync in ("batch", "group") for sync in syncs.values())
    level = Durability.buffered
    if not durable:
        level = Durability.memory
    elif synced:
        level = Durability.quorum if sum(here) >= QUORUM else Durability.local
    return Promise(level, replicas, durable, syncs)


async def _sync(client: Client, host: Any) -> str:
    """When a node syncs its commit log; `unknown` where it does not say (before 4.0), or may not be asked."""
    try:
        rows = await client.ask("SELECT value FROM system_views.settings WHERE name = 'commitlog_sync'", host)
    except Error:
        return "unknown"
    return str(rows[0][0]) if rows else "unknown"
