"""Requests to nodes: to which, for how long, and what may be believed of what comes back.

Only an answer that names the store of this client, and has our form, was given by a node. Anything else that comes back for a write, and
nothing at all, leaves open whether it was done: `Unknown`. A connection that was never made is `Unavailable`; then another node is asked.
"""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from opentelemetry.trace import Span

from perdure.backends.http.pool import Member, Pool
from perdure.backends.http.tracing import requesting
from perdure.errors import Error, Invalid, Unauthorized, Unavailable, Unknown, Unsupported
from perdure.model.ids import SessionKey
from perdure.wire import HEADER_DEADLINE, HEADER_KEY, HEADER_LEASE, HEADER_STORE, HEADER_WIRE, JSON, MSGPACK, WIRE_VERSION
from perdure.wire import records as wire
from perdure.wire.problem import error_of

T = TypeVar("T")
TRIES_MAX = 3
"""Nodes that are asked one after another for what was certainly not done."""
SHARE = 0.5
"""Of the time that is left a read gives so much to a node that is not the last one it can ask: one that hangs does not take it all."""
SILENCE = 50.0
"""Seconds without a sign of life after which a stream of notices is given up."""
IDLE = 30.0
"""Seconds after which a connection without requests is closed: the next one is made by the names as they are then."""
PIECES_FROM = 1 << 20
"""Bodies with more bytes go in pieces."""
_NAMED = re.compile(r"(/v1/(?:sessions|consumers)/)[^/]+")
_MORE = 0.25
"""Seconds beyond its deadline that an answer is waited for: a node settles well before."""


RECORDS = {"Accept": MSGPACK, "Content-Type": MSGPACK}
"""The media of the record face."""


class Resource(msgspec.Struct, frozen=True):
    """A request to a resource route; see `spi.Served.ask`."""

    method: str
    path: str
    body: bytes | None = None
    key: str | None = None
    lease: str | None = None
    seconds: float | None = None
    repeatable: bool = False

    @property
    def route(self) -> str:
        """Its path with a place where the name of a session or of a consumer stands."""
        return _NAMED.sub(lambda found: found[1] + ("{id}" if "sessions" in found[1] else "{name}"), self.path.partition("?")[0])

    @property
    def headers(self) -> Mapping[str, str]:
        """What it says besides."""
        said = {"Accept": JSON, "Content-Type": JSON}
        if self.key is not None:
            quoted = self.key.replace("\\", "\\\\").replace('"', '\\"')
            said[HEADER_KEY] = f'"{quoted}"'
        if self.lease is not None:
            said[HEADER_LEASE] = self.lease
        return said


