"""One request: what it asks, checked, and on whose behalf."""

from __future__ import annotations

import asyncio
import json
import re
from codecs import BOM_UTF8
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin
from urllib.parse import parse_qsl

import msgspec

from perdure.engine.store import Store
from perdure.errors import Invalid, TooLarge
from perdure.model.ids import check_name
from perdure.service.hooks import Admission, Credential, RequestHead
from perdure.service.node import Node
from perdure.service.refusals import Forbidden, NotAcceptable, RequestTimeout, UnsupportedMedia
from perdure.wire import JSON
from perdure.wire.paths import segment, session_of

T = TypeVar("T")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

READ_ONCE = frozenset((
    "authorization", "content-encoding", "content-length", "content-type", "host", "idempotency-key", "last-event-id", "origin",
    "perdure-deadline", "perdure-lease", "perdure-store", "perdure-wire", "traceparent",
))  # fmt: skip
"""Headers that are refused when they come twice: two parties would read two values."""
APART_BYTES = 256 << 10
"""Bodies with more bytes are read in a thread, so that others are served meanwhile."""
QUERY_FIELDS_MAX = 1_000
BODY_STEP = 64 << 10
"""Bytes that have to arrive in each `body_timeout`."""


class ClientGoneError(Exception):
    """The client went away before its request was complete. Nobody reads an answer."""


