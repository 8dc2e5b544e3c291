"""Every setting of `perdure serve`, with its unit and default."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

import msgspec

from perdure.errors import Invalid
from perdure.model.ids import check_tenant
from perdure.wire import BODY_BYTES_MAX

PORT = 8420


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a node serves. Sizes in bytes, times in seconds."""

    host: str = "127.0.0.1"
    """The address that it listens on. Without credentials: a loopback address."""
    port: int = PORT
    """The port; 0 takes a free one."""
    uds: str | None = None
    """A Unix socket to listen on, in place of host and port."""
    ssl_certfile: str | None = None
    """The certificate, and the chain up to its root, as PEM."""
    ssl_keyfile: str | None = None
    """The certificate's key, as PEM."""
    root_path: str = ""
    """What a proxy in front puts before each path, such as `/perdure`."""
    forwarded_allow_ips: str | None = None
    """Addresses of the proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed, with commas; `*`: all."""
    metrics_port: int | None = None
    """A port for `/metrics` alone, on the same address and without a credential; `None`: with the rest."""
    register: str | None = None
    """The service of Consul that the node is registered in, as `consul+http://127.0.0.1:8500/perdure`."""
    advertise: str | None = None
    """The host, or host:port, that clients reach the node by; `None`: where it listens."""
    max_body: int = BODY_BYTES_MAX
    """Largest body of a request."""
    max_headers: int = 64 << 10
    """Largest head of a request: its line and headers."""
    header_timeout: float = 10.0
    """Seconds for the head of a request to arrive."""
    body_timeout: float = 30.0
    """Seconds for each 64 KiB of a body, or its rest, to arrive."""
    keep_alive: float = 75.0
    """Seconds for which a connection without a request stays open: longer than proxies keep theirs."""
    max_connections: int = 20_000
    """Connections that are served at once; another one is answered 503 and closed."""
    stream_seconds: float = 60.0
    """About how long an event stream stays open before the client has to resume it."""
    heartbeat: float = 15.0
    """Seconds between two signs of life of an event stream, and between two checkpoints of `/v1/changes`."""
    drain_delay: float = 5.0
    """Seconds, from the signal to stop, in which requests are still taken while `/readyz` says no."""
    drain_timeout: float = 20.0
    """Seconds after that for requests in progress to finish."""
    log_level: str = "info"
    """critical, error, warning, info or debug."""
    anonymous_tenant: str | None = None
    """Whose sessions a request without credentials works on, from everywhere; `None`: those of `default`, from loopback only."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that a `Host` header may have besides loopback, where loopback is required."""

    @property
    def loopback(self) -> bool:
        """Whether nobody but this machine can connect."""
        return self.uds is not None or is_loopback(self.host)


@lru_cache(1_024)
def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by name or address."""
    if host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False


def check(options: ServeOptions) -> ServeOptions:
    """The options themselves. Raises `Invalid` for what cannot work."""
    if not 0 <= options.port <= 65_535:
        raise Invalid(f"--port takes 0 to 65,535, not {options.port}.", advice="")
    if (options.ssl_keyfile is None) != (options.ssl_certfile is None):
        raise Invalid("--ssl-certfile and --ssl-keyfile belong together: pass both.", advice="")
    if options.root_path and (not options.root_path.startswith("/") or options.root_path.endswith("/")):
        raise Invalid(f"--root-path begins with a slash and does not end with one, not {options.root_path!r}.", advice="")
    for name in ("header_timeout", "body_timeout", "keep_alive", "stream_seconds", "heartbeat"):
        if not 0 < getattr(options, name) <= 86_400:
            raise Invalid(f"--{name.replace('_', '-')} takes more than 0 and at most 86,400 seconds.", advice="")
    for name in ("drain_delay", "drain_timeout"):
        if not 0 <= getattr(options, name) <= 86_400:
            raise Invalid(f"--{name.replace('_', '-')} takes 0 to 86,400 seconds.", advice="")
    for name in ("max_body", "max_headers"):
        if getattr(options, name) < 1_024:
            raise Invalid(f"--{name.replace('_', '-')} takes at least 1 KiB.", advice="")
    if options.anonymous_tenant is not None:
        check_tenant(options.anonymous_tenant)
    return options
