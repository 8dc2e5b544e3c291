"""Notifications by LISTEN and NOTIFY, outside the appends.

NOTIFY takes a lock of the whole server at its commit: in an append it would put all writers of all databases in one line. So a store
notifies afterwards, in a statement of its own for all sessions that went on since the last, and only while someone listens. A listener
holds a shared advisory lock, which ends with its connection. The statement looks for that lock and notifies nobody where there is none.
It is then sent once a second, and covers what was stored meanwhile.

A process that dies may leave commits without a notification: watchers find them when they poll.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing

import msgspec

from perdure.backends.postgresql.connections import Connections
from perdure.backends.remote import Notice
from perdure.errors import Error
from perdure.model.ids import SessionKey

LISTENING = 0x70657265
"""The first half of the advisory lock of those who listen; the second is the number of the namespace's table of sessions."""
LOOK_EVERY = 1.0
"""Seconds between two looks for someone who listens, while nobody does."""
NOTIFY_EVERY = 0.02
"""Least seconds between two announcements."""
SESSIONS_MAX = 4096
"""Of more sessions at once the notification only says that much has happened."""
PAYLOAD_MAX = 7999
"""Most bytes that NOTIFY takes."""
LAST_WORDS = 1.0
"""Seconds that closing waits for notifications that are still to be sent."""
ALIVE_EVERY = 10.0
"""Seconds without a notification after which a connection is asked whether it is still there."""

_ENCODE = msgspec.json.Encoder().encode
_DECODER = msgspec.json.Decoder(list[tuple[str, str, int]])


class Announcer:
    """Notifies of what was stored, in the background."""

    def __init__(self, connections: Connections, statement: str, channel: str) -> None:
        self._connections, self._statement, self._channel = connections, statement, channel
        self._unsent: dict[SessionKey, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._free_at = 0.0
        self._closing = asyncio.Event()

    def stored(self, sessions: Iterable[tuple[SessionKey, int]]) -> None:
        """These sessions went on to these versions: they are notified soon, if anyone listens."""
        self._unsent.update(sessions)
        if self._unsent and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._unsent:
                await _wait(self._closing, self._free_at - loop.time())
                unsent, self._unsent = self._unsent, {}
                try:
                    heard = await self._announce(unsent)
                except Error:
                    heard = False  # Watchers poll, and the next append meets what is wrong.
                self._free_at = loop.time() + (NOTIFY_EVERY if heard else LOOK_EVERY)
        finally:
            self._task = None

    async def _announce(self, unsent: Mapping[SessionKey, int]) -> bool:
        values = {"channel": self._channel, "payloads": payloads(unsent)}
        ((notified,),) = await self._connections.fetch(self._statement, values, aside=True)
        return bool(notified)

    async def close(self) -> None:
        """Send the notifications that are left, if that takes no longer than a moment."""
        self._closing.set()
        if self._task is not None:
            task = self._task
            await asyncio.wait({task}, timeout=LAST_WORDS)
            task.cancel()
            await asyncio.wait({task})


async def _wait(event: asyncio.Event, seconds: float) -> None:
    if seconds > 0:
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            pass


def payloads(unsent: Mapping[SessionKey, int]) -> list[str]:
    """Lists of (tenant, id, version) in JSON, each as long as NOTIFY takes; an empty text stands for more than is worth a notice each."""
    if len(unsent) > SESSIONS_MAX:
        return [""]
    whole: list[str] = []
    part = bytearray()
    for (tenant, id), version in unsent.items():
        one = _ENCODE((tenant, id, version))
        if part and len(part) + len(one) + 2 > PAYLOAD_MAX:
            whole.append(f"[{part.decode()}]")
            part.clear()
        part += b"," + one if part else one
    return [*whole, f"[{part.decode()}]"]


def notices_in(payload: str) -> list[Notice]:
    """The notices in a payload. One that no store of ours wrote may mean anything."""
    try:
        return [(SessionKey(tenant, id), version) for tenant, id, version in _DECODER.decode(payload)]
    except msgspec.DecodeError:
        return [(None, 0)]


async def notices(connections: Connections, statements: Iterable[str]) -> AsyncGenerator[Notice, None]:
    """See `remote.listening.NotificationSource`. These statements make a connection one that listens."""
    async with aclosing(connections.listen(statements, ALIVE_EVERY)) as payloads:
        async for payload in payloads:
            for notice in [(None, 0)] if payload is None else notices_in(payload):
                yield notice
