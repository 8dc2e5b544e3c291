"""`perdure serve`: a store over HTTP."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

import perdure
from perdure.cli.common import COMMON, Common
from perdure.cli.exits import UsageError
from perdure.cli.output.terminal import Terminal
from perdure.config import install, shown_url
from perdure.errors import Unsupported

if TYPE_CHECKING:
    from perdure.service.options import ServeOptions

PREFIX = "PERDURE_"
"""Each option is also read from the environment: `--drain-delay` as PERDURE_DRAIN_DELAY. The port from PORT too."""
UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


class ListeningRow(msgspec.Struct, frozen=True):
    """Where a node serves, printed once it does."""

    listening: list[str]
    """The URLs."""
    store: str
    """The store's URL, without secrets."""
    id: str
    """The store's id."""


def serve(
    url: str | None = None,
    /,
    *,
    host: Annotated[str | None, Parameter(show_default=False)] = None,
    port: Annotated[int | None, Parameter(show_default=False)] = None,
    uds: str | None = None,
    ssl_certfile: str | None = None,
    ssl_keyfile: str | None = None,
    root_path: Annotated[str | None, Parameter(show_default=False)] = None,
    forwarded_allow_ips: str | None = None,
    max_body: Annotated[str | None, Parameter(show_default=False)] = None,
    drain_delay: Annotated[float | None, Parameter(show_default=False)] = None,
    drain_timeout: Annotated[float | None, Parameter(show_default=False)] = None,
    log_level: Annotated[Literal["critical", "error", "warning", "info", "debug"] | None, Parameter(show_default=False)] = None,
    allow_anonymous: str | None = None,
    common: Common = COMMON,
) -> None:
    """Serve a store over HTTP until Ctrl-C or SIGTERM. A store that is not there is made.

    Each option is read from the environment too, as PERDURE_HOST; the port also from PORT. Without credentials it serves loopback only.

    Parameters
    ----------
    url
        The store's URL, as with --url.
    host
        The address to listen on; 127.0.0.1 without it.
    port
        The port; 8420 without it, 0 for a free one.
    uds
        A Unix socket to listen on, in place of host and port.
    ssl_certfile
        The certificate and its chain, as PEM.
    ssl_keyfile
        The certificate's key, as PEM.
    root_path
        What a proxy in front puts before each path, such as /perdure.
    forwarded_allow_ips
        Proxies whose X-Forwarded-For is believed: addresses with commas, or *.
    max_body
        Largest body of a request, such as 16MiB, which it is without it.
    drain_delay
        Seconds for which requests are still taken after SIGTERM, while /readyz says no; 5 without it.
    drain_timeout
        Seconds after that for requests in progress; 20 without it.
    log_level
        How much is logged; info without it.
    allow_anonymous
        Serve the sessions of this tenant to everyone who can connect.
    """
    if url is not None:
        if common.url is not None:
            raise UsageError("Name the store once: as the argument, or with --url.")
        common = replace(common, url=url)
    given = {name: value for name, value in locals().items() if name not in ("url", "common") and value is not None}
    try:
        options = make_options(given, os.environ)
        from perdure.service import server
        from perdure.service.node import Node
    except ImportError as error:
        raise Unsupported(f"perdure serve needs {error.name or 'more packages'}: {install('service')}.", advice="") from None
    logging.basicConfig(level=options.log_level.upper(), stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    terminal = common.terminal()

    async def main() -> None:
        opening = perdure.open(common.address, tenant=common.tenant, blobs=common.place, archive=common.archive_place)
        async with opening as store:
            await server.run(Node(store, options), lambda urls: _show(terminal, ListeningRow(urls, shown_url(common.address), store.id)))

    _run(main())


def make_options(given: dict[str, Any], environment: Any) -> ServeOptions:
    """The options, from the command line and then from the environment. Raises `UsageError`."""
    from perdure.errors import Invalid
    from perdure.service.options import ServeOptions, check

    found = dict(given)
    for name in serve.__kwdefaults__ or {}:
        if name not in found and name != "common" and (said := environment.get(PREFIX + name.upper())):
            found[name] = said
    if "port" not in found and environment.get("PORT"):
        found["port"] = environment["PORT"]
    if "max_body" in found:
        found["max_body"] = parse_size(found["max_body"])
    if "allow_anonymous" in found:
        found["anonymous_tenant"] = found.pop("allow_anonymous")
    try:
        options = check(msgspec.convert(found, ServeOptions, strict=False))
    except (msgspec.ValidationError, Invalid) as error:
        raise UsageError(f"{str(error).rstrip('.')}.") from None
    if not options.loopback and options.anonymous_tenant is None:
        raise UsageError(
            f"Without credentials this serves loopback only, and {options.host!r} is no loopback address. To let everyone who can connect"
            " read and write the sessions of one tenant, name it: --allow-anonymous TENANT."
        )
    return options


def parse_size(text: str) -> int:
    """Bytes, of a number with or without KiB, MiB or GiB. Raises `UsageError`."""
    digits = text.strip().rstrip("BbGgIiKkMm").strip()
    unit = text.strip()[len(digits) :].strip().lower()
    if not digits.isascii() or not digits.isdecimal() or unit not in UNITS:
        raise UsageError(f"--max-body takes bytes, as a number with KiB, MiB or GiB, not {text!r}.")
    return int(digits) * UNITS[unit]


def _show(terminal: Terminal, row: ListeningRow) -> None:
    if terminal.json:
        terminal.object(row)
    elif not terminal.quiet:
        terminal.print(f"Serving {row.store} at {' and '.join(row.listening)}")
    sys.stdout.flush()


def _run(work: Any) -> None:
    """Run it on uvloop, where that is."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        asyncio.run(work)
        return
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(work)
