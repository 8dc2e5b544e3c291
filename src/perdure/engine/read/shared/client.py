"""What a shared cache's client can do, and from a URL to one."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

from perdure.config import install
from perdure.errors import Invalid, Unsupported
from perdure.redaction import shown_url

UNDER_WAY_MAX = 16
"""Most requests of a store under way at once, and most connections of a client. What comes on top is not sent."""
_MODULES = {"redis": "redis", "rediss": "redis", "memcached": "memcached"}
"""The module of each URL scheme, in this package; each has an `open`. It is the name of the extra too that installs the client library."""


class CacheClient(Protocol):
    """A client of one cache. Every method is called on the one loop that owns it; what it raises means that the request failed."""

    bytes_max: int
    """Largest value that is sent."""

    async def get(self, key: bytes) -> bytes | None:
        """The value; `None` where there is none."""
        ...

    async def put(self, key: bytes, value: bytes, seconds: int) -> None:
        """Keep a value for so many seconds, or less."""
        ...

    async def delete(self, key: bytes) -> None:
        """Forget a value, if there is one."""
        ...

    async def close(self) -> None:
        """Let go of all connections."""
        ...


def open_client(url: object, timeout: float) -> CacheClient:
    """The client that a URL names; nothing is sent yet. `timeout` in seconds, for one step of a request.

    Raises `Invalid` for a URL that nobody serves, `Unsupported` for a missing client library.
    """
    if type(url) is not str or ":" not in url:
        raise Invalid(f"shared_cache is a URL, such as redis://host:6379/0 or memcached://host:11211, and not a {type(url).__name__}.")
    scheme = url.partition(":")[0]
    if scheme not in _MODULES:
        raise Invalid(f"No shared cache serves {shown_url(url)!r}; the schemes are {', '.join(sorted(_MODULES))}.")
    try:
        module = import_module(f"{__package__}.{_MODULES[scheme]}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("perdure"):
            raise
        raise Unsupported(f"A shared cache at {scheme}: needs the module {error.name!r}: {install(_MODULES[scheme])}.") from error
    client: CacheClient = module.open(url, timeout)
    return client
