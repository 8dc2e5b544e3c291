"""Nodes that SRV records of the DNS name: `perdure.open("https+srv://_perdure._tcp.perdure.agents.svc.cluster.local")`.

Priority  nodes of the lowest number are used, and no others
Weight    ignored: which node takes a request is decided by load
Target .  says that there is no service: an answer without nodes
TTL       the answer is asked for again after it, within `discovery.LOOK_MIN` and `LOOK_MAX`
TLS       certificates are checked by the name in the URL without its labels that begin with _, and never by a target's
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver
from aiohttp.abc import AbstractResolver, ResolveResult

from perdure.backends.http import OPTIONS, open_found, trusted
from perdure.backends.http.discovery import LOOK_MAX, LOOK_MIN, Found
from perdure.backends.remote import RemoteBackend, parse_address
from perdure.clock import Clock
from perdure.errors import Invalid, Unavailable

PAYLOAD = 1232
"""Bytes of an answer that may come over UDP; a longer one is asked for over TCP."""


def resolver_address(text: str) -> tuple[str, int]:
    """`127.0.0.1`, `127.0.0.1:5353`, `[::1]:5353`."""
    host, colon, port = text.rpartition(":") if text.count(":") == 1 or "]:" in text else (text, "", "53")
    try:
        address = str(ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        address = ""
    if not address or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536) or (colon and not port):
        raise ValueError("is the address of a resolver, such as 127.0.0.1:5353")
    return address, int(port)


SRV_OPTIONS: dict[str, tuple[Any, Any]] = {**OPTIONS, "dns": (None, resolver_address)}
"""What stands in a URL: as for http://, and the address of a resolver in place of the system's."""


async def open(url: str, *, clock: Clock, create: bool = True) -> RemoteBackend:  # noqa: ARG001 - a node has made its store
    """Open `http+srv://name?option=value`, or https+srv. The token is the environment's `PERDURE_TOKEN`.

    Raises `Invalid`, `Unauthorized`, `Unavailable`, `Unsupported`.
    """
    address = parse_address(url, SRV_OPTIONS, reads="it reads http+srv://name?option=value, or https+srv")
    if "," in address.hosts or ":" in address.hosts:
        raise Invalid(f"{address.place!r} names no SRV record: it is one name without a port, such as _perdure._tcp.agents.example.com.")
    secure, options = address.scheme == "https+srv", address.options
    lifetime = min(options["connect_timeout"], options["timeout"])
    srv = Srv(address.hosts, "https" if secure else "http", address.path.rstrip("/"), options["dns"], lifetime)
    resolver = None if options["dns"] is None else lambda: Resolver(options["dns"], lifetime)
    hostname = certified(address.hosts) if secure else None
    return await open_found(address, clock, lambda: srv, trust=trusted(address, secure=secure), hostname=hostname, resolver=resolver)


def certified(name: str) -> str:
    """The name that the nodes' certificates have to hold."""
    labels = name.rstrip(".").split(".")
    while len(labels) > 1 and labels[0].startswith("_"):
        del labels[0]
    return ".".join(labels)


class Srv:
    """See `discovery.Finder`."""

    def __init__(self, name: str, scheme: str, path: str, server: tuple[str, int] | None, lifetime: float) -> None:
        """`server`: address and port of the resolver; `None`: the system's. `lifetime`: seconds for an answer."""
        self._name, self._scheme, self._path, self._server, self._lifetime = name.rstrip("."), scheme, path, server, lifetime

    async def find(self) -> Found:
        """See `Finder.find`."""
        try:
            answer = await _resolver(self._server).resolve(self._name + ".", "SRV", lifetime=self._lifetime, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            return Found((), LOOK_MIN)
        except (dns.exception.DNSException, OSError) as error:
            raise Unavailable(f"The DNS gives no SRV records of {self._name}: {_reason(error)}.") from error
        again = min(max(float(answer.chaining_result.minimum_ttl), LOOK_MIN), LOOK_MAX)
        records = list(answer.rrset or ())
        lowest = min((record.priority for record in records), default=0)
        places = {
            f"{record.target.to_text(omit_final_dot=True).lower()}:{record.port}"
            for record in records
            if record.priority == lowest and record.target != dns.name.root
        }
        return Found([f"{self._scheme}://{place}{self._path}" for place in sorted(places)], again if places else LOOK_MIN)

    async def close(self) -> None:
        """See `Finder.close`."""


class Resolver(AbstractResolver):
    """Addresses of names for aiohttp, from one resolver."""

    def __init__(self, server: tuple[str, int], lifetime: float) -> None:
        self._server, self._lifetime = server, lifetime

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """See `AbstractResolver.resolve`."""
        try:
            answers = await _resolver(self._server).resolve_name(host.rstrip(".") + ".", family, lifetime=self._lifetime)
        except (dns.exception.DNSException, OSError) as error:
            raise OSError(None, f"The DNS gives no address of {host}: {_reason(error)}") from error
        return [
            ResolveResult(hostname=host, host=address, port=port, family=found, proto=0, flags=socket.AI_NUMERICHOST)
            for address, found in answers.addresses_and_families()
        ]

    async def close(self) -> None:
        """See `AbstractResolver.close`."""


def _resolver(server: tuple[str, int] | None) -> dns.asyncresolver.Resolver:
    """A resolver as the system is set up now, or of that address."""
    resolver = dns.asyncresolver.Resolver(configure=server is None)
    if server is not None:
        resolver.nameservers, resolver.port = [server[0]], server[1]
    resolver.use_edns(0, 0, PAYLOAD)
    return resolver


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__} {error}".strip().rstrip(".")
