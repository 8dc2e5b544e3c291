"""A node in Consul: registered with a check that the node itself keeps passing, and taken out when it drains.

Check    passes for `TTL` seconds each time that the node is ready; one that is not says why, and the check is critical
Lost     a check that Consul does not know any more is registered again
Killed   a node that cannot say so is critical after `TTL`, and Consul takes it out after `REMOVED`
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import re
import ssl
from collections.abc import Callable
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

import msgspec

from perdure.backends.remote.urls import parse_address
from perdure.errors import Invalid
from perdure.service.node import Node
from perdure.service.options import ServeOptions

TOKEN = "CONSUL_HTTP_TOKEN"
"""The environment variable with Consul's token."""
TTL, BEAT = 15, 5.0
"""Seconds for which a check passes, and between two reports."""
REMOVED = "1m"
"""How long a check is critical before Consul takes the node out: its shortest."""
TIMEOUT = 5.0
"""Seconds for an answer of Consul."""
_PORTS = {"consul+http": 8500, "consul+https": 8501}
_log = logging.getLogger("perdure.service")

Put = Callable[[str, Any], None]
"""Sends a path and a JSON value to Consul, from a thread. Raises `OSError`, `HTTPException`."""


class Registration:
    """What `--register` and `--advertise` say."""

    def __init__(self, url: str, advertise: str | None, options: ServeOptions, put: Put | None = None) -> None:
        """`advertise`: the host, or host:port, that clients reach the node by. Raises `Invalid`."""
        address = parse_address(url, {"ca": ("", str)})
        self.service = address.path.strip("/")
        if address.scheme not in _PORTS or not re.fullmatch(r"[\w.-]{1,128}", self.service, re.ASCII) or "," in address.hosts:
            what = f"--register {address.place} names no service of Consul"
            raise Invalid(f"{what}: it reads consul+http://127.0.0.1:8500/perdure.", advice="")
        if address.user is not None:
            raise Invalid(f"--register {address.place} has a user: Consul's token is the environment variable {TOKEN}.", advice="")
        if options.uds is not None:
            raise Invalid("--register is for a node with a port, and --uds has none.", advice="")
        self._host, self._port = _place(advertise or (f"[{options.host}]" if ":" in options.host else options.host))
        if advertise is None and _is_any(self._host):
            raise Invalid("--register needs --advertise: the address that clients reach this node by.", advice="")
        host = address.hosts if ":" in address.hosts.rpartition("]")[2] else f"{address.hosts}:{_PORTS[address.scheme]}"
        base = f"{address.scheme.removeprefix('consul+')}://{host}"
        self._put = put or _Http(base, unquote(address.options["ca"])).put

    async def keep(self, node: Node, port: int) -> None:
        """Keep the node registered until it drains, then take it out. `port`: where it listens."""
        port = self._port or port
        id = f"{self.service}-{self._host}-{port}"
        known = False
        while not node.draining.is_set():
            why = await node.ready()
            try:
                if not known:
                    await asyncio.to_thread(self._put, "/v1/agent/service/register", self._entry(id, port))
                known = True
                said = {"Status": "critical" if why else "passing", "Output": why}
                await asyncio.to_thread(self._put, f"/v1/agent/check/update/{quote(id, safe='')}", said)
            except HTTPError as error:
                known = False  # Whatever it lost, registering again is the same as once.
                what = f"set {TOKEN} to a token that may write the service" if error.code in (401, 403) else "it is registered again"
                _log.warning("Consul answers %d to the registration of this node: %s.", error.code, what)
            except (OSError, HTTPException) as error:
                _log.warning("Consul cannot be reached to register this node: %s", error)
            try:
                async with asyncio.timeout(BEAT if known else BEAT / 5):
                    await node.draining.wait()
            except TimeoutError:
                continue
        try:
            await asyncio.to_thread(self._put, f"/v1/agent/service/deregister/{quote(id, safe='')}", None)
        except (OSError, HTTPException) as error:
            _log.warning("This node could not be taken out of Consul: %s", error)

    def _entry(self, id: str, port: int) -> dict[str, Any]:
        check = {"CheckID": id, "Name": "ready", "TTL": f"{TTL}s", "Status": "critical", "DeregisterCriticalServiceAfter": REMOVED}
        return {"ID": id, "Name": self.service, "Address": self._host, "Port": port, "Check": check}


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """A redirect may lead anywhere: it is an error."""


class _Http:
    """Consul's agent."""

    def __init__(self, base: str, ca: str) -> None:
        try:
            trust = ssl.create_default_context(cafile=ca or None)
        except OSError as error:
            raise Invalid(f"The file of the option ca of --register cannot be used: {error}.", advice="") from error
        self._base = base
        self._opener = build_opener(ProxyHandler({}), HTTPSHandler(context=trust), _NoRedirect)
        token = os.environ.get(TOKEN)
        self._headers = {"Content-Type": "application/json", "User-Agent": "perdure"} | ({"X-Consul-Token": token} if token else {})

    def put(self, path: str, value: Any) -> None:
        """See `Put`."""
        body = b"" if value is None else msgspec.json.encode(value)
        request = Request(self._base + path, data=body, headers=self._headers, method="PUT")  # noqa: S310 - the scheme was checked
        with self._opener.open(request, timeout=TIMEOUT) as answer:
            answer.read(1 << 16)


def _place(text: str) -> tuple[str, int]:
    """Host and port; 0: that of the node. Raises `Invalid`."""
    try:
        split = urlsplit(f"//{text}")
        if split.hostname and split.netloc == text and "@" not in text:
            return split.hostname, split.port or 0
    except ValueError:
        pass
    raise Invalid(f"--advertise takes a host, or host:port, not {text[:80]!r}.", advice="")


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
