"""Redis or Valkey as a shared cache: GET, SET with a time to live, DEL."""

from __future__ import annotations

import re
from typing import Any

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from perdure.backends.remote.urls import parse_address
from perdure.engine.read.shared.client import UNDER_WAY_MAX
from perdure.errors import Invalid

BYTES_MAX = 8 << 20
"""Largest value: one that is larger takes a server so long that others wait for it."""
PORT = 6379
_OPTIONS = {"ca": ("", str), "cert": ("", str), "cert_key": ("", str)}


def open(url: str, timeout: float) -> RedisClient:
    """A client of `redis://user:password@host:port/database`, or `rediss://` with TLS and the options `ca`, `cert`, `cert_key`.

    Raises `Invalid`.
    """
    address = parse_address(url, _OPTIONS)
    if not re.fullmatch(r"(/\d{0,9})?", address.path, re.ASCII):
        raise Invalid(f"{address.place!r}: the database is a number, as in redis://host:6379/0.")
    if "," in address.hosts:
        raise Invalid(f"{address.place!r} names several hosts: a shared cache is one server.")
    host, port = (address.hosts, PORT)
    if found := re.fullmatch(r"(.*):(\d{1,5})", address.hosts, re.ASCII):
        host, port = found[1], int(found[2])
    settings: dict[str, Any] = {
        "host": host.strip("[]"),
        "port": port,
        "db": int(address.path[1:] or 0),
        "username": address.user or None,
        "password": address.password,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "max_connections": UNDER_WAY_MAX,
    }
    files = {"ssl_ca_certs": address.options["ca"], "ssl_certfile": address.options["cert"], "ssl_keyfile": address.options["cert_key"]}
    certificates = {name: path for name, path in files.items() if path}
    if address.scheme == "rediss":
        return RedisClient(ConnectionPool(connection_class=SSLConnection, **settings, **certificates))
    if certificates:
        raise Invalid(f"{address.place!r}: certificates are for rediss:// addresses.")
    return RedisClient(ConnectionPool(connection_class=Connection, **settings))


class RedisClient:
    """See `CacheClient`. A request that fails is not sent again."""

    bytes_max = BYTES_MAX

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._redis = Redis(connection_pool=pool)

    async def get(self, key: bytes) -> bytes | None:
        value = await self._redis.get(key)
        return value if isinstance(value, bytes) else None

    async def put(self, key: bytes, value: bytes, seconds: int) -> None:
        await self._redis.set(key, value, ex=seconds)

    async def delete(self, key: bytes) -> None:
        await self._redis.delete(key)

    async def close(self) -> None:
        await self._redis.aclose()
        await self._pool.aclose()
