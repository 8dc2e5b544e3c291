"""etcd: one transaction for many sessions, each a transaction within it that compares the session's head.

Condition   the head's value, and that the idempotency keys are absent, compared in the transaction that writes
Durability  every member syncs its log: `quorum` with three members or more, `local` with one
Limits      64 sessions or about 1 MiB a transaction; bodies over 256 KiB are written in chunks first, up to 16 MiB
Notify      a watch on the heads, from when someone first listens
Errors      `gateway.Gateway`, once: a connection that was not made is `Unavailable`, a write without an answer `Unknown`
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import httpx

from perdure.backends.etcd.driver import EtcdDriver
from perdure.backends.etcd.gateway import Gateway
from perdure.backends.etcd.layout import Layout
from perdure.backends.remote import RemoteBackend, open_address, parse_address
from perdure.backends.remote.urls import count, name, one_of, seconds
from perdure.clock import Clock
from perdure.errors import Invalid

_OPTIONS: dict[str, tuple[Any, Any]] = {
    "namespace": ("perdure", name),
    "connect_timeout": (5.0, seconds),
    "timeout": (10.0, seconds),
    "pool": (8, count(1, 256)),
    "tls": ("off", one_of("off", "on")),
    "ca": ("", str),
    "cert": ("", str),
    "cert_key": ("", str),
}


async def open(url: str, *, clock: Clock, create: bool = True) -> RemoteBackend:
    """Open `etcd://user:password@host:port,host:port?option=value`. Without `create` nothing is made.

    Raises `Invalid`, `NotFound`, `Unauthorized`, `Unavailable`, `Unsupported`, `Corrupt`.
    """
    address = parse_address(url, _OPTIONS)
    if address.path not in ("", "/"):
        raise Invalid(f"{address.place!r} has a path; a namespace is chosen by ?namespace=name.")
    options = address.options
    scheme = "https" if options["tls"] == "on" else "http"
    endpoints = [f"{scheme}://{host if ':' in host else host + ':2379'}" for host in address.hosts.split(",") if host]

    async def connect() -> EtcdDriver:
        trust = _trust(options) if scheme == "https" else False

        def client(size: int, silence: float | None) -> httpx.AsyncClient:
            return httpx.AsyncClient(
                timeout=httpx.Timeout(options["timeout"], connect=options["connect_timeout"], read=silence),
                limits=httpx.Limits(max_connections=size, max_keepalive_connections=size),
                verify=trust,
                trust_env=False,
            )

        clients = client(options["pool"], options["timeout"]), client(1, None)
        login = None if address.user is None else (address.user, address.password or "")
        return EtcdDriver(Gateway(endpoints, login, *clients, options["timeout"]), Layout(options["namespace"]))

    return await open_address(address, connect, lambda driver: driver.start(clock, address.place, create=create))


def _trust(options: Any) -> Any:
    import ssl

    try:
        context = ssl.create_default_context(cafile=unquote(options["ca"]) or None)
        if options["cert"]:
            context.load_cert_chain(unquote(options["cert"]), unquote(options["cert_key"]) or None)
    except (OSError, ssl.SSLError) as error:
        raise Invalid(f"The certificate files of this etcd:// URL cannot be used: {error}.") from error
    return context
