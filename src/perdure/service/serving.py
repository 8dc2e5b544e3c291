"""Puts a node together from its parts, and runs it: who may call, how much, and what is seen of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import msgspec
from opentelemetry.sdk.resources import OTELResourceDetector, Resource

import perdure
from perdure.engine.store import Store
from perdure.errors import Invalid
from perdure.service import server
from perdure.service.auth.credentials import Credentials
from perdure.service.auth.jwt import Jwt, JwtOptions
from perdure.service.auth.records import has_tokens
from perdure.service.auth.tokens import Tokens
from perdure.service.hooks import Anonymous, Authenticator
from perdure.service.limits.options import LimitOptions
from perdure.service.limits.tenants import TenantLimits
from perdure.service.node import Node
from perdure.service.observe import exposition, log, tracing
from perdure.service.observe.metrics import Metrics
from perdure.service.observe.observer import NodeObserver
from perdure.service.observe.port import metrics_port
from perdure.service.observe.tracing import Tracing
from perdure.service.options import ServeOptions
from perdure.service.registration import Registration


class AccessOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Who may call."""

    tokens: bool = False
    """Ask for credentials also while the store has no token yet. With one, they are asked for anyhow."""
    jwt: JwtOptions | None = None
    """The identity provider whose tokens hold too."""


async def authenticator_for(store: Store, options: ServeOptions, access: AccessOptions) -> Authenticator:
    """Who finds out who calls. Raises `Invalid` where nobody would, and others than this machine can connect."""
    asked = access.tokens or access.jwt is not None
    if options.anonymous_tenant is not None:
        if asked:
            raise Invalid("--allow-anonymous lets everyone in, so it does not go with --tokens or --jwt-issuer.", advice="")
        return Anonymous(options.anonymous_tenant)
    if asked or await has_tokens(store):
        clock = store._core.clock
        return Credentials(Tokens(store, clock), None if access.jwt is None else Jwt(access.jwt, clock))
    if options.loopback:
        return Anonymous("default")
    raise Invalid(not_loopback(options), advice="")


def not_loopback(options: ServeOptions) -> str:
    """Why this address is not served without credentials, and what to do."""
    return (
        f"Without credentials this serves loopback only, and {options.host!r} is no loopback address. Make a token with `perdure tokens"
        " create`, pass --tokens or --jwt-issuer, or let everyone who can connect read and write the sessions of one tenant:"
        " --allow-anonymous TENANT."
    )


async def serve(
    store: Store, options: ServeOptions, access: AccessOptions, limits: LimitOptions, started: Callable[[list[str]], None] | None = None
) -> None:
    """Serve until a signal ends it. The process's log, metrics and traces are set up for it. Raises `Invalid`, `Unsupported`."""
    authenticator = await authenticator_for(store, options, access)
    registration = None if options.register is None else Registration(options.register, options.advertise, options)
    resource = Resource.create({"service.name": "perdure", "service.version": perdure.__version__})
    resource = resource.merge(OTELResourceDetector().detect())  # What the environment says goes first.
    end_of_traces = tracing.install(resource)
    exposition.install(resource)
    store._core.telemetry.look()
    metrics, as_json = Metrics(), not sys.stderr.isatty()
    async with AsyncExitStack() as stack:
        write = stack.enter_context(log.LineWriter(sys.stderr, metrics.dropped))
        log.install(write, options.log_level, json=as_json)
        stack.callback(end_of_traces)
        tenant_limits = TenantLimits(limits, store._core.clock.monotonic, metrics.refused)
        metrics.watch_turns(lambda: tenant_limits.queue.waiting, lambda: tenant_limits.queue.free)
        node = Node(
            store,
            options,
            authenticator=authenticator,
            limits=tenant_limits,
            observer=NodeObserver(metrics, Tracing(), log.access_logger(write, options.log_level, json=as_json)),
            exposition=exposition.exposed,
        )
        if options.metrics_port is not None:
            await stack.enter_async_context(metrics_port(options.host, options.metrics_port, exposition.exposed))
        await server.run(node, started if registration is None else _registering(registration, node, started, stack))


def _registering(
    registration: Registration, node: Node, started: Callable[[list[str]], None] | None, stack: AsyncExitStack
) -> Callable[[list[str]], None]:
    """As `started`; the node is registered from then on, and the stack waits until it is taken out."""

    def registering(urls: list[str]) -> None:
        keeping = asyncio.ensure_future(registration.keep(node, urlsplit(urls[0]).port or 0))

        async def taken_out() -> None:
            node.draining.set()
            await keeping

        stack.push_async_callback(taken_out)
        if started is not None:
            started(urls)

    return registering
