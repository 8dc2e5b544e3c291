"""Who may call a node that asks for no credentials: programs of this machine, and no web page of another site.

A page of any site can send requests to loopback, and with a name that it lets point there (DNS rebinding) read the answers too.
So the `Host` has to be a loopback name, and an `Origin` has to be this very node.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from perdure.service.options import ServeOptions, is_loopback
from perdure.service.refusals import Forbidden, Misdirected


def check_origin(headers: Mapping[str, str], options: ServeOptions) -> None:
    """Raise `Misdirected` for a foreign `Host`, `Forbidden` for a foreign `Origin`."""
    host = headers.get("host", "")
    name = _name(host)
    if not is_loopback(name) and name not in options.allowed_hosts:
        raise Misdirected(f"The Host {host[:80]!r} is not this machine.")
    origin = headers.get("origin")
    if origin is None:
        return
    scheme, _, place = origin.partition("://")
    if scheme.lower() not in ("http", "https") or place.lower() != host.lower():
        raise Forbidden(f"A page of {origin[:80]!r} may not call this node.", advice="")


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
