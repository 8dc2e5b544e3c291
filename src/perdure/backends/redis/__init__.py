"""Redis and Valkey: a commit is one function call, for as many sessions as a slot holds; the functions are in `functions.lua`.

Condition   the head, compared as bytes by the function that sets it; keys are looked up by the same call
Durability  what the server is set to: `local` with appendfsync always, else `buffered`, `memory` without an append-only file;
            `quorum` with `?replicas=N`, when N replicas have it on disk too
Failover    what a primary alone had is lost with it, in a Cluster and behind Sentinels: `capabilities.failover_loss` says so
Notify      a read that waits at the streams of the feed, on connections of its own
Errors      `connections.Connections`, once: a call that was sent and not answered is `Unknown`
"""

from __future__ import annotations

from typing import Any

from perdure.backends.redis.connections import Connections
from perdure.backends.redis.driver import RedisDriver
from perdure.backends.redis.routes import route_of
from perdure.backends.remote import RemoteBackend, open_address, parse_address
from perdure.backends.remote.urls import count, name, one_of, seconds
from perdure.clock import Clock

_OPTIONS: dict[str, tuple[Any, Any]] = {
    "namespace": ("perdure", name),
    "connect_timeout": (5.0, seconds),
    "timeout": (10.0, seconds),
    "pool": (8, count(2, 256)),
    "replicas": (0, count(0, 16)),
    "ca": ("", str),
    "cert": ("", str),
    "cert_key": ("", str),
    "sentinel_tls": ("on", one_of("on", "off")),
}


async def open(url: str, *, clock: Clock, create: bool = True) -> RemoteBackend:
    """Open `redis://user:password@host:port/database?option=value`, `rediss://` with TLS, `redis+sentinel://host,host/service`, or
    `redis+cluster://host,host`.

    Without `create` nothing is made. Raises `Invalid`, `NotFound`, `Unauthorized`, `Unavailable`, `Unsupported`, `Corrupt`.
    """
    address = parse_address(url, _OPTIONS)
    options = address.options

    async def connect() -> RedisDriver:
        connections = Connections(route_of(address), place=address.place, size=options["pool"], timeout=options["timeout"])
        return RedisDriver(connections, options["namespace"], replicas=options["replicas"])

    return await open_address(address, connect, lambda driver: driver.start(clock, create=create))
