"""Bad requests, byte for byte: a problem document that says what to do, nothing stored, and a connection that is of use or closed.

`test_every_route` holds what is the same for all routes, `test_staying_up` who is slow or goes away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from perdure import Event, op
from tests.support.service.listening import Listening, listening, request

COMMITS = "/v1/sessions/s/commits"
NOTE = b'{"events": [{"type": "a"}]}'
HASH = "0" * 64
PROBE = request("GET", "/healthz")


class Answered(msgspec.Struct):
    """What came back: the status, headers by lower-case names, the body, and whether the next request on the connection was answered."""

    status: int
    headers: dict[str, str]
    body: bytes
    usable: bool

    @property
    def detail(self) -> str:
        """What the problem document says."""
        return str(msgspec.json.decode(self.body)["detail"])


@asynccontextmanager
async def node(**options: float) -> AsyncIterator[Listening]:
    """A node with one session, of one version."""
    async with listening(**options) as found:
        await found.node.store.append("s", Event("start", None, (op.set("/a", 1),)))
        yield found


async def answered(reader: asyncio.StreamReader) -> Answered:
    """One answer; a 100 before it is passed over."""
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ")[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        if status != 100:
            return Answered(status, headers, await reader.readexactly(int(headers.get("content-length", "0"))), usable=False)


async def send(at: Listening, data: bytes) -> Answered:
    """The answer to these bytes; then a second request says whether the connection is of use. Else it is closed, and says so."""
    reader, writer = await at.connect()
    async with asyncio.timeout(30):
        writer.write(data)
        found = await answered(reader)
        if "close" in found.headers.get("connection", ""):
            assert await reader.read() == b""
        else:
            writer.write(PROBE)
            found.usable = (await answered(reader)).status == 200
    writer.close()
    return found


def posted(body: bytes, *headers: str, target: str = COMMITS) -> bytes:
    return request("POST", target, body, *headers)


async def refused(data: bytes, status: int, says: str, *, usable: bool) -> None:
    """It is refused with this status and sentence, and nothing is stored."""
    async with node() as at:
        found = await send(at, data)
        assert (found.status, found.usable) == (status, usable), found
        assert says in found.detail and found.headers["content-type"] == "application/problem+json"
        assert (await at.node.store.read("s")).version == 1


DATA = b'{"events": [{"type": "a", "data": %s}]}'
JSONS = {
    "a member twice": (b'{"events": [{"type": "a"}], "events": [{"type": "b"}]}', "'events' stands twice"),
    "a member of data twice": (DATA % b'{"x": {"y": 1, "y": 2}}', "'y' stands twice"),
    "a member twice, once escaped": (DATA % b'{"x": 1, "\\u0078": 2}', "'x' stands twice"),
    "a byte order mark": (b"\xef\xbb\xbf" + NOTE, "byte order mark"),
    "nothing": (b"", "empty"),
    "blanks": (b" \n\t", "empty"),
    "NaN": (DATA % b"NaN", "malformed"),
    "Infinity": (DATA % b"-Infinity", "malformed"),
    "1e400": (DATA % b"1e400", "out of range"),
    "5,000 digits": (DATA % (b"1" * 5_000), "out of range"),
    "a lone surrogate": (DATA % b'"x\\ud800y"', "not as this route takes it"),
    "UTF-16": (NOTE.decode().encode("utf-16"), "malformed"),
    "no UTF-8": (DATA % b'"\xff"', "utf-8"),
    "a raw control character": (DATA % b'"\x01"', "malformed"),
    "two documents": (NOTE + NOTE, "trailing"),
    "depth": (DATA % (b"[" * 200 + b"]" * 200), "100 containers"),
    "more depth": (DATA % (b"[" * 50_000 + b"]" * 50_000), "too deep"),
    "a comment": (b"/* */" + NOTE, "malformed"),
    "a boolean for a version": (b'{"base": true, "events": [{"type": "a"}]}', "base"),
    "a fraction for a version": (b'{"base": 1.5, "events": [{"type": "a"}]}', "base"),
    "a huge version": (b'{"base": 99999999999999999999, "events": [{"type": "a"}]}', "version 1"),
}


@pytest.mark.parametrize("name", JSONS)
async def test_what_is_no_json_for_two_readers_is_400(name: str) -> None:
    """Members that stand twice, numbers that are none, other encodings. The connection goes on."""
    body, says = JSONS[name]
    await refused(posted(body), 400, says, usable=True)


@pytest.mark.parametrize("media", ["application/merge-patch+json", "application/json-patch+json"])
async def test_a_patch_with_a_member_twice_is_400(media: str) -> None:
    """RFC 6902, A.13: which of the two is meant, nobody knows."""
    body = b'{"a": {"b": 1, "b": 2}}' if "merge" in media else b'[{"op": "add", "path": "/a", "path": "/b", "value": 1}]'
    head = f"PATCH /v1/sessions/s HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n"
    await refused(head.encode() + body, 400, "stands twice", usable=True)


@pytest.mark.parametrize("base", ["0", "-1", "%D9%A3", "9" * 30, "1.0", "1-00", "", "x"])
async def test_a_base_that_is_no_version_is_400(base: str) -> None:
    """Of a patch, where it stands in the query."""
    head = f"PATCH /v1/sessions/s?base={base} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/merge-patch+json\r\n"
    await refused(f"{head}Content-Length: 2\r\n\r\n{{}}".encode(), 400, "base takes", usable=True)


IDS = {
    "%": "percent-encoded", "%zz": "percent-encoded", "%FF": "UTF-8", "%ED%A0%80": "UTF-8", "%00": "control characters",
    "a%0d%0ab": "control characters", "=": "base64url", "=a": "base64url", "=YQ==": "base64url", "=7aCA": "base64url",
    "a" * 256: "255 bytes", "%C3%A9" * 128: "255 bytes", "x" * 2_000: "1,024",
}  # fmt: skip
REACHED = {
    "a%2Fb": "a/b",
    "%2e%2e": "..",
    "..": "..",
    "=Li4": "..",
    "%F0%9F%98%80": "😀",
    "=8J-YgA": "😀",
    "a" * 255: "a" * 255,
    "a;b": "a;b",
}


@pytest.mark.parametrize("segment", IDS, ids=lambda segment: segment[:20])
async def test_an_id_that_is_none_is_400(segment: str) -> None:
    """Whatever the path is written with."""
    await refused(request("GET", f"/v1/sessions/{segment}"), 400, IDS[segment], usable=True)


async def test_every_other_id_is_reached() -> None:
    """Slashes, dots, emoji, 255 bytes: by percent-encoding and by base64url; an empty one is no route."""
    async with node() as at:
        for segment, id in REACHED.items():
            await at.node.store.append(id, Event("start")) if id not in [info.session async for info in at.node.store.list()] else None
            found = await send(at, request("GET", f"/v1/sessions/{segment}"))
            assert (found.status, msgspec.json.decode(found.body)["session"]) == (200, id)
        for target in ("/v1/sessions/", "/v1//sessions", "/v1/sessions/s/", "/V1/sessions", "//v1/sessions", "/%76%31/sessions"):
            assert (await send(at, request("GET", target))).status == 404


QUERIES = [
    "at=-1", "at=0", "at=99999999999999999999", "at=1e3", "at=%D9%A3", "at=NaN", "at=", "at=2026-13-01T00:00:00Z", "at=1&at=2", "=", "%",
    "max_staleness=nan&consistency=eventual", "max_staleness=inf&consistency=eventual", "max_staleness=0&consistency=eventual",
    "max_staleness=1e400&consistency=eventual", "at_least=x", f"at_least=1-{HASH[:-1]}", "include_deleted=maybe", "consistency=null",
]  # fmt: skip


@pytest.mark.parametrize("query", QUERIES)
async def test_a_query_of_a_state_that_is_none_is_400(query: str) -> None:
    """Negative, huge, no number, twice."""
    async with node() as at:
        found = await send(at, request("GET", f"/v1/sessions/s?{query}"))
        assert (found.status, found.usable) == (400, True) and found.detail


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (f"{COMMITS}?after=-1", 400), (f"{COMMITS}?before=0", 400), (f"{COMMITS}?after=99999999999999999999999", 400),
        (f"{COMMITS}?limit=nan", 400), (f"{COMMITS}?after=+1", 400), (f"{COMMITS}?after=1_0", 400),
        ("/v1/sessions/s/watch?live=long-poll&wait=nan", 400), ("/v1/sessions/s/watch?live=long-poll&wait=-1", 400),
        ("/v1/sessions/s/watch?live=long-poll&wait=0&after=-5", 400), (f"/v1/sessions/s/watch?live=long-poll&wait=0&after=1-{HASH}", 409),
        ("/v1/changes?live=long-poll&wait=inf", 400), ("/v1/changes?live=long-poll&wait=0&after=c1.AAAA", 400),
        ("/v1/changes?live=long-poll&wait=0&after=", 400), ("/v1/sessions?cursor=%00", 400), ("/v1/sessions?limit=1e9", 400),
    ],
)  # fmt: skip
async def test_numbers_and_cursors_that_are_none_are_refused(target: str, status: int) -> None:
    """Of lists and streams: a problem document, and the connection goes on."""
    async with node() as at:
        found = await send(at, request("GET", target))
        assert (found.status, found.usable) == (status, True) and found.detail


CONDITIONS = {
    'If-Match: "a", "b"': (400, "one entity tag"),
    'If-Match: "a"\r\nIf-Match: "b"': (400, "one entity tag"),
    "If-Match:": (400, "one entity tag"),
    'If-Match: *, "a"': (400, "in quotes"),
    f"If-Match: 1-{HASH}": (400, "in quotes"),
    'If-Match: W/"x"': (412, "no ETag"),
    f'If-Match: W/"1-{HASH}-gzip"': (412, "decided on"),
    'If-None-Match: "a"': (400, "takes *"),
    "If-None-Match: *": (412, "version 1"),
    "If-Match: *\r\nIf-None-Match: *": (400, "Say one of"),
    "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT": (400, "takes no if-unmodified-since"),
    "Idempotency-Key:": (400, "must not be empty"),
    'Idempotency-Key: ""': (400, "must not be empty"),
    "Idempotency-Key: a\r\nIdempotency-Key: a": (400, "stands there twice"),
    "Idempotency-Key: " + "k" * 256: (400, "255 bytes"),
    "Idempotency-Key: a\tb": (400, "control characters"),
    "Perdure-Lease: x": (400, "Perdure-Lease takes"),
    f"Perdure-Lease: 0-{HASH}": (400, "Perdure-Lease takes"),
    f"Perdure-Lease: 1-{HASH}": (409, "no longer holds"),
    "Perdure-Store: another": (503, "another store"),
    "Content-Encoding: gzip": (415, "send it as it is"),
    "Content-Type: application/json": (400, "stands there twice"),
    "Host: localhost": (400, "stands there twice"),
    "Expect: a-miracle": (417, "a-miracle"),
    "Origin: http://evil.example": (403, "may not call"),
    "Authorization: Bearer x": (401, "without Authorization"),
    "Upgrade: h2c\r\nConnection: Upgrade": (400, "without Upgrade"),
    "Content-Length: 3": (400, "RFC 9112"),
    "Transfer-Encoding: chunked": (400, "RFC 9112"),
    "X: a\r\n b": (400, "RFC 9112"),
    "X: a\0b": (400, "RFC 9112"),
    "X y: 1": (400, "RFC 9112"),
}


@pytest.mark.parametrize("header", CONDITIONS, ids=lambda header: header[:30].replace("\r\n", " "))
async def test_a_header_that_is_none_is_refused(header: str) -> None:
    """Nothing is stored. Where the body was not read, the connection is closed."""
    status, says = CONDITIONS[header]
    async with node() as at:
        found = await send(at, posted(NOTE, header))
        assert found.status == status and says in found.detail, found
        assert (await at.node.store.read("s")).version == 1


CHUNKED = f"POST {COMMITS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n".encode()
CHUNK = b"%x\r\n%s\r\n" % (len(NOTE), NOTE)
FRAMES = {
    "no host": (b"GET /v1/sessions/s HTTP/1.1\r\n\r\n", "names its Host"),
    "a fragment": (request("GET", "/v1/sessions/s#1"), "%23"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "RFC 9112"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "RFC 9112"),
    "an unknown method": (request("BREW", "/v1/sessions/s"), "RFC 9112"),
    "a small method": (request("get", "/v1/sessions/s"), "RFC 9112"),
    "a raw emoji": ("GET /v1/sessions/😀 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), "RFC 9112"),
    "a length that is none": (posted(NOTE).replace(b"Content-Length: 27", b"Content-Length: +27"), "RFC 9112"),
    "a length below 0": (posted(NOTE).replace(b"Content-Length: 27", b"Content-Length: -27"), "RFC 9112"),
    "a huge length": (posted(NOTE).replace(b"Content-Length: 27", b"Content-Length: 99999999999999999999"), "RFC 9112"),
    "chunks of no size": (CHUNKED + b"\r\nzz\r\n", "RFC 9112"),
    "chunks of a huge size": (CHUNKED + b"\r\nfffffffffffffffff\r\n", "RFC 9112"),
    "a chunk with more": (CHUNKED + b"\r\n3\r\nabcd\r\n0\r\n\r\n", "RFC 9112"),
}


@pytest.mark.parametrize("name", FRAMES)
async def test_what_is_no_request_is_400_and_the_end(name: str) -> None:
    """Where the request ends nobody knows: the connection is closed."""
    data, says = FRAMES[name]
    await refused(data, 400, says, usable=False)


@pytest.mark.parametrize("coding", ["gzip, chunked", "xchunked, chunked"])
async def test_another_transfer_coding_is_501(coding: str) -> None:
    """What is coded so would be stored as it is."""
    data = CHUNKED.replace(b": chunked", f": {coding}".encode()) + b"\r\n" + CHUNK + b"0\r\n\r\n"
    await refused(data, 501, "transfer coding", usable=False)


async def test_an_upgrade_hides_no_second_request() -> None:
    """A body after a head that asks for another protocol is not read as a request of its own, in one packet or in two; without a body the
    request is answered, and the connection closed."""
    inner = posted(NOTE)
    outer = request("POST", COMMITS, inner, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ")
    async with node() as at:
        for at_once in (True, False):
            reader, writer = await at.connect()
            head, _, body = outer.partition(b"\r\n\r\n")
            writer.write(outer if at_once else head + b"\r\n\r\n")
            await writer.drain()
            if not at_once:
                writer.write(body)
            async with asyncio.timeout(30):
                assert (await answered(reader)).status == 400 and await reader.read() == b""
            writer.close()
        for method in ("GET", "CONNECT"):
            found = await send(at, request(method, "/v1/sessions/s", None, "Connection: Upgrade", "Upgrade: websocket"))
            assert (found.status, found.usable) == (200 if method == "GET" else 405, False)
        assert (await at.node.store.read("s")).version == 1


async def test_what_http_allows_is_taken() -> None:
    """Chunks with extensions and trailers, which say nothing to us; `Expect: 100-continue`; a target in absolute form; HTTP/1.0. A key in a
    trailer is no key."""
    trailers = CHUNKED + b"Trailer: X\r\n\r\n" + CHUNK.replace(b"\r\n", b";a=b\r\n", 1) + b"0\r\nX: 1\r\nIdempotency-Key: k\r\n\r\n"
    async with node() as at:
        for number, data in enumerate(
            (trailers, trailers, posted(NOTE, "Expect: 100-continue"), posted(NOTE, target=f"http://localhost{COMMITS}"))
        ):
            found = await send(at, data)
            assert (found.status, found.usable, msgspec.json.decode(found.body)["version"]) == (201, True, number + 2)
        old = await send(at, b"GET /v1/sessions/s HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert (old.status, old.usable) == (200, False)
        early = await send(at, request("POST", COMMITS, None, "Expect: 100-continue", "Content-Type: text/plain", "Content-Length: 9"))
        assert (early.status, early.usable) == (415, False)


@pytest.mark.parametrize(
    "target", ["/v1/sessions", "/v1/sessions/s", COMMITS, "/v1/sessions/none", "/v1/sessions/%", "/healthz", "/openapi.json"]
)
async def test_head_is_as_get_without_its_body(target: str) -> None:
    """The same status and length, no byte of a body, and the connection goes on."""
    async with node() as at:
        get = await send(at, request("GET", target))
        reader, writer = await at.connect()
        writer.write(request("HEAD", target) + PROBE)
        async with asyncio.timeout(30):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert (await answered(reader)).status == 200
        writer.close()
        assert head.startswith(f"HTTP/1.1 {get.status} ") and f"content-length: {len(get.body)}" in head


async def test_options_names_the_methods() -> None:
    """405 with `Allow`; no header lets a page of another site in."""
    async with node() as at:
        found = await send(at, request("OPTIONS", "/v1/sessions/s", None, "Access-Control-Request-Method: DELETE"))
        assert (found.status, found.headers["allow"]) == (405, "DELETE, GET, HEAD, PATCH")
        assert not any(name.startswith("access-control") for name in found.headers)


async def test_half_a_body_stores_nothing() -> None:
    """Whoever goes away, or is silent, within it: nothing is stored, and the node goes on."""
    async with node(body_timeout=0.2) as at:
        for data in (posted(NOTE)[:-5], CHUNKED + b"\r\n" + CHUNK, CHUNKED + b"\r\n" + CHUNK[:9]):
            found = await send(at, data)
            assert (found.status, found.usable) == (408, False)
            _, writer = await at.connect()
            writer.write(data)
            writer.write_eof()
            writer.close()
        assert (await send(at, PROBE)).status == 200 and (await at.node.store.read("s")).version == 1
