"""Notices from a node, of what is watched here and nothing else.

When something else is watched, a second stream is opened, and the first one is closed once the second one hears; so nothing goes unheard in
between. Of what is new in it the node says at once how far it is. A stream that the node ends is followed by the next one in the same way.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing

from perdure.backends.http.calls import Calls
from perdure.backends.remote import Notice, cancel_and_wait
from perdure.errors import Error, Unavailable
from perdure.model.ids import SessionKey
from perdure.wire import records as wire

SETTLING = 0.02
"""Seconds for which changes of what is watched are collected."""


class Interest:
    """What is watched. Changed from any thread, read on the loop of the notices."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: set[SessionKey] = set()
        self._tenants: set[str] = set()
        self._everything = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: asyncio.Event | None = None

    def change(self, what: SessionKey | str, *, watched: bool) -> None:
        """A session, or a tenant by its name, is watched from now on, or no more. Until the first call everything is."""
        with self._lock:
            self._everything = False
            found: set[SessionKey] | set[str] = self._tenants if isinstance(what, str) else self._sessions
            (found.add if watched else found.discard)(what)  # type: ignore[arg-type]
            loop, changed = self._loop, self._changed
        if loop is not None and changed is not None:
            try:
                loop.call_soon_threadsafe(changed.set)
            except RuntimeError:  # The loop has ended, and the store with it.
                return

    def listen(self) -> asyncio.Event:
        """An event that is set, on this loop, when something else is watched."""
        with self._lock:
            self._loop, self._changed = asyncio.get_running_loop(), asyncio.Event()
            return self._changed

    def wanted(self) -> tuple[frozenset[SessionKey] | None, frozenset[str]]:
        """The sessions and the tenants; no sessions at all, `None`: everything."""
        with self._lock:
            return None if self._everything else frozenset(self._sessions), frozenset(self._tenants)


class _Stream:
    """One stream, read into a queue."""

    def __init__(self, calls: Calls, queue: asyncio.Queue[tuple[_Stream, wire.Moved | Error | None]], asked: wire.Notices) -> None:
        self._calls, self._queue, self._request = calls, queue, asked
        self.task = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        try:
            async with aclosing(self._calls.stream(wire.NOTICES, self._request)) as stream:
                async for found in stream:
                    self._queue.put_nowait((self, found))
        except Error as error:
            self._queue.put_nowait((self, error))
        else:
            self._queue.put_nowait((self, None))


async def notices(calls: Calls, interest: Interest) -> AsyncGenerator[Notice, None]:
    """See `remote.NotificationSource`."""
    changed, queue = interest.listen(), asyncio.Queue[tuple[_Stream, wire.Moved | Error | None]]()
    streams: list[_Stream] = []
    sessions, tenants = interest.wanted()
    streams.append(_Stream(calls, queue, _request_of(sessions, tenants, None)))
    waiting: asyncio.Task[bool] | None = None
    begun = False
    try:
        while True:
            if waiting is None:
                waiting = asyncio.get_running_loop().create_task(changed.wait())
            following = asyncio.ensure_future(queue.get())
            try:
                await asyncio.wait((waiting, following), return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not following.done():
                    following.cancel()
            if waiting.done():
                waiting = None
                await asyncio.sleep(SETTLING)
                changed.clear()
                before, (sessions, tenants) = (sessions, tenants), interest.wanted()
                if (sessions, tenants) != before:
                    streams.append(_Stream(calls, queue, _request_of(sessions, tenants, before[0])))
            if following.cancelled() or not following.done():
                continue
            stream, found = following.result()
            if isinstance(found, Error):
                raise found
            if found is None:
                if stream is streams[-1]:  # The node has ended it in good order.
                    streams.append(_Stream(calls, queue, _request_of(sessions, tenants, None)))
                continue
            if not begun or found.lost or (stream is not streams[0] and (tenants or sessions is None)):
                begun = True
                yield None, 0
            while streams[0] is not stream and stream in streams:  # The newer one hears: the older ones have done their work.
                await cancel_and_wait(streams.pop(0).task)
            for session, version in found.moved:
                yield session, version
    finally:
        if waiting is not None:
            waiting.cancel()
        await cancel_and_wait(*[stream.task for stream in streams])


def _request_of(sessions: frozenset[SessionKey] | None, tenants: frozenset[str], before: frozenset[SessionKey] | None) -> wire.Notices:
    """What a stream is asked for. `before`: what the one before it heard."""
    if sessions is None:
        return wire.Notices()
    if len(sessions) > wire.WATCHED_MAX:
        raise Unavailable(f"{len(sessions):,} sessions are watched here; a node takes {wire.WATCHED_MAX:,}: their heads are looked at.")
    fresh = sessions if before is None else sessions - before
    return wire.Notices(tuple(sorted(sessions)), tuple(sorted(tenants)), tuple(sorted(fresh)))
