"""A Perdure service as an engine: `perdure.open("http://127.0.0.1:8420")`.

Condition   the node's engine's, on the head that the client has seen
Durability  the node's engine's
Batches     up to 256 appends or 4 MiB that are ready go in one request
Nodes       several, with commas, or listed elsewhere; see `discovery` and `pool`
Notify      a stream of notices, where the engine behind the nodes notifies
Errors      `calls.Calls`: what no node of this store said leaves a write `Unknown`
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from aiohttp.abc import AbstractResolver

from perdure.backends.http.asking import HttpBackend
from perdure.backends.http.calls import Calls
from perdure.backends.http.discovery import Discovery, Finder, Static
from perdure.backends.http.driver import HttpDriver
from perdure.backends.http.pool import Pool
from perdure.backends.remote import Address, RemoteBackend, open_address, parse_address
from perdure.backends.remote.urls import count, seconds
from perdure.clock import Clock
from perdure.errors import Invalid

TOKEN = "PERDURE_TOKEN"
"""The environment variable with the bearer token that nodes are shown. It is never a part of a URL."""
PORT_MAX = 65_535
OPTIONS: dict[str, tuple[Any, Any]] = {
    "timeout": (10.0, seconds),
    "connect_timeout": (5.0, seconds),
    "connections": (64, count(1, 4096)),
    "ca": ("", str),
}
"""What stands in a URL: seconds for an answer and for a connection, open connections to one node, a file of certificate authorities."""


async def open(url: str, *, clock: Clock, create: bool = True) -> RemoteBackend:  # noqa: ARG001 - a node has made its store
    """Open `http://host:port,host:port/path?option=value`, or https. The token is the environment's `PERDURE_TOKEN`.

    Raises `Invalid`, `Unauthorized`, `Unavailable`, `Unsupported`.
    """
    address = parse_address(url, OPTIONS, reads="it reads http://host:port,host:port/path?option=value, or https")
    return await open_found(address, clock, lambda: Static(members(address)), trust=trusted(address, secure=address.scheme == "https"))


async def open_found(
    address: Address,
    clock: Clock,
    finder: Callable[[], Finder],
    *,
    trust: Any,
    hostname: str | None = None,
    resolver: Callable[[], AbstractResolver] | None = None,
) -> RemoteBackend:
    """Open the service whose nodes a finder lists. `trust`: see `trusted`. `hostname`: the name in the certificates of nodes that speak
    TLS; `None`: the host of their URL. `resolver`: who resolves the names of nodes; `None`: the system."""
    if address.user is not None or address.password is not None:
        raise Invalid(f"{address.place!r} has a user or a token: tokens are never a part of a URL. Set the environment variable {TOKEN}.")
    options = address.options
    token = os.environ.get(TOKEN) or None
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise Invalid(f"The environment variable {TOKEN} holds what is no token: letters, digits and the signs of base64.")

    async def connect() -> HttpDriver:
        pool = Pool((), time.monotonic, clock.bits)
        discovery = Discovery(finder(), pool, address.place)
        calls = Calls(
            pool,
            token,
            trust,
            timeout=options["timeout"],
            connect_timeout=options["connect_timeout"],
            connections=options["connections"],
            place=address.place,
            hostname=hostname,
            resolver=None if resolver is None else resolver(),
            unreached=discovery.hurry,
        )
        return HttpDriver(calls, discovery)

    return await open_address(address, connect, lambda driver: driver.start(), HttpBackend)


def members(address: Address) -> list[str]:
    """The URLs of the nodes that an address names. Raises `Invalid`."""
    path = address.path.rstrip("/")
    hosts = [host for host in address.hosts.split(",") if host]
    for host in hosts:
        if _has_port(host) and not 1 <= int(host.rpartition(":")[2]) <= PORT_MAX:
            raise Invalid(f"{address.place!r} names a port that there is not: ports go from 1 to {PORT_MAX:,}.")
    return [f"{address.scheme}://{host if _has_port(host) else f'{host}:{_port(address.scheme)}'}{path}" for host in hosts]


def _has_port(host: str) -> bool:
    return ":" in host.rpartition("]")[2]


def _port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def trusted(address: Address, *, secure: bool) -> Any:
    """Whom a client trusts, as aiohttp's `ssl`. Raises `Invalid` for a file of authorities that is no use: without TLS too."""
    file = unquote(address.options["ca"])
    if not secure:
        if file:
            raise Invalid(f"{address.place!r} names a certificate authority, and is no https:// URL.")
        return True
    try:
        return ssl.create_default_context(cafile=file or None)
    except (OSError, ssl.SSLError) as error:
        raise Invalid(f"The file of the option ca of {address.place!r} cannot be used: {error}.") from error
