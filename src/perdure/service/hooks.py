"""What the parts plug into that know who asks, how much they may ask, and what is noted of it. Each has a default that does nothing.

`Authenticator` (room `auth`)  a request's head -> a `Credential`
`Limits`        (room `limits`)  whether a credential may have one more request now
`Observer`      (room `observe`)  what is counted, logged and traced

They are given to `Node`. A request goes through them in that order, between the match of its route and its handler.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from typing import Protocol

import msgspec
from opentelemetry import context as otel_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from perdure.errors import Unauthorized

_PROPAGATOR = TraceContextTextMapPropagator()


class Scope(Enum):
    """What a credential may do."""

    read = "read"
    append = "append"
    lease = "lease"
    admin = "admin"


class Credential(msgspec.Struct, frozen=True):
    """Who asks."""

    tenant: str
    """Whose sessions the request works on. No route takes a tenant from anywhere else."""
    scopes: frozenset[Scope] = frozenset(Scope)
    name: str = "anonymous"
    """For logs; never a secret."""
    actor: str | None = None
    """The only actor that its commits may name, and the one that they name where they do not say; `None`: any."""
    expires: float | None = None
    """When it ends, in seconds since 1970: a stream ends then."""


class RequestHead(msgspec.Struct, frozen=True):
    """What is known of a request before its body is read."""

    method: str
    route: str
    """The route's path as the table has it, such as `/v1/sessions/{id}`: of few values, so fit for metrics. "" where none matched."""
    headers: Mapping[str, str]
    """By lower-case names; of a name that came several times, all with commas. `Authorization` that came twice is refused before."""
    client: str
    """The client's address."""
    trace_id: str | None
    """The trace that the request belongs to."""
    watches: bool = False
    """Whether it is answered by waiting for what happens: an event stream or a long poll."""


class Authenticator(Protocol):
    """Finds out who asks."""

    async def credential(self, head: RequestHead) -> Credential:
        """The credential of a request. Raises `Unauthorized` where there is none or it does not hold (answered 401)."""
        ...


class Admission:
    """What one request may take. This one is asked nothing and refuses nothing."""

    async def start(self) -> None:
        """Wait for a turn before the engine, once the body has arrived: who sends slowly holds no turn. Raises `Unavailable`."""

    def done(self) -> None:
        """The engine has done its work: the turn ends, before the answer is sent. Calling it twice is calling it once."""

    def charge(self, *, commits: int = 0, bytes: int = 0) -> None:
        """The request asks for so much more than its head said. Raises `QuotaExceeded`; then nothing may have been done yet."""

    def sent(self, bytes: int) -> None:
        """So much was answered."""


class Limits(Protocol):
    """Says how much may be asked."""

    def admit(self, head: RequestHead, credential: Credential) -> AbstractAsyncContextManager[Admission]:
        """Entered before a request's body is read, left when its answer is sent. Entering may raise `QuotaExceeded` (429)."""
        ...


class Span(Protocol):
    """What a trace notes of one request."""

    trace_id: str | None
    """The trace that it belongs to, also where the request brought none."""

    def admitted(self, credential: Credential, session: str | None) -> None:
        """Who asks, and for which session."""

    def answered(self, status: int, code: str) -> None:
        """See `Observer.finished`."""


class Observer(Protocol):
    """Notes what happens. Its methods return soon and raise nothing."""

    def began(self, head: RequestHead) -> None:
        """A request came."""

    def span(self, head: RequestHead) -> AbstractContextManager[Span]:
        """Entered before the credential is asked, left when the answer is sent: what happens in it belongs to the request's trace."""
        ...

    def finished(self, head: RequestHead, credential: Credential | None, status: int, code: str, seconds: float) -> None:
        """It was answered with this status; `code` is that of the error, or "". Of a stream: it has ended. 499: the client went away."""


class Anonymous:
    """No credentials: everyone who can connect is one and the same."""

    def __init__(self, tenant: str) -> None:
        self._credential = Credential(tenant)

    async def credential(self, head: RequestHead) -> Credential:
        """Raises `Unauthorized` for a request that brings a credential: it expects that to be checked, and nobody does."""
        if "authorization" in head.headers:
            raise Unauthorized("This node knows no credentials: send the request without Authorization.", advice="")
        return self._credential


class NoLimits:
    """Everything may be asked."""

    def admit(self, head: RequestHead, credential: Credential) -> AbstractAsyncContextManager[Admission]:  # noqa: ARG002
        return nullcontext(_ADMISSION)


_ADMISSION = Admission()


class NoSpan:
    """Of a request that nobody traces."""

    def __init__(self, trace_id: str | None) -> None:
        self.trace_id = trace_id

    def admitted(self, credential: Credential, session: str | None) -> None:
        pass

    def answered(self, status: int, code: str) -> None:
        pass


_UNTRACED: AbstractContextManager[Span] = nullcontext(NoSpan(None))


class NoObserver:
    """Nothing is noted. What a request writes belongs to the trace that it came with."""

    def began(self, head: RequestHead) -> None:
        pass

    def span(self, head: RequestHead) -> AbstractContextManager[Span]:
        return _UNTRACED if head.trace_id is None else self._in_trace(head)

    @contextmanager
    def _in_trace(self, head: RequestHead) -> Iterator[Span]:
        token = otel_context.attach(_PROPAGATOR.extract(head.headers))
        try:
            yield NoSpan(head.trace_id)
        finally:
            otel_context.detach(token)

    def finished(self, head: RequestHead, credential: Credential | None, status: int, code: str, seconds: float) -> None:
        pass
