"""The routes of the record face, for any `Face`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from math import isfinite

from perdure.errors import Invalid, Unknown, Unsupported
from perdure.service.answers import Answer, Stream
from perdure.service.call import Call
from perdure.service.hooks import Credential, Scope
from perdure.service.records.face import MESSAGES, Face
from perdure.service.table import Header, Reply, Route
from perdure.wire import HEADER_DEADLINE, HEADER_STORE, HEADER_WIRE, MSGPACK, WIRE_VERSION
from perdure.wire import records as wire

SHARE = 0.5
"""Of the time that a client waits: in so much of it a node settles a write."""
SECONDS_MAX = 3600.0
_HEADERS = [(HEADER_WIRE.lower(), str(WIRE_VERSION)), ("cache-control", "no-store")]
_READS = (
    Header(HEADER_WIRE, "The wire version that the client speaks: 1."),
    Header(HEADER_STORE, "The id of the store that the client means."),
    Header(HEADER_DEADLINE, "Seconds that the client waits for the answer."),
)
_REPLIES = (Reply(200, "A message.", media=(MSGPACK,)),)

FaceOf = Callable[[Call], tuple[Face, Credential | None]]
"""Whose face answers a call, and on whose behalf."""


def routes(face_of: FaceOf) -> Sequence[Route]:
    """The routes, answered by this face."""

    async def about(call: Call) -> Answer:
        await call.no_body()
        face, caller = face_of(call)
        _check_wire(call)
        return _answer(face.about(caller))

    async def answer(call: Call) -> Answer:
        face, caller = _face(call, face_of)
        kind, answering = MESSAGES[call.head.route]
        asked = wire.decode(kind, await call.body())
        return _answer(await answering(face, caller, asked))

    async def append(call: Call) -> Answer:
        face, caller = _face(call, face_of)
        asked = wire.decode(wire.Append, await call.body())
        call.admission.charge(commits=sum(len(attempt.records) for attempt in asked.attempts))
        seconds = _deadline(call)
        try:
            async with asyncio.timeout(None if seconds is None else seconds * SHARE):
                return _answer(await face.append(caller, asked))
        except TimeoutError:
            raise Unknown(f"The engine did not answer within {seconds or 0:g} s times {SHARE:g}.") from None

    async def notices(call: Call) -> Stream:
        face, caller = _face(call, face_of)
        asked = wire.decode(wire.Notices, await call.body())
        if not face.backend.capabilities.notification:
            raise Unsupported("The engine of this node does not notify of new records: look at the heads.", advice="")
        options = call.node.options
        found, gone = face.notices(caller, asked, options.heartbeat), asyncio.Event()
        frames = _frames(found, (call.node.draining, gone), options.stream_seconds)
        return Stream(frames, MSGPACK, [*_HEADERS, ("x-accel-buffering", "no")], stop=gone.set)

    read = [_post(path, answer, Scope.read) for path in MESSAGES if path != wire.APPEND]
    return (
        Route(
            method="GET", path=wire.ABOUT, scope=Scope.read, handle=about, name="recordsAbout", described=False,
            summary="What a node says of the engine that it serves", headers=_READS, replies=_REPLIES,
        ),
        _post(wire.APPEND, append, Scope.read, charges=True),
        *read,
        _post(wire.NOTICES, notices, Scope.read, watches=True),
    )  # fmt: skip


def _post(path: str, handle: Callable[[Call], object], scope: Scope, *, charges: bool = False, watches: bool = False) -> Route:
    name = path.rpartition("/")[2]
    return Route(
        method="POST", path=path, scope=scope, handle=handle, name="records" + name.title().replace("_", ""), described=False,  # type: ignore[arg-type]
        summary=f"The message {name!r} of the record face", headers=_READS, body=bytes, media=(MSGPACK,),
        replies=_REPLIES, charges=charges, watches=watches,
    )  # fmt: skip


def _face(call: Call, face_of: FaceOf) -> tuple[Face, Credential | None]:
    """The face, once the client is known to speak to it."""
    face, caller = face_of(call)
    _check_wire(call)
    call.media(MSGPACK)
    return face, caller


def _check_wire(call: Call) -> None:
    spoken = call.once(HEADER_WIRE.lower())
    if spoken is None:
        raise Invalid(f"Say which wire version the client speaks: {HEADER_WIRE}: {WIRE_VERSION}.", advice="")
    if spoken != str(WIRE_VERSION):
        raise Unsupported(f"This node speaks wire version {WIRE_VERSION}, not {spoken[:20]!r}: upgrade the older one.", advice="")


def _deadline(call: Call) -> float | None:
    said = call.once(HEADER_DEADLINE.lower())
    if said is None:
        return None
    try:
        seconds = float(said)
    except ValueError:
        seconds = -1.0
    if not (isfinite(seconds) and 0 < seconds <= SECONDS_MAX):
        raise Invalid(f"{HEADER_DEADLINE} takes seconds, above 0 and at most {SECONDS_MAX:,.0f}, not {said[:40]!r}.", advice="")
    return seconds


def _answer(message: wire.Message) -> Answer:
    return Answer(200, wire.encode(message), MSGPACK, list(_HEADERS))


async def _frames(found: AsyncGenerator[wire.Moved, None], ends: Sequence[asyncio.Event], seconds: float) -> AsyncGenerator[bytes, None]:
    """Moved as frames, until the stream has been open for long enough or one of `ends` is set."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    ending = [asyncio.ensure_future(event.wait()) for event in ends]
    try:
        async with aclosing(found):
            while loop.time() < until:
                following = asyncio.ensure_future(anext(found))
                try:
                    left = max(0.0, until - loop.time())
                    await asyncio.wait((following, *ending), timeout=left, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not following.done():
                        following.cancel()
                        await asyncio.wait((following,))
                if following.cancelled() or any(end.done() for end in ending):
                    return
                yield wire.frame(following.result())
    finally:
        for end in ending:
            end.cancel()
