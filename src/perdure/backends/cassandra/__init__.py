"""Cassandra: a partition of the log per session and bucket, its head a static column, an append one conditional write in it.

Condition   Paxos compares head, fence and new keys of the one partition that the expected head says; logged nowhere, never retried
Durability  of the commit log: `quorum` where every node syncs before it answers and three replicas hold a row, `local` with fewer,
            `buffered` while one node syncs periodically, as upstream's default does, or does not say
Lost answer a serial read, then the identical write again: one that lands later than that finds its place taken, by itself
Feed        announced before each write, read up to a horizon; what was announced and not written is fenced off
Errors      `client.mapped`, once: a conditional write without a clear answer is `Unknown`
"""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import unquote

from perdure.backends.cassandra.announcer import FeedAnnouncer
from perdure.backends.cassandra.buckets import Chain
from perdure.backends.cassandra.client import Client
from perdure.backends.cassandra.connections import PORT, connected, new_cluster
from perdure.backends.cassandra.driver import CassandraDriver
from perdure.backends.cassandra.feed import Feed
from perdure.backends.cassandra.header import StoreRow
from perdure.backends.cassandra.store import open_store, promise, replication
from perdure.backends.remote import Address, RemoteBackend, in_thread, open_remote, parse_address
from perdure.backends.remote.urls import count, name, one_of, seconds
from perdure.clock import Clock
from perdure.errors import Invalid

_OPTIONS: dict[str, tuple[Any, Any]] = {
    "namespace": ("perdure", name),
    "connect_timeout": (5.0, seconds),
    "timeout": (10.0, seconds),
    "lanes": (64, count(1, 1024)),
    "datacenter": ("", str),
    "serial": ("serial", one_of("serial", "local_serial")),
    "consistency": ("", one_of("quorum", "local_quorum")),
    "replication": ("", replication),
    "bucket": (1_000, count(2, 100_000)),
    "horizon": (2.0, seconds),
    "tls": ("off", one_of("off", "on")),
    "ca": ("", str),
    "cert": ("", str),
    "cert_key": ("", str),
}


async def open(url: str, *, clock: Clock, create: bool = True) -> RemoteBackend:
    """Open `cassandra://user:password@host,host:port/keyspace?option=value`.

    Without `create` nothing is made. Raises `Invalid`, `NotFound`, `Unauthorized`, `Unavailable`, `Unsupported`, `Corrupt`.
    """
    address = parse_address(url, _OPTIONS)
    options = address.options
    try:
        keyspace = name(address.path.strip("/") or "perdure").lower()
    except (ValueError, IndexError) as error:
        raise Invalid(f"{address.place!r}: the path names a keyspace, which {error}.") from None
    local = options["serial"] == "local_serial"
    if options["consistency"] not in ("", "local_quorum" if local else "quorum"):
        raise Invalid(
            f"{address.place!r}: consistency={options['consistency']} and serial={options['serial']} do not go together: writes that are "
            "decided by all datacentres are read by quorum, those decided by one with serial=local_serial by local_quorum."
        )
    points = _points(address)
    security = _trust(options) if options["tls"] == "on" else None

    async def connect() -> CassandraDriver:
        cluster = new_cluster(address, points, security)
        try:
            session = await in_thread(lambda: connected(cluster, address.place))
            client = Client(cluster, session, keyspace, address.place, options, local=local)
            store = await open_store(client, options["namespace"], options["replication"], options["bucket"], clock, create=create)
            chain = Chain(client, options["namespace"], store.bucket, store.header.schema)
            row = StoreRow(client, options["namespace"])
            feed, announcer = Feed(chain, clock, options["horizon"]), FeedAnnouncer(chain, clock, options["horizon"])
            return CassandraDriver(chain, feed, announcer, row, store.header, await promise(client), options["lanes"], clock)
        except BaseException:
            await in_thread(cluster.shutdown)
            raise

    return await open_remote(connect, place=address.place, secrets=address.secrets, timeout=options["timeout"])


def _points(address: Address) -> list[tuple[str, int]]:
    """The hosts with their ports; one port, after the last, is all hosts'."""
    hosts = [host.rpartition(":") if not host.endswith("]") else (host, "", "") for host in address.hosts.split(",") if host]
    named = [(host or port, port if host else "") for host, _, port in hosts]
    last = next((port for _, port in reversed(named) if port), str(PORT))
    if not named or not all((port or last).isdecimal() and 0 < int(port or last) < 65_536 for _, port in named):
        raise Invalid(f"{address.place!r}: the hosts read host,host:port.")
    return [(host.strip("[]"), int(port or last)) for host, port in named]


def _trust(options: Any) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=unquote(options["ca"]) or None)
        if options["cert"]:
            context.load_cert_chain(unquote(options["cert"]), unquote(options["cert_key"]) or None)
    except (OSError, ssl.SSLError) as error:
        raise Invalid(f"The certificate files of this cassandra:// URL cannot be used: {error}.") from error
    return context
