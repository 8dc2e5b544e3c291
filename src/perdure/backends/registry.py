"""From a URL to an engine: by entry points, so that nothing here names what is installed elsewhere."""

from __future__ import annotations

import os
import re
from importlib import import_module
from inspect import signature
from typing import Any

from perdure.backends.spi import Backend
from perdure.clock import Clock
from perdure.config import install
from perdure.errors import Invalid, NotFound, Unsupported
from perdure.redaction import Secrets, shown_url

GROUP = "perdure.backends"
"""The entry-point group in which engines register `scheme = "module:open"`."""
_MODULES = {
    "memory": "memory",
    "sqlite": "sqlite",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "cassandra": "cassandra",
    "mongodb": "mongodb",
    "mongodb+srv": "mongodb",
    "dynamodb": "dynamodb",
    "etcd": "etcd",
    "file": "objects",
    "s3": "objects.s3",
    "gs": "objects.gs",
    "az": "objects.az",
    "firestore": "google.firestore",
    "datastore": "google.datastore",
    "redis": "redis",
    "rediss": "redis",
    "redis+sentinel": "redis",
    "rediss+sentinel": "redis",
    "redis+cluster": "redis",
    "rediss+cluster": "redis",
    "http": "http",
    "https": "http",
    "http+srv": "http.srv",
    "https+srv": "http.srv",
    "consul+http": "http.consul",
    "consul+https": "http.consul",
}
"""The module of each scheme that is shipped, in this package; each has an `open`. The first part of its name is the engine's, and the name
of the extra that installs its driver."""


SERVED = ("http", "https", "http+srv", "https+srv", "consul+http", "consul+https")
"""The schemes of a service: bodies out of line, archive and caches are the business of its nodes."""


def is_served(url: str) -> bool:
    """Whether a URL is that of a service."""
    return url.partition(":")[0] in SERVED


def schemes() -> list[str]:
    """The URL schemes that can be opened here, sorted."""
    return sorted({*_MODULES, *_registered()})


def _registered() -> dict[str, str]:
    from importlib.metadata import entry_points  # takes a quarter of the time of `import perdure`, and is rarely needed

    return {entry.name: entry.value for entry in entry_points(group=GROUP)}


async def open_backend(url: str, *, clock: Clock, create: bool = True) -> Backend:
    """Open the engine that a URL names. `create=False`: make nothing; where something is missing, `NotFound` names it.

    Raises `Invalid` for a URL nobody serves, `Unsupported` for a missing extra, and for an engine that cannot help creating.
    """
    scheme, colon, _ = url.partition(":") if type(url) is str else ("", "", "")
    if not colon or re.match(r"[A-Za-z]:[\\/]", url):  # the drive of a path
        raise Invalid(_no_url(url))
    try:
        return await _opened(_factory(scheme, url), scheme, url, clock, create=create)
    except Exception as error:  # noqa: BLE001 - raised below, and not from here: it would keep what it was before as its context
        failed = Secrets(url).cleaned(error)
    raise failed


async def _opened(factory: Any, scheme: str, url: str, clock: Clock, *, create: bool) -> Backend:
    if create:
        backend: Backend = await factory(url, clock=clock)
        return backend
    if "create" not in signature(factory).parameters:
        raise Unsupported(f"The engine of {scheme}: URLs makes what is missing when it is opened: create=False is not for it.")
    try:
        backend = await factory(url, clock=clock, create=False)
    except Invalid as error:
        if "missing" not in error.facts:
            raise
        raise NotFound(error.detail, **error.facts) from error
    return backend


def _no_url(url: object) -> str:
    """The message for what is no URL. It is shown only where it is a file's name: anything else might be a secret."""
    text = str(url) if isinstance(url, (str, os.PathLike)) else ""
    if re.fullmatch(r"(?:[A-Za-z]:)?[\w ~./\\-]*[./\\][\w ~./\\-]*", text):
        file = text.removeprefix("./")
        return f"{text!r} is no store URL: for a file of that name write {f'sqlite:///{file}'!r}."
    what = "This is" if type(url) is str else f"{type(url).__name__!r} is the type of"
    return f"{what} no store URL: write memory: or sqlite:///file.db; the schemes here are {', '.join(schemes())}."


def _factory(scheme: str, url: str) -> Any:
    shipped = _MODULES.get(scheme)
    target = _registered().get(scheme) if shipped is None else f"{__package__}.{shipped}:open"
    if target is None:
        raise Invalid(f"No engine serves {shown_url(url)!r}; the schemes here are {', '.join(schemes())}.")
    module, _, name = target.partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("perdure"):
            raise
        extra = (shipped or scheme).partition(".")[0]
        raise Unsupported(f"{scheme}: needs the module {error.name!r}: {install(extra)}.") from error
