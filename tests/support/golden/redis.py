"""Redis and Valkey: every key of a store by its type, with what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redis import Redis

from tests.servers.valkey import Valkey
from tests.support.golden.places import Dump, data, fresh, text


class RedisKeys:
    """The keys whose names begin with `{NAMESPACE.`."""

    def __init__(self, server: Valkey, _: Path) -> None:
        self._namespace = fresh()
        self._client: Any = Redis.from_url(server.url)
        self.url = f"{server.url}?namespace={self._namespace}"

    @property
    def _prefix(self) -> bytes:
        return f"{{{self._namespace}.".encode()

    def dump(self) -> Dump:
        """See `Place`."""
        names = sorted(self._client.scan_iter(match=self._prefix + b"*", count=1000))
        return {"keys": [[text(name.removeprefix(self._prefix)), *self._held(name)] for name in names]}

    def _held(self, name: bytes) -> list[Any]:
        kind = self._client.type(name).decode()
        return [kind, _READ[kind](self._client, name)]

    def load(self, dump: Dump) -> None:
        """See `Place`."""
        for name, kind, held in dump["keys"]:
            _WRITE[kind](self._client, self._prefix + data(name), held)


def _pairs(found: dict[bytes, bytes]) -> list[list[str]]:
    return [[text(field), text(value)] for field, value in sorted(found.items())]


def _entries(found: list[tuple[bytes, dict[bytes, bytes]]]) -> Iterator[list[Any]]:
    for id, fields in found:
        yield [id.decode(), [[text(field), text(value)] for field, value in fields.items()]]


_READ: dict[str, Any] = {
    "string": lambda client, name: text(client.get(name)),
    "hash": lambda client, name: _pairs(client.hgetall(name)),
    "list": lambda client, name: [text(one) for one in client.lrange(name, 0, -1)],
    "zset": lambda client, name: [[text(member), score] for member, score in client.zrange(name, 0, -1, withscores=True)],
    "stream": lambda client, name: list(_entries(client.xrange(name))),
}


def _add_entries(client: Any, name: bytes, held: list[Any]) -> None:
    for id, fields in held:
        client.xadd(name, {data(field): data(value) for field, value in fields}, id=id)


_WRITE: dict[str, Any] = {
    "string": lambda client, name, held: client.set(name, data(held)),
    "hash": lambda client, name, held: client.hset(name, mapping={data(field): data(value) for field, value in held}),
    "list": lambda client, name, held: client.rpush(name, *map(data, held)),
    "zset": lambda client, name, held: client.zadd(name, {data(member): score for member, score in held}),
    "stream": _add_entries,
}
