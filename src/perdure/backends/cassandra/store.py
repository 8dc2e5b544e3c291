"""Opening a store: the keyspace and the tables where they are missing, the store's identity, what its servers promise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from perdure.backends.cassandra.client import Client
from perdure.backends.cassandra.header import StoreRow, header_of
from perdure.backends.cassandra.tables import add_schema_2, make_tables, system_query
from perdure.backends.common.refusals import no_store
from perdure.backends.common.store_header import StoreHeader, open_header
from perdure.backends.spi import SCHEMA_VERSION, Durability
from perdure.clock import Clock
from perdure.errors import Error

QUORUM = 3
"""Replicas from which a write is on a majority of several disks."""


class Store(NamedTuple):
    """A store's header and the size of its buckets."""

    header: StoreHeader
    bucket: int


async def open_store(client: Client, namespace: str, replication: str, bucket: int, clock: Clock, *, create: bool) -> Store:
    """Find the store, or with `create` make what is missing of it. Several processes may do so at once.

    Raises `Invalid` for a missing keyspace and no `replication`, `NotFound` without `create`,
    `Unsupported` for a newer layout, `Corrupt` for foreign tables.
    """
    tables = {table for (table,) in await client.ask(system_query("tables", "table_name", client.keyspace))}
    if "store" not in tables and not create:
        raise no_store(client.place, f"the table {client.keyspace}.store")
    if "store" not in tables:
        await make_tables(client, replication)

    row = StoreRow(client, namespace)

    async def make(id: str) -> None:
        await add_schema_2(client)  # The keyspace may be older.
        await client.decide(("make_store", (namespace, SCHEMA_VERSION, id, bucket, SCHEMA_VERSION)))

    what = f"the row {namespace!r} of {client.keyspace}.store"
    header = await open_header(row.fields, make, header_of, place=client.place, what=what, known=SCHEMA_VERSION, clock=clock, create=create)
    if header.schema >= 2:
        client.use_cells()
    return Store(header, int((await row.certain())["bucket"]))


def replication(text: str) -> str:
    """The option's parser: a number of replicas, or one for each datacentre."""
    if not re.fullmatch(r"[1-9]|[\w-]+:[1-9](,[\w-]+:[1-9])*", text, re.ASCII):
        raise ValueError("is a number of replicas from 1 to 9, or datacentre:number,datacentre:number")
    return text


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
    rows = await client.ask(system_query("tables", "table_name, default_time_to_live", client.keyspace))
    return {table: seconds for table, seconds in rows if seconds}


async def promise(client: Client) -> Promise:
    """Ask the keyspace and every node that is up. What cannot be seen counts as the weaker."""
    ((options, durable),) = await client.ask(system_query("keyspaces", "replication, durable_writes", client.keyspace))
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
