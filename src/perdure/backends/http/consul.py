"""Nodes that Consul lists: `perdure.open("consul+https://consul.example:8501/perdure?dc=east")`, a service by its name.

Checks   services that pass all their checks, and no others
Changes  a question waits at Consul until its index moves, `WAIT` seconds at most; an index that is lost or goes back begins again
Token    of Consul: the environment's `CONSUL_HTTP_TOKEN`. That of the nodes is `PERDURE_TOKEN`, as ever
TLS      to the nodes by the option `nodes`, with certificates for `perdure.service.consul` or the option `name`, never for an address
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec

from perdure.backends.http import OPTIONS, open_found, trusted
from perdure.backends.http.discovery import LOOK_MAX, Found
from perdure.backends.remote import RemoteBackend, parse_address
from perdure.backends.remote.urls import one_of
from perdure.clock import Clock
from perdure.errors import Invalid, Unauthorized, Unavailable

CONSUL_TOKEN = "CONSUL_HTTP_TOKEN"
"""The environment variable with Consul's token, as Consul's own program reads it."""
WAIT = 30
"""Seconds that a question waits for a change. Consul adds up to a sixteenth."""
PAUSE = 0.25
"""Seconds between an answer and the next question, for an index that moves without end."""
PORTS = {"consul+http": 8500, "consul+https": 8501}
"""Where Consul listens."""
_FORM = "it reads consul+http://host:8500/service, or consul+https"
_LABEL = re.compile(r"[\w.-]{1,128}", re.ASCII)


def _label(text: str) -> str:
    if text and not _LABEL.fullmatch(text):
        raise ValueError("is a name of letters, digits, dots, dashes and underscores")
    return text


CONSUL_OPTIONS: dict[str, tuple[Any, Any]] = {
    **OPTIONS,
    "dc": ("", _label),
    "nodes": ("", one_of("http", "https")),
    "name": ("", _label),
}
"""What stands in a URL: as for http://; the data centre; what the nodes speak, without it what Consul speaks; the name in their
certificates. `ca` is for Consul and the nodes."""


async def open(url: str, *, clock: Clock, create: bool = True) -> RemoteBackend:  # noqa: ARG001 - a node has made its store
    """Open `consul+http://host:port/service?option=value`, or consul+https. The tokens are `PERDURE_TOKEN` and `CONSUL_HTTP_TOKEN`.

    Raises `Invalid`, `Unauthorized`, `Unavailable`, `Unsupported`.
    """
    address = parse_address(url, CONSUL_OPTIONS, reads=_FORM)
    service = address.path.strip("/")
    if "," in address.hosts or not _LABEL.fullmatch(service):
        raise Invalid(f"{address.place!r} names no service of Consul: {_FORM}.")
    options, spoken = address.options, address.scheme.removeprefix("consul+")
    nodes = options["nodes"] or spoken
    token = os.environ.get(CONSUL_TOKEN) or None
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise Invalid(f"The environment variable {CONSUL_TOKEN} holds what is no token: letters, digits and dashes.")
    trust = trusted(address, secure=spoken == "https" or nodes == "https")
    host = address.hosts if ":" in address.hosts.rpartition("]")[2] else f"{address.hosts}:{PORTS[address.scheme]}"

    def finder() -> Consul:
        return Consul(f"{spoken}://{host}", service, nodes, dc=options["dc"], token=token, trust=trust, timeout=options["timeout"])

    name = options["name"] or f"{service}.service.consul"
    return await open_found(address, clock, finder, trust=trust, hostname=name if nodes == "https" else None)


class _Node(msgspec.Struct, frozen=True):
    address: str = msgspec.field(default="", name="Address")


class _Service(msgspec.Struct, frozen=True):
    port: int = msgspec.field(name="Port")
    address: str = msgspec.field(default="", name="Address")
    """Where it is another one than the machine's."""


class _Entry(msgspec.Struct, frozen=True):
    node: _Node = msgspec.field(name="Node")
    service: _Service = msgspec.field(name="Service")


class Consul:
    """See `discovery.Finder`. Lives on one event loop."""

    def __init__(self, url: str, service: str, nodes: str, *, dc: str, token: str | None, trust: Any, timeout: float) -> None:
        """`nodes`: the scheme that they speak. `timeout`: seconds for an answer, beyond those that a question waits."""
        self._url, self._service, self._nodes, self._timeout = url, service, nodes, timeout
        self._query = {"passing": "true"} | ({"dc": dc} if dc else {})
        self._index: int | None = None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trust),
            headers={} if token is None else {"X-Consul-Token": token},
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def find(self) -> Found:
        """See `Finder.find`. Waits for a change where an answer came before. Raises `Unauthorized` too."""
        query, index = self._query, self._index
        if index is not None:
            query = {**query, "index": str(index), "wait": f"{WAIT}s"}
        self._index = None  # Until the answer is there: after a failure it begins again.
        entries, headers = await self._ask(query, self._timeout + (0 if index is None else WAIT * 17 / 16))
        self._index = next_index(index, headers.get("X-Consul-Index"))
        urls = {f"{self._nodes}://{_host(entry.service.address or entry.node.address)}:{entry.service.port}" for entry in entries}
        return Found(sorted(urls), LOOK_MAX if "X-Consul-Index" not in headers else PAUSE)

    async def _ask(self, query: Mapping[str, str], seconds: float) -> tuple[list[_Entry], Mapping[str, str]]:
        limit = aiohttp.ClientTimeout(total=seconds, connect=self._timeout)
        where = f"{self._url}/v1/health/service/{self._service}"
        try:
            async with self._session.get(where, params=query, timeout=limit, allow_redirects=False) as answer:
                data = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"Consul at {self._url} gives no answer: {type(error).__name__} {error}".rstrip() + ".") from error
        if answer.status in (401, 403):
            raise Unauthorized(f"Consul at {self._url} refuses that the service {self._service} is read: set {CONSUL_TOKEN}.", advice="")
        if answer.status != 200:
            raise Unavailable(f"Consul at {self._url} answers with status {answer.status}.")
        try:
            return msgspec.json.decode(data, type=list[_Entry]), answer.headers
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise Unavailable(f"What answers at {self._url} is not Consul, or stands before it: {error}.") from error

    async def close(self) -> None:
        """See `Finder.close`."""
        await self._session.close()


def next_index(before: int | None, said: str | None) -> int | None:
    """The index for the next question; `None`: without one, so that it is answered at once."""
    if said is None or not (said.isascii() and said.isdecimal()):
        return None
    index = int(said)
    if before is not None and index < before:
        return None  # Consul was restored, or another server of it answers: what was seen counts no more.
    return max(index, 1)  # With 0 a question does not wait.


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
