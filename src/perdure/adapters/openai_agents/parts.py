"""Items that one commit cannot hold: written before it in parts that no reader sees, until one event makes them items."""

from __future__ import annotations

import hashlib

import msgspec

from perdure.adapters.common.cutting import COMMIT_BYTES, pieces
from perdure.adapters.common.expired import append_or_begin
from perdure.adapters.openai_agents import transcript
from perdure.engine.leasing.lease import Lease
from perdure.engine.options import EVENTS_MAX
from perdure.engine.store import Store
from perdure.errors import Corrupt, Truncated, Unknown
from perdure.model.events import Event
from perdure.model.values import check


class Parts:
    """What one call writes in parts. The same items, as after a lost race, are not written again."""

    def __init__(self, store: Store, session: str, key: str | None = None, *, lease: Lease | None = None) -> None:
        """`key`: what the parts' idempotency keys begin with, so that they are written once whatever happens; `None`: random ones. `lease`:
        what they are written under."""
        self._store, self._session, self._key, self._lease = store, session, key, lease
        self._written: dict[bytes, Event] = {}

    async def fitting(self, events: list[Event]) -> list[Event]:
        """These events of items, if a commit surely holds them and another one; else one event that stands for them."""
        for event in events:
            check(event.data)
        text = msgspec.json.encode([event.data for event in events])
        return events if len(events) < EVENTS_MAX and len(text) <= COMMIT_BYTES else [await self._write(text)]

    async def instead(self, events: list[Event]) -> Event:
        """One event that stands for these events of items, which are written before it. Raises as `Store.append`."""
        for event in events:
            check(event.data)
        return await self._write(msgspec.json.encode([event.data for event in events]))

    async def _write(self, text: bytes) -> Event:
        digest = hashlib.sha256(text).digest()
        if digest not in self._written:
            versions = [await self._append(number, piece) for number, piece in enumerate(pieces(text.decode()))]
            self._written[digest] = transcript.items_at(versions)
        return self._written[digest]

    async def _append(self, number: int, piece: str) -> int:
        event = Event(transcript.PART, {"text": piece})
        key = self._store.new_id() if self._key is None else f"{self._key}/part/{number}"
        options = {"key": key, "lease": self._lease}
        try:
            return (await append_or_begin(self._store, self._session, event, **options)).version
        except Unknown:
            return (await append_or_begin(self._store, self._session, event, **options)).version


async def fetch(store: Store, session: str, logged: Event) -> list[dict[str, object]]:
    """The items that an event stands for, as they are stored; none if a part of them was dropped. Raises `Corrupt` if one is missing."""
    texts = []
    for version in logged.data["versions"]:
        try:
            async for commit in store.history(session, after=version - 1, before=version + 1):
                texts += [event.data["text"] for event in commit.events if event.type == transcript.PART]
        except Truncated:
            return []
    try:
        items: list[dict[str, object]] = msgspec.json.decode("".join(texts))
    except msgspec.DecodeError as error:
        raise Corrupt(f"Session {session!r} lacks a part of the items that it should hold: {error}.", session=session) from error
    return items
