"""Which node to ask: one server, the primary that Sentinels name, or the primary of a Cluster's slot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from redis.asyncio import Connection, ConnectionPool, Sentinel, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import TimeoutError as TimedOut

from perdure.backends.remote import Address
from perdure.errors import Invalid, Unavailable

PORT, SENTINEL_PORT = 6379, 26379


class Route(Protocol):
    """From a key to the pool of connections to the primary that has it."""

    clustered: bool
    """Whether a call may touch one slot only."""
    fails_over: bool
    """Whether another node may take a primary's place."""

    def pool_of(self, key: str, /) -> ConnectionPool:
        """The pool of a key's primary, as far as is known. Raises `Unavailable`."""
        ...

    def pools(self) -> list[ConnectionPool]:
        """All pools."""
        ...

    def pool_at(self, pool: ConnectionPool, host: str, port: int, /) -> ConnectionPool:
        """The pool of a node that the node of `pool` names; without a host it is on the same one."""
        ...

    def moved(self, slot: int, pool: ConnectionPool, /) -> None:
        """Note that a slot is another's, until all are looked up again."""
        ...

    async def locate(self) -> None:
        """Look again who has what. Raises what the client library raises."""
        ...


class OneRoute:
    """All shards on one primary, which the pool finds."""

    clustered = False

    def __init__(self, pool: ConnectionPool, *guides: ConnectionPool) -> None:
        """`guides`: pools of those who know where the primary is."""
        self._pool, self._guides, self.fails_over = pool, guides, bool(guides)

    def pool_of(self, _key: str, /) -> ConnectionPool:
        return self._pool

    def pools(self) -> list[ConnectionPool]:
        return [self._pool, *self._guides]

    def pool_at(self, pool: ConnectionPool, _host: str, _port: int, /) -> ConnectionPool:
        return pool

    def moved(self, _slot: int, _pool: ConnectionPool, /) -> None:
        """There are no slots."""

    async def locate(self) -> None:
        """Nothing is to be looked up."""


class Guides(Sentinel):
    """The Sentinels, asked in turn; the one that answered is asked first the next time."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """The primary's address. Raises `MasterNotFoundError`, with what each one said."""
        said = []
        for guide in list(self.sentinels):
            try:
                known: Any = await guide.sentinel_masters()
            except (NotConnected, TimedOut) as error:
                said.append(str(error) or type(error).__name__)
                continue
            state = known.get(service_name)
            if state and self.check_master_state(state, service_name):
                self.sentinels.remove(guide)
                self.sentinels.insert(0, guide)
                return state["ip"], state["port"]
            said.append(f"one knows no {service_name!r} that is well")
        raise MasterNotFoundError(f"no Sentinel names the primary of {service_name!r}: {'; '.join(said)}")


class ClusterRoute:
    """A Cluster: its nodes say which of them has which slots."""

    clustered = fails_over = True

    def __init__(self, seeds: list[tuple[str, int]], settings: Mapping[str, Any], kind: type[Connection]) -> None:
        self._settings, self._kind = settings, kind
        self._pools: dict[tuple[str, int], ConnectionPool] = {}
        self._slots: list[tuple[int, int, tuple[str, int]]] = []
        self._moved: dict[int, ConnectionPool] = {}
        self._seeds = seeds

    def _pool(self, node: tuple[str, int]) -> ConnectionPool:
        if node not in self._pools:
            self._pools[node] = ConnectionPool(connection_class=self._kind, host=node[0], port=node[1], **self._settings)
        return self._pools[node]

    def pool_of(self, key: str, /) -> ConnectionPool:
        slot = key_slot(key.encode())
        if slot in self._moved:
            return self._moved[slot]
        for first, last, node in self._slots:
            if first <= slot <= last:
                return self._pool(node)
        raise Unavailable(f"No node of the Cluster has the slot {slot}.")

    def pools(self) -> list[ConnectionPool]:
        return list(self._pools.values())

    def pool_at(self, pool: ConnectionPool, host: str, port: int, /) -> ConnectionPool:
        return self._pool((host or pool.connection_kwargs["host"], port))

    def moved(self, slot: int, pool: ConnectionPool, /) -> None:
        self._moved[slot] = pool

    async def locate(self) -> None:
        failed: Exception = Unavailable("No node of the Cluster answers.")
        for node in dict.fromkeys([*(node for _, _, node in self._slots), *self._seeds]):
            pool = self._pool(node)
            try:
                connection = await pool.get_connection()
                try:
                    await connection.send_command("CLUSTER", "SLOTS")
                    answer = await connection.read_response()
                finally:
                    await pool.release(connection)
            except Exception as error:  # noqa: BLE001 - the next node may know
                failed = error
                continue
            self._slots = [(first, last, (primary[0].decode() or node[0], primary[1])) for first, last, primary, *_ in answer]
            self._moved.clear()
            return
        raise failed


def route_of(address: Address) -> Route:
    """What a URL names. Raises `Invalid`."""
    options, secure = address.options, address.scheme.startswith("rediss")
    settings: dict[str, Any] = {
        "username": address.user,
        "password": address.password,
        "socket_timeout": options["timeout"],
        "socket_connect_timeout": options["connect_timeout"],
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    kind: type[Connection] = Connection
    files = {"ssl_ca_certs": options["ca"], "ssl_certfile": options["cert"], "ssl_keyfile": options["cert_key"]}
    certificates = {name: path for name, path in files.items() if path}
    if secure:
        kind = SSLConnection
        settings |= certificates
    elif options["ca"] or options["cert"]:
        raise Invalid(f"{address.place!r}: certificates are for rediss:// addresses.")
    _, _, family = address.scheme.partition("+")
    path = [part for part in address.path.split("/") if part]
    if family == "cluster":
        if path:
            raise Invalid(f"{address.place!r}: a Cluster has one database, so its URL has no path.")
        return ClusterRoute(_hosts(address, PORT), settings, kind)
    if family == "sentinel":
        if not 1 <= len(path) <= 2:
            raise Invalid(f"{address.place!r} names no service: it reads redis+sentinel://host1,host2/service/database.")
        limit = options["connect_timeout"]
        asking: dict[str, Any] = {"socket_timeout": limit, "socket_connect_timeout": limit, "retry": settings["retry"], "protocol": 2}
        if secure and options["sentinel_tls"] == "on":
            asking |= {"ssl": True, **certificates}
        sentinel = Guides(_hosts(address, SENTINEL_PORT), sentinel_kwargs=asking)
        settings["db"] = _database(address, path[1:])
        return OneRoute(
            SentinelConnectionPool(path[0], sentinel, ssl=secure, **settings), *[guide.connection_pool for guide in sentinel.sentinels]
        )
    ((host, port), *more) = _hosts(address, PORT)
    if more:
        raise Invalid(f"{address.place!r} names several hosts: redis+cluster:// and redis+sentinel:// do.")
    return OneRoute(ConnectionPool(connection_class=kind, host=host, port=port, db=_database(address, path), **settings))


def _hosts(address: Address, port: int) -> list[tuple[str, int]]:
    found = []
    for part in address.hosts.split(","):
        host, colon, number = part.rpartition(":") if part.rpartition(":")[2].isdecimal() else (part, "", "")
        found.append((host.strip("[]"), int(number) if colon else port))
    return found


def _database(address: Address, path: list[str]) -> int:
    if len(path) > 1 or (path and not re.fullmatch(r"\d{1,9}", path[0], re.ASCII)):
        raise Invalid(f"{address.place!r}: the database is a number, as in redis://host:6379/0.")
    return int(path[0]) if path else 0
