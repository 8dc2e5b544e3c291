"""Memcached as a shared cache. With several hosts each key has one of them, by rendezvous hashing."""

from __future__ import annotations

import re

import emcache

from perdure.backends.remote.urls import Address, parse_address
from perdure.engine.read.shared.client import UNDER_WAY_MAX
from perdure.errors import Invalid

BYTES_MAX = 1_000_000
"""Largest value. Servers refuse items above 1 MiB, unless they are started with `-I`; the key and the item's header count too."""
PORT = 11211


def open(url: str, timeout: float) -> MemcachedClient:
    """A client of `memcached://user:password@host:port,host:port`; user and password are for SASL. Raises `Invalid`."""
    address = parse_address(url, {})
    if address.path.strip("/"):
        raise Invalid(f"{address.place!r}: Memcached has no databases, so its URL has no path.")
    if bool(address.user) != bool(address.password):
        raise Invalid(f"{address.place!r}: user and password go together.")
    return MemcachedClient(address, timeout)


def _hosts(hosts: str) -> list[emcache.MemcachedHostAddress]:
    found = []
    for part in hosts.split(","):
        place = re.fullmatch(r"(.*):(\d{1,5})", part, re.ASCII)
        host, port = (part, PORT) if place is None else (place[1], int(place[2]))
        found.append(emcache.MemcachedHostAddress(host.strip("[]"), port))
    return found


class MemcachedClient:
    """See `CacheClient`. After a failure the library's client is made again: by itself it waits for up to a minute before it connects."""

    bytes_max = BYTES_MAX

    def __init__(self, address: Address, timeout: float) -> None:
        self._address, self._timeout = address, timeout
        self._client: emcache.Client | None = None

    async def _connected(self) -> emcache.Client:
        client = self._client
        if client is None:
            made = await emcache.create_client(
                _hosts(self._address.hosts),
                timeout=self._timeout,
                connection_timeout=self._timeout,
                max_connections=UNDER_WAY_MAX,
                username=self._address.user or None,
                password=self._address.password or None,
            )
            client = self._client = self._client or made
            if client is not made:  # Another request was quicker.
                await made.close()
        return client

    async def _failed(self, client: emcache.Client) -> None:
        if self._client is client:
            self._client = None
            await client.close()

    async def get(self, key: bytes) -> bytes | None:
        client = await self._connected()
        try:
            item = await client.get(key)
        except BaseException:
            await self._failed(client)
            raise
        return None if item is None else bytes(item.value)

    async def put(self, key: bytes, value: bytes, seconds: int) -> None:
        client = await self._connected()
        try:
            await client.set(key, value, exptime=seconds)
        except emcache.StorageCommandError:  # The server has said no; the connection is well.
            raise
        except BaseException:
            await self._failed(client)
            raise

    async def delete(self, key: bytes) -> None:
        client = await self._connected()
        try:
            await client.delete(key)
        except emcache.NotFoundCommandError:
            return
        except BaseException:
            await self._failed(client)
            raise

    async def close(self) -> None:
        if self._client is not None:
            await self._failed(self._client)
