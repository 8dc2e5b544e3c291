"""Following the commits of a session, or of all of them: an event stream, or one answer when there is something."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from perdure.errors import Error
from perdure.service.answers import Answer, Stream, encode, json_answer
from perdure.service.bodies import CommitOut
from perdure.service.call import Call
from perdure.service.conditions import naming, parse_number, parse_version
from perdure.service.hooks import Scope
from perdure.service.routes.sessions import parse_tags
from perdure.service.stream.entries import Choice, Entry
from perdure.service.stream.following import ChangesFollowing, Following, SessionFollowing
from perdure.service.table import Header, Reply, Route
from perdure.wire import EVENT_STREAM, JSON
from perdure.wire.problem import problem
from perdure.wire.sse import HEARTBEAT, message

RETRY = b"retry: 1000\n\n"
"""A client that is cut off comes back after a second."""
_HEADERS = [("cache-control", "no-store"), ("x-accel-buffering", "no")]
"""nginx would keep events back to send more at once."""
JITTER = 0.1
"""Streams last longer or shorter by up to this part, so that those which began together do not come back together."""


class WatchQuery(msgspec.Struct, frozen=True):
    """Which commits, and how they come."""

    after: str | None = None
    """Those after this version, alone or with its hash; without it, all."""
    types: list[str] = []
    """Those with an event of one of these types, and of their events only those."""
    control: bool = False
    """Those of leases too."""
    live: Literal["sse", "long-poll"] = "sse"
    """An event stream, or one answer as soon as there is something."""
    wait: Annotated[float, Meta(ge=0, le=60)] = 30.0
    """With long-poll: seconds to wait for something."""


class ChangesQuery(msgspec.Struct, frozen=True):
    """Which changes, and how they come."""

    after: str | None = None
    """Those after this cursor; without it, all from the start."""
    types: list[str] = []
    """Those with an event of one of these types, and of their events only those."""
    prefix: str = ""
    """Those of sessions whose id begins so."""
    tag: list[str] = []
    """Those of sessions with this tag, as NAME=VALUE; with all of them, where it comes several times."""
    control: bool = False
    """Those of leases too."""
    live: Literal["sse", "long-poll"] = "sse"
    """An event stream, or one answer as soon as there is something."""
    wait: Annotated[float, Meta(ge=0, le=60)] = 30.0
    """With long-poll: seconds to wait for something."""


class Commits(msgspec.Struct):
    """The commits that came, and where to go on."""

    commits: list[CommitOut]
    position: str
    """Pass it as `after`."""


class ChangeOut(CommitOut):
    """A commit, its session, and where to go on after it."""

    session: str
    cursor: str


class Changes(msgspec.Struct):
    """The changes that came, and where to go on."""

    changes: list[ChangeOut]
    cursor: str
    """Pass it as `after`."""


async def watch(call: Call) -> Answer | Stream:
    """The commits of one session."""
    session, query = call.session, call.query(WatchQuery)
    resumed = call.once("last-event-id")
    asked, name = (resumed, RESUME.name) if resumed else (query.after, "after")
    after, hash = 0, None
    if asked is not None and "-" in asked:
        version = parse_version(asked, name)
        after, hash = version.number, version.hash
    elif asked not in (None, "", "0"):
        after = parse_number(str(asked), name)
    following = SessionFollowing(call.node.hub, call.store, call.node.options.heartbeat, session, after, hash)
    choice = Choice(frozenset(query.types) if query.types else None, "", query.control)
    call.accepts(JSON if query.live == "long-poll" else EVENT_STREAM)
    first = await following.first()
    if query.live == "long-poll":
        found = await _poll(call, following, choice, first, query.wait)
        return json_answer({"commits": found, "position": following.position}, headers=_HEADERS)
    return _stream(call, following, choice, first)


async def changes(call: Call) -> Answer | Stream:
    """The commits of all sessions of the tenant."""
    query = call.query(ChangesQuery)
    choice = Choice(frozenset(query.types) if query.types else None, query.prefix, query.control)
    resumed, tags = call.once("last-event-id"), parse_tags(query.tag)
    with naming(RESUME.name if resumed else "after"):
        following = ChangesFollowing(call.node.hub, call.store, call.node.options.heartbeat, resumed or query.after, choice, tags)
    if query.live == "long-poll":
        call.accepts(JSON)
        found = await _poll(call, following, choice, (), query.wait)
        return json_answer({"changes": found, "cursor": following.position}, headers=_HEADERS)
    call.accepts(EVENT_STREAM)
    return _stream(call, following, choice, ())


async def _poll(call: Call, following: Following, choice: Choice, first: Sequence[Entry], wait: float) -> list[dict[str, Any]]:
    """What there is, as soon as there is something."""
    found = _shown(first, choice)
    if found:
        return found
    gone = asyncio.ensure_future(call.gone())
    gone.add_done_callback(lambda _: following.stop())
    timer = asyncio.get_running_loop().call_later(wait, following.stop)
    try:
        async with aclosing(following.batches()) as batches:
            async for batch in batches:
                found = _shown(batch, choice)
                if found:
                    break
    finally:
        timer.cancel()
        gone.cancel()
    return found


def _shown(batch: Sequence[Entry], choice: Choice) -> list[dict[str, Any]]:
    return [said for entry in batch if (said := entry.shown(choice)) is not None]


def _stream(call: Call, following: Following, choice: Choice, first: Sequence[Entry]) -> Stream:
    return Stream(_events(call, following, choice, first), EVENT_STREAM, _HEADERS, stop=following.stop)


async def _events(call: Call, following: Following, choice: Choice, first: Sequence[Entry]) -> AsyncGenerator[bytes, None]:
    """The messages, until the client goes away, the node drains, or the time is over: then the client comes back with its position."""
    loop, heartbeat = asyncio.get_running_loop(), call.node.options.heartbeat
    timer = loop.call_later(_seconds(call), following.stop)
    said, last = following.position, loop.time()
    yield RETRY + b"".join(_frames(first, choice))
    try:
        async with aclosing(following.batches()) as batches:
            async for batch in batches:
                frames = _frames(batch, choice)
                if not frames and loop.time() - last < heartbeat * 0.9:
                    continue
                if frames:
                    yield b"".join(frames)
                elif following.position != said:
                    yield message(id=following.position)
                else:
                    yield HEARTBEAT
                said, last = following.position, loop.time()
    except Error as error:
        yield message(encode(problem(error, call.head.trace_id)), event="error")
    finally:
        timer.cancel()
        following.stop()


def _frames(batch: Sequence[Entry], choice: Choice) -> list[bytes]:
    return [frame for entry in batch if (frame := entry.frame(choice)) is not None]


def _seconds(call: Call) -> float:
    """How long this stream lasts."""
    seconds = call.node.options.stream_seconds * (1 - JITTER + 2 * JITTER * (time.time_ns() // 1000 % 1000) / 1000)
    expires = call.credential.expires
    return seconds if expires is None else max(0.0, min(seconds, expires - time.time()))


RESUME = Header("Last-Event-ID", "The id of the last message that the client has: it goes on after it.")
ROUTES = (
    Route(
        method="GET",
        path="/v1/sessions/{id}/watch",
        scope=Scope.read,
        watches=True,
        handle=watch,
        name="watchSession",
        summary="Follow a session's commits",
        about="Those after a version, then those to come, in order, none left out. A message's `id` is its version and hash. The stream"
        " ends after about a minute, and after the session's deletion; a client comes back with `Last-Event-ID`. An error comes as the"
        " event `error`, with a problem document.",
        query=WatchQuery,
        headers=(RESUME,),
        replies=(
            Reply(200, "A message for each commit.", CommitOut, (EVENT_STREAM,)),
            Reply(200, "With long-poll: what came.", Commits),
        ),
        example='"$URL/v1/sessions/trip-42/watch?live=long-poll&after=1"',
    ),
    Route(
        method="GET",
        path="/v1/changes",
        scope=Scope.read,
        watches=True,
        handle=changes,
        name="readChanges",
        summary="Follow the commits of all sessions",
        about="At least once: some may come again after a cursor was taken up. A session's commits come in the order of their versions. A"
        " message's `id` is a cursor; a message without data says that only the cursor has moved on.",
        query=ChangesQuery,
        headers=(RESUME,),
        replies=(
            Reply(200, "A message for each change.", ChangeOut, (EVENT_STREAM,)),
            Reply(200, "With long-poll: what came.", Changes),
        ),
        example='"$URL/v1/changes?live=long-poll&wait=1"',
    ),
)