class Call:
    """One request, on its way through a handler."""

    def __init__(
        self,
        node: Node,
        head: RequestHead,
        path: Mapping[str, str],
        query: bytes,
        receive: Receive,
        credential: Credential,
        admission: Admission | None = None,
    ) -> None:
        """`path` has the raw segments that stand for the route's names."""
        self.node, self.head, self.credential = node, head, credential
        self.admission = admission or Admission()
        """What the request may take: `charge` what its body asks for before anything is done."""
        self.headers = head.headers
        self.store: Store = node.for_tenant(credential.tenant)
        """The store of the credential's tenant: the only one that a handler may use."""
        self._path, self._query, self._receive = path, query, receive
        self.complete = False
        """Whether all of the body has arrived."""

    @property
    def session(self) -> str:
        """The session that the path names. Raises `Invalid`."""
        return session_of(self._path["id"])

    def raw(self, name: str) -> str:
        """A segment of the path, as it came."""
        return self._path[name]

    def url(self, *segments: str) -> str:
        """A path on this node, for `Location` and `Link`."""
        return self.node.options.root_path + "/" + "/".join(segments)

    def session_url(self, session: str, *rest: str) -> str:
        """The path of a session, or of something below it."""
        return self.url("v1", "sessions", segment(session), *rest)

    def query(self, kind: type[T]) -> T:
        """The query, as this struct has it: a list's items may come several times, anything else once. Raises `Invalid`."""
        return read_query(self._query, kind)

    @property
    def raw_query(self) -> str:
        """The query as it came."""
        return self._query.decode("latin-1")

    def once(self, name: str) -> str | None:
        """A header by its lower-case name; `None`: it did not come."""
        return self.headers.get(name)

    @property
    def key(self) -> str | None:
        """The idempotency key. A quoted string, as the header's draft standard has it, is read as its content. Raises `Invalid`."""
        found = self.headers.get("idempotency-key")
        if found is None:
            return None
        if len(found) > 1 and found[0] == found[-1] == '"':
            found = found[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        return check_name("An idempotency key", text_of(found, "Idempotency-Key"))

    def actor(self, asked: str | None) -> str | None:
        """Who a commit says did it. Raises `Forbidden` for another one than the credential is bound to."""
        bound = self.credential.actor
        if bound is None or asked in (None, bound):
            return asked if bound is None else bound
        raise Forbidden(f"These credentials write as {bound!r} only.", advice="")

    def accepts(self, *media: str) -> str:
        """The first of these media types that the request accepts best. Raises `NotAcceptable`."""
        return best_media(self.headers.get("accept"), media)

    def media(self, *media: str) -> str:
        """Which of these the body is in. Raises `UnsupportedMedia`, also for a coding such as gzip."""
        coding = self.headers.get("content-encoding", "identity").strip().lower()
        if coding != "identity":
            raise UnsupportedMedia(f"The body is coded as {coding[:40]!r}: send it as it is.", accept_encoding="identity")
        said = self.headers.get("content-type")
        if said is None:
            raise UnsupportedMedia(f"Say what the body is: Content-Type: {media[0]}.", accept=list(media))
        kind, _, rest = said.partition(";")
        parameters = [part.lower().partition("=") for part in rest.split(";")]
        charsets = {value.strip(' "') for name, _, value in parameters if name.strip() == "charset"}
        if kind.strip().lower() not in media or not charsets <= {"utf-8", "utf8"}:
            raise UnsupportedMedia(f"The body is {said[:80]!r}; this route takes {', '.join(media)} in UTF-8.", accept=list(media))
        return kind.strip().lower()

    async def body(self) -> bytes:
        """All of the body; then the request waits for its turn before the engine.

        Raises `TooLarge`, `RequestTimeout`, `QuotaExceeded`, `Unavailable`.
        """
        limit = self.node.options.max_body
        said = self.headers.get("content-length")
        if said is not None and said.isdecimal() and int(said) > limit:
            raise TooLarge(f"The body has {int(said):,} bytes; at most {limit:,} are read.", limit=limit)
        parts = [] if self.complete else await self._parts(limit)
        if said is None and parts:
            self.admission.charge(bytes=sum(map(len, parts)))
        await self.admission.start()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _parts(self, limit: int) -> list[bytes]:
        """What arrives, `limit` bytes at most."""
        seconds, loop = self.node.options.body_timeout, asyncio.get_running_loop()
        until, count, size = loop.time() + seconds, 0, 0
        parts: list[bytes] = []
        while not self.complete:
            try:
                async with asyncio.timeout_at(until):
                    message = await self._receive()
            except TimeoutError:
                raise RequestTimeout(f"The body did not arrive at {BODY_STEP:,} bytes in {seconds:g} seconds.") from None
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            self.complete = not message.get("more_body", False)
            part = message.get("body", b"")
            count, size = count + len(part), size + len(part)
            if size > limit:
                raise TooLarge(f"The body has more than {limit:,} bytes.", limit=limit)
            if count >= BODY_STEP:
                until, count = loop.time() + seconds, 0
            if part:
                parts.append(part)
        return parts

    async def json(self, kind: type[T]) -> T:
        """The body as this struct has it. Raises `Invalid`, `UnsupportedMedia`, `TooLarge`, `RequestTimeout`."""
        self.media(JSON)
        return await self.decoded(await self.body(), kind)

    async def decoded(self, body: bytes, kind: type[T]) -> T:
        """JSON as this type has it; a large one is read in a thread. Raises `Invalid`."""
        return decode_json(body, kind) if len(body) <= APART_BYTES else await asyncio.to_thread(decode_json, body, kind)

    async def json_or_nothing(self, kind: type[T]) -> T:
        """As `json`; a request without a body asks for all that is the default."""
        if "content-type" not in self.headers and not (body := await self.body()):
            return kind()
        self.media(JSON)
        return await self.decoded(body if "content-type" not in self.headers else await self.body(), kind)

    async def no_body(self) -> None:
        """Raises `Invalid` where there is one: it asks for something, and nobody would do it."""
        if await self.body():
            raise Invalid("This request takes no body.", advice="")

    async def gone(self) -> None:
        """Return when the client has gone away."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


def decode_json(body: bytes, kind: type[T]) -> T:
    """JSON as this type has it. Raises `Invalid`."""
    if not body.strip():
        raise Invalid("The body is empty; this route takes JSON.", advice="")
    if body.startswith(BOM_UTF8):
        raise Invalid("The body begins with a byte order mark: send it without.", advice="")
    try:
        found = msgspec.json.decode(body, type=kind)
        require_once_each(body)
        return found
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Invalid(f"The body is not as this route takes it: {str(error).rstrip('.')}.", advice="") from None
    except RecursionError:
        raise Invalid("The body is too deep.", advice="") from None


def require_once_each(body: bytes) -> None:
    """Raise `Invalid` for sound JSON in which an object has a member twice: two readers would read two values."""
    if not _keeps_all(body):
        _ONCE_EACH.decode(body.decode())


def _keeps_all(body: bytes) -> bool:
    """Whether nothing of sound JSON is lost when it is read. Of two members with one name one is lost, and its colon with it. All else has
    as many colons when it is written again, unless one was written as an escape: then this is False too."""
    written = msgspec.json.encode(msgspec.json.decode(body))
    return written == body or (written.count(b":") == body.count(b":") and _ESCAPED_COLON.search(body) is None)


def _once_each(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) == len(pairs):
        return
    names = [name for name, _ in pairs]
    twice = next(name for name in names if names.count(name) > 1)
    raise Invalid(f"The member {twice[:60]!r} stands twice in one object of the body.", advice="")


_ESCAPED_COLON = re.compile(rb"\\u003[aA]")
_ONCE_EACH = json.JSONDecoder(object_pairs_hook=_once_each, parse_int=len, parse_float=len)


def read_query(query: bytes, kind: type[T]) -> T:
    """A query string as a struct. Raises `Invalid`."""
    types: dict[str, Any] = _query_types(kind)  # type: ignore[arg-type]
    found: dict[str, Any] = {}
    for name, value in _pairs(query):
        if name not in types:
            known = ", ".join(types) or "none"
            raise Invalid(f"There is no query parameter {name[:60]!r} here; there are: {known}.", advice="")
        if get_origin(types[name]) is list:
            found.setdefault(name, []).append(value)
        elif name in found:
            raise Invalid(f"The query parameter {name!r} stands there twice.", advice="")
        else:
            found[name] = value
    for name, value in found.items():
        try:
            found[name] = msgspec.convert(value, types[name], strict=False)
        except msgspec.ValidationError as error:
            raise Invalid(f"The query parameter {name!r} is not as this route takes it: {str(error).rstrip('.')}.", advice="") from None
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"The query is not as this route takes it: {str(error).rstrip('.')}.", advice="") from None


@cache
def _query_types(kind: Any) -> dict[str, Any]:
    """The types of a query's parameters. None of them can be null: the word `null` is a word like any other."""
    found = {}
    for field in msgspec.structs.fields(kind):
        options = [option for option in get_args(field.type) if option is not NoneType]
        found[field.encode_name] = options[0] if len(options) == 1 and get_origin(field.type) in (Union, UnionType) else field.type
    return found


def _pairs(query: bytes) -> Iterable[tuple[str, str]]:
    if not query:
        return ()
    try:
        return parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        raise Invalid("The query is not percent-encoded UTF-8, as in ?prefix=trip-%C3%A9, or has too many parameters.", advice="") from None


def text_of(value: str, name: str) -> str:
    """A header's value, which may be UTF-8. Raises `Invalid`."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        raise Invalid(f"The header {name} is neither ASCII nor UTF-8.", advice="") from None


def read_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by lower-case names. Raises `Invalid` for one that came twice and that has one value."""
    found: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        if key not in found:
            found[key] = text
        elif key in READ_ONCE:
            raise Invalid(f"The header {key} stands there twice.", advice="")
        else:
            found[key] = f"{found[key]}, {text}"
    return found


def best_media(accept: str | None, offered: tuple[str, ...]) -> str:
    """The offered type that is accepted with the highest weight, the earlier one of two. Raises `NotAcceptable`."""
    if accept is None or not accept.strip():
        return offered[0]
    ranges: dict[str, float] = {}
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    weight = min(1.0, max(0.0, float(value)))
                except ValueError:
                    weight = 0.0
        ranges[kind] = weight
    best, chosen = 0.0, ""
    for media in offered:
        weight = next((ranges[kind] for kind in (media, media.partition("/")[0] + "/*", "*/*") if kind in ranges), 0.0)
        if weight > best:
            best, chosen = weight, media
    if not chosen:
        raise NotAcceptable(f"This route answers in {', '.join(offered)}.", offered=list(offered))
    return chosen