class Calls:
    """Sends messages to the nodes of one service. Lives on one event loop."""

    def __init__(
        self,
        pool: Pool,
        token: str | None,
        trust: Any,
        *,
        timeout: float,
        connect_timeout: float,
        connections: int,
        place: str,
        hostname: str | None = None,
        resolver: AbstractResolver | None = None,
        unreached: Callable[[], object] = lambda: None,
    ) -> None:
        """`trust`: as aiohttp's `ssl`. `timeout`: seconds for an answer. `connections`: most that are open to one node. `hostname`: the
        name that certificates are checked by; `None`: that of the node's URL. `resolver`: who resolves names; `None`: the system.
        `unreached` is called when no connection to a node can be made."""
        self._pool, self._timeout, self._place = pool, timeout, place
        self._hostname, self._unreached = hostname, unreached
        self.store_id = ""
        """The store that nodes have to name; "": the first answer says it."""
        self._headers = {HEADER_WIRE: str(WIRE_VERSION)}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit_per_host=connections, limit=0, keepalive_timeout=IDLE, ssl=trust, resolver=resolver),
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
            trust_env=False,
        )

    def home(self, session: SessionKey, *, writes: bool = False) -> Member | None:
        """The node where a session is at home, for reads or for writes; `None`: any."""
        return self._pool.home("\0".join(session).encode(), writes=writes)

    async def ask(
        self,
        path: str,
        message: wire.Message | None,
        kind: type[wire.M],
        *,
        home: Member | None = None,
        avoid: str | None = None,
        writes: bool = False,
    ) -> wire.M:
        """The answer to a message, of the node `home` first; or of any but the one with the URL `avoid`, if there is another. What was
        certainly not done is asked of other nodes; a read also where no answer came. An `Unknown` has the fact `node`: the one's URL."""
        body = None if message is None else wire.encode(message)

        async def once(member: Member, left: float) -> wire.M:
            return _decoded(kind, await self._once(member, path, body, left, writes=writes), member)

        share = 1.0 if writes else SHARE
        try:
            return await self._tried(once, self._timeout, writes=writes, first=home, avoid=avoid, repeatable=not writes, share=share)
        except (Unavailable, Unknown) as error:
            raise error if writes else _reading(error) from error

    async def resource(self, asked: Resource) -> bytes:
        """The answer of a resource route; each but a GET may write. What was certainly not done is asked of other nodes; with a key, or
        where it is repeatable, also what no answer came to."""
        writes = asked.method != "GET"

        async def once(member: Member, left: float) -> bytes:
            ways: dict[str, Any] = {"method": asked.method, "more": asked.headers, "route": asked.route}
            return await self._once(member, asked.path, asked.body, left, writes=writes, **ways)

        seconds = self._timeout if asked.seconds is None else asked.seconds
        repeatable = not writes or asked.repeatable or asked.key is not None
        try:
            return await self._tried(once, seconds, writes=writes, repeatable=repeatable)
        except Unknown as error:
            raise error if writes else _reading(error) from error

    async def _tried(
        self,
        once: Callable[[Member, float], Awaitable[T]],
        seconds: float,
        *,
        writes: bool,
        repeatable: bool,
        first: Member | None = None,
        avoid: str | None = None,
        share: float = 1.0,
    ) -> T:
        """What a node answers to `once`, which gets it and the seconds that are left for it: one node after another, until one has done it,
        or may have done what is not `repeatable`. `share`: of the time that is left, what a node gets that is not the last one to ask."""
        loop, tried = asyncio.get_running_loop(), list[Member]()
        until = loop.time() + seconds
        while True:
            passed_by = tried or [each for each in self._pool.members if each.url == avoid]
            member = first if first is not None and not tried else self._pool.choose(passed_by, writes=writes)
            tried.append(member)
            left = max(until - loop.time(), 0.001)
            if len(tried) < min(TRIES_MAX, len(self._pool.members)):
                left *= share
            try:
                return await once(member, left)
            except (Unavailable, Unknown) as error:
                over = len(tried) >= TRIES_MAX or until <= loop.time() or (isinstance(error, Unknown) and not repeatable)
                if over or not ("absent" in error.facts or self._pool.may_retry()):
                    raise

    async def _once(
        self,
        member: Member,
        path: str,
        body: bytes | None,
        left: float,
        *,
        writes: bool,
        method: str = "",
        more: Mapping[str, str] = RECORDS,
        route: str = "",
    ) -> bytes:
        """One request to one node. `route`: its path without what is of one session; "": the path has nothing of that kind."""
        sent = {**self._headers, HEADER_DEADLINE: f"{left:.3f}", **more}
        if self.store_id:
            sent[HEADER_STORE] = self.store_id
        if body is None:
            sent.pop("Content-Type", None)
        verb = method or ("GET" if body is None else "POST")
        with requesting(f"{verb} {route or path}", verb, member.url + path, sent) as span:
            return await self._exchange(member, verb, path, body, sent, left, span, writes=writes)

    async def _exchange(
        self, member: Member, verb: str, path: str, body: bytes | None, sent: dict[str, str], left: float, span: Span, *, writes: bool
    ) -> bytes:
        self._pool.began(member, writes=writes)
        answered = False
        try:
            request = self._session.request(
                verb, member.url + path, data=_sendable(body), headers=sent, allow_redirects=False, server_hostname=self._hostname
            )
            async with asyncio.timeout(left + _MORE), request as answer:
                data = await answer.read()
            span.set_attribute("http.response.status_code", answer.status)
            answered = self._is_ours(answer, member, writes=writes)
            if answer.status < 300:
                return data
            error = _said(answer, data)
            answered = not isinstance(error, Unavailable | Unknown)
            error.facts.setdefault("node", member.url)
            raise error
        except aiohttp.ClientConnectorError as error:
            self._unreached()
            raise Unavailable(f"The node {member.url} cannot be reached: {_reason(error)}.", absent=True) from error
        except (aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            self._unreached()
            raise Unavailable(f"The node {member.url} cannot be reached: {type(error).__name__}.", absent=True) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = f"No answer came from the node {member.url}: {type(error).__name__} {error}".rstrip()
            raise Unknown(f"{what}.", node=member.url) from error
        finally:
            self._pool.done(member, answered=answered, writes=writes)

    def _is_ours(self, answer: aiohttp.ClientResponse, member: Member, *, writes: bool) -> bool:
        """True. Raises `Unknown` for what no node of this store said."""
        found = answer.headers.get(HEADER_STORE)
        if found is None:
            what = f"What answers at {member.url} with status {answer.status} is no node of a Perdure service, or stands before one."
            raise Unknown(what) if writes or answer.status >= 500 else Unavailable(what)
        if self.store_id and found != self.store_id:
            what = f"The node {member.url} serves another store than the one that was opened at {self._place}."
            raise Unknown(what) if writes and answer.status < 300 else Unavailable(what)
        return True

    async def about(self) -> wire.About:
        """What a node says of itself: from then on all nodes have to be of that store. Raises `Unsupported` for another wire version."""
        found = await self.ask(wire.ABOUT, None, wire.About)
        if WIRE_VERSION not in found.wire:
            spoken = ", ".join(map(str, found.wire))
            raise Unsupported(f"The nodes at {self._place} speak wire version {spoken}, this client {WIRE_VERSION}: upgrade the older one.")
        self.store_id = found.store_id
        return found

    async def stream(self, path: str, message: wire.Message) -> AsyncGenerator[wire.Moved, None]:
        """The messages of a stream, as they come, to the end that the node makes of it. Raises `Unavailable` when it breaks."""
        member = self._pool.choose()
        self._pool.began(member)
        answered = False
        frames = wire.Frames()
        try:
            sent = {**self._headers, "Content-Type": MSGPACK} | ({HEADER_STORE: self.store_id} if self.store_id else {})
            limit = aiohttp.ClientTimeout(total=None, connect=self._timeout, sock_read=SILENCE)
            opened = self._session.post(
                member.url + path, data=wire.encode(message), headers=sent, timeout=limit, server_hostname=self._hostname
            )
            async with opened as answer:
                answered = self._is_ours(answer, member, writes=False)
                if answer.status >= 300:
                    raise _said(answer, await answer.read())
                async for data in answer.content.iter_any():
                    for found in frames.feed(data):
                        yield found
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            answered = False
            raise Unavailable(f"The stream of notices of the node {member.url} broke: {type(error).__name__}.") from error
        finally:
            self._pool.done(member, answered=answered)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


def _sendable(body: bytes | None) -> Any:
    """The body as aiohttp takes it: a large one in pieces, so that the loop is not held up."""
    return io.BytesIO(body) if body is not None and len(body) > PIECES_FROM else body


def _decoded(kind: type[wire.M], data: bytes, member: Member) -> wire.M:
    """The message. What was asked for may have been done, so what cannot be read is `Unknown`."""
    try:
        return wire.decode(kind, data)
    except Invalid as error:
        raise Unknown(f"The answer of the node {member.url} cannot be read. {error.detail}") from error


def known_error(error: Error, status: int) -> Error:
    """An error that a node answered with; what only HTTP knows is `Unauthorized`, or stays an `Error`."""
    return Unauthorized(error.detail, **error.facts) if type(error) is Error and status in (401, 403) else error


def _said(answer: aiohttp.ClientResponse, data: bytes) -> Error:
    """The error that a node answered with."""
    try:
        error = error_of(msgspec.json.decode(data))
    except (msgspec.MsgspecError, UnicodeError):
        error = None
    if error is not None:
        return known_error(error, answer.status)
    return Unavailable(f"A node answered with status {answer.status} and nothing that says why.")


def _reading(error: Error) -> Error:
    """A read that was not answered has changed nothing."""
    return Unavailable(error.detail, **error.facts) if isinstance(error, Unknown) else error


def _reason(error: aiohttp.ClientConnectorError) -> object:
    """Why no connection was made: what the certificate's check says, or the system."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):  # It has no `os_error`, for all that its class says.
        return error.certificate_error
    return error.os_error.strerror or error
