"""`perdure serve`: a store over HTTP."""

from __future__ import annotations

import asyncio
import os
import sys
from contextvars import copy_context
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

import perdure
from perdure.cli.commands.serve_flags import ACCESS, LIMITS, Access, Limits, parse_size
from perdure.cli.common import COMMON, Common
from perdure.cli.exits import UsageError
from perdure.cli.output.terminal import Terminal
from perdure.config import install, shown_url
from perdure.errors import Invalid, NotFound, Unsupported

if TYPE_CHECKING:
    from perdure.service.options import ServeOptions
    from perdure.service.serving import AccessOptions

PREFIX = "PERDURE_"
"""Each option is also read from the environment: `--drain-delay` as PERDURE_DRAIN_DELAY. The port from PORT too."""
GROUPS = ("access", "limits", "common")
"""Parameters that are groups of options."""


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
    metrics_port: int | None = None,
    register: str | None = None,
    advertise: str | None = None,
    max_body: Annotated[str | None, Parameter(show_default=False)] = None,
    drain_delay: Annotated[float | None, Parameter(show_default=False)] = None,
    drain_timeout: Annotated[float | None, Parameter(show_default=False)] = None,
    log_level: Annotated[Literal["critical", "error", "warning", "info", "debug"] | None, Parameter(show_default=False)] = None,
    allow_anonymous: str | None = None,
    access: Access = ACCESS,
    limits: Limits = LIMITS,
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
    metrics_port
        A port for /metrics alone, without a credential: for a network that only the monitoring reaches.
    register
        Register the node in Consul, such as consul+http://127.0.0.1:8500/perdure, until it drains.
    advertise
        The host, or host:port, that is registered; where it listens without it.
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
    given = {name: value for name, value in locals().items() if name not in (*GROUPS, "url") and value is not None}
    try:
        options = make_options(given, os.environ)
        who, how_much = access.options(os.environ), limits.options(os.environ)
        from perdure.service import serving
    except ImportError as error:
        raise Unsupported(f"perdure serve needs packages that are not installed here: {install('service')}.", advice="") from error
    terminal = common.terminal()
    where: dict[str, Any] = {"tenant": common.tenant, "blobs": common.place, "archive": common.archive_place}

    async def main() -> None:
        if not (options.loopback or options.anonymous_tenant or who.tokens or who.jwt):
            await _check_credentials(common.address, where, options, who)  # Before a store is made that would not be served.
        async with perdure.open(common.address, **where) as store:
            row = shown_url(common.address), store.id
            await serving.serve(store, options, who, how_much, lambda urls: _show(terminal, ListeningRow(urls, *row)))

    _run(main())


async def _check_credentials(url: str, where: dict[str, Any], options: ServeOptions, access: AccessOptions) -> None:
    """Raise `UsageError` unless the store has tokens: without, nobody but this machine may connect."""
    from perdure.service import serving

    try:
        async with perdure.open(url, **where, create=False) as store:
            await serving.authenticator_for(store, options, access)
    except NotFound:
        raise UsageError(serving.not_loopback(options)) from None
    except Invalid as error:
        raise UsageError(str(error)) from None


def make_options(given: dict[str, Any], environment: Any) -> ServeOptions:
    """The options, from the command line and then from the environment. Raises `UsageError`."""
    from perdure.service.options import ServeOptions, check

    found = dict(given)
    for name in serve.__kwdefaults__ or {}:
        if name not in found and name not in GROUPS and (said := environment.get(PREFIX + name.upper())):
            found[name] = said
    if "port" not in found and environment.get("PORT"):
        found["port"] = environment["PORT"]
    if "max_body" in found:
        found["max_body"] = parse_size(found["max_body"], "--max-body")
    if "allow_anonymous" in found:
        found["anonymous_tenant"] = found.pop("allow_anonymous")
    try:
        options = check(msgspec.convert(found, ServeOptions, strict=False))
    except (msgspec.ValidationError, Invalid) as error:
        raise UsageError(f"{str(error).rstrip('.')}.") from None
    return options


def _show(terminal: Terminal, row: ListeningRow) -> None:
    if terminal.json:
        terminal.object(row)
    elif not terminal.quiet:
        terminal.print(f"Serving {row.store} at {' and '.join(row.listening)}")
    sys.stdout.flush()


def _run(work: Any) -> None:
    """Run it on uvloop, where that is, and the engine's client too, where that works on any loop."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        asyncio.run(work)
        return
    from perdure.backends.remote.loop import LOOP_FACTORY

    context = copy_context()
    context.run(LOOP_FACTORY.set, new_event_loop)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(work, context=context)
