"""What weakens a Cassandra cluster, and how to fix it."""

from __future__ import annotations

import time

from perdure.backends.cassandra.client import Client
from perdure.backends.cassandra.store import QUORUM, promise, table_lives
from perdure.backends.spi import Checkup, Durability, Finding
from perdure.errors import Error

_PERIODIC = "set commitlog_sync: batch (or group) in cassandra.yaml and restart the nodes one by one; until then receipts say buffered"


async def checkup(client: Client, horizon: float) -> Checkup:
    """Ask the cluster; see `spi.Examined`. `horizon`: seconds by which clocks may differ twice over."""
    promised = await promise(client)
    hosts = client.cluster.metadata.all_hosts()
    up = [host for host in hosts if host.is_up is not False]
    versions = sorted({host.release_version or "unknown" for host in hosts})
    facts = {
        "server": f"Cassandra {', '.join(versions)}",
        "nodes": f"{len(up)} of {len(hosts)} up, in {', '.join(sorted({host.datacenter or 'unknown' for host in hosts}))}",
        "replicas": ", ".join(f"{name}: {number}" for name, number in promised.replicas.items()) or "unknown",
        "commitlog_sync": ", ".join(sorted(set(promised.syncs.values()))) or "unknown",
        "consistency": "local_quorum, local_serial" if client.local else "quorum, serial",
        "durability": promised.durability.name,
    }
    findings = []
    if not promised.durable_writes:
        findings.append(
            Finding(
                "bad", "unavailable", f"The keyspace {client.keyspace} has durable_writes off: what nodes hold in memory dies with them.",
                f"ALTER KEYSPACE {client.keyspace} WITH durable_writes = true",
            )
        )  # fmt: skip
    if any(number < QUORUM for number in promised.replicas.values()):
        few = min(promised.replicas.values())
        what = f"The keyspace {client.keyspace} has replication factor {few}: one node that is down stops its sessions"
        what += ", one disk that dies takes them along." if few == 1 else "."
        findings.append(
            Finding("warning", "unavailable", what, f"ALTER KEYSPACE {client.keyspace} with three replicas, then nodetool repair --full")
        )
    if promised.durability is Durability.buffered:
        weak = sorted(address for address, sync in promised.syncs.items() if sync not in ("batch", "group"))
        what = f"The commit log is not synced before a write is acknowledged (nodes {', '.join(weak)}): a power cut can lose commits."
        findings.append(Finding("warning", "unavailable", what, _PERIODIC))
    if len(up) < len(hosts):
        down = ", ".join(sorted(host.address for host in hosts if host not in up))
        findings.append(Finding("warning", "unavailable", f"Nodes are down: {down}.", "start them, then nodetool repair"))
    for table, seconds in (await table_lives(client)).items():
        findings.append(
            Finding(
                "bad", "corrupt", f"Rows of {client.keyspace}.{table} vanish after {seconds:,} s.",
                f"ALTER TABLE {client.keyspace}.{table} WITH default_time_to_live = 0",
            )
        )  # fmt: skip
    for host in up:
        try:
            ((there,),) = await client.ask("SELECT toUnixTimestamp(now()) FROM system.local", host)
        except Error:
            continue
        apart = abs(there / 1000 - time.time())
        if apart > horizon / 4:
            what = f"The clock of {host.address} and the one here are {apart:.1f} s apart: the feed is sure up to {horizon / 2:g} s."
            findings.append(Finding("warning", "unavailable", what, "let NTP keep all clocks, or raise horizon in the URL"))
    return Checkup(facts, findings)
