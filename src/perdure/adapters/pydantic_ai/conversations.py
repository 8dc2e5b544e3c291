"""The messages of a conversation: each once, in the log of one session, however many snapshots hold it.

An event of type "message" is `{"number": 12, "author": "user", "message": {…}}`: numbers count from 0 without a gap, and the message is
Pydantic AI's own JSON of it. A snapshot names its messages by runs of numbers, `[[0, 12], [15, 3]]`: first number, count. A session that
was deleted and begun again gives numbers that it never gave before, so that an older snapshot never gets messages of a later life.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter

from perdure.adapters.common.expired import expired_at, follows_expiry
from perdure.adapters.common.kept import kept
from perdure.adapters.common.models import adapter_json, adapter_value
from perdure.adapters.common.transactions import lost_race, transact
from perdure.engine.options import EVENTS_MAX
from perdure.engine.store import Store
from perdure.errors import AlreadyExists, Conflict, Corrupt, Deleted, Invalid, NotFound, Truncated, Unsupported
from perdure.lru import LruMap
from perdure.model.commit import Commit
from perdure.model.events import Event
from perdure.model.values import check

MESSAGE = "message"
COMMIT_BYTES = 1 << 20
"""About how much JSON of messages one commit takes."""
KNOWN_MAX = 256
"""Of how many conversations a store remembers which messages they hold."""

Numbers = list[tuple[int, int]]
"""Messages by number, as runs: first number, count."""
_Sized = tuple[bytes, int, dict[str, Any]]
"""A message with its digest and the size of its JSON."""


class _Known:
    """What this process knows of a session's present life: every message up to a version, by its digest."""

    def __init__(self, version: int = 0) -> None:
        """A life that begins after this version: 0, or the one at which the session was deleted."""
        self.version = version
        self.has_expired = False
        """Whether the session is not there since: it has expired, and the next append begins it again."""
        self.numbers: dict[bytes, int] = {}
        self.count = version * EVENTS_MAX
        """The next number. No commit has more events, so it is larger than every number of an earlier life."""

    def learn(self, commit: Commit) -> None:
        """Take in the next commit. Twice is once."""
        for event in commit.events:
            if event.type == MESSAGE:
                number, message = parse(event.data, commit)
                self.numbers.setdefault(digest(message)[0], number)
                self.count = max(self.count, number + 1)
        self.version = max(self.version, commit.version)


class Conversations:
    """The messages of one store's conversations. Safe from any thread: what is remembered only ever grows, and is true at any moment."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known = LruMap[str, _Known](KNOWN_MAX)

    async def append_missing(self, session: str, messages: Sequence[ModelMessage], actor: str | None) -> Numbers:
        """Append those messages that the session lacks, and give the numbers of all.

        The messages are found by content: what a run repeats of the conversation before it is not written again. Of two writers one comes
        first, and the other looks again at what is there; so each number is given once. Raises `Invalid` for what JSON cannot hold,
        `Deleted`, `Busy`.
        """
        wanted = [(*digest(message), message) for message in to_json(messages)]

        while True:
            known, more = await transact(session, partial(self._append_some, session, wanted, actor))
            if not more:
                return runs(known.numbers[key] for key, _, _ in wanted)

    async def _append_some(self, session: str, wanted: list[_Sized], actor: str | None, again: bool) -> tuple[_Known, bool]:
        """Append as many missing messages as one commit takes; what is known then, and whether more are missing."""
        known = await self._catch_up(session) if again else self._known_of(session)
        expected = known.version  # before the rest: what another thread learns meanwhile then shows as a conflict
        missing = {key: (size, message) for key, size, message in wanted if key not in known.numbers}
        if not missing:
            # All seem to be there: the session may have been deleted since they were appended.
            return (known, False) if again else await self._append_some(session, wanted, actor, again=True)
        events: list[Event] = []
        size = 0
        for length, message in missing.values():
            if events and (size + length > COMMIT_BYTES or len(events) == EVENTS_MAX):
                break
            events.append(Event(MESSAGE, {"number": known.count + len(events), "author": author(message), "message": message}))
            size += length
        try:
            with lost_race(AlreadyExists, Conflict):
                receipt = await self._store.append(
                    session, *events, expect=expected, on_conflict="raise", actor=actor, recreate=known.has_expired
                )
        except Deleted:
            if again or await expired_at(self._store, session) is None:
                raise
            return await self._append_some(session, wanted, actor, again=True)
        known.has_expired = False
        for key, event in zip(missing, events, strict=False):
            known.numbers.setdefault(key, event.data["number"])
            known.count = max(known.count, event.data["number"] + 1)
        known.version = max(known.version, receipt.version)
        return known, len(events) < len(missing)

    async def load(self, session: str, numbers: Numbers) -> dict[int, ModelMessage]:
        """The messages of these numbers, without those that were dropped. The log is read from its end, no further than needed.

        None of a life that has expired. Raises `NotFound`, `Deleted`, `Corrupt`, `Unsupported`.
        """
        wanted = set(expand(numbers))
        found: dict[int, Any] = {}
        dropped = False
        try:
            if wanted:
                async for commit in self._store.history(session, types={MESSAGE}, newest_first=True):
                    for event in commit.events:
                        number, message = parse(event.data, commit)
                        if number in wanted:
                            found[number] = message
                    if len(found) == len(wanted):
                        break
        except Truncated:
            dropped = True
        except Deleted:
            dropped = await expired_at(self._store, session) is not None
            if not dropped:
                raise
        if len(found) < len(wanted) and not dropped and not await follows_expiry(self._store, session):
            raise Corrupt(f"Session {session!r} lacks message {min(wanted - found.keys())}, which a snapshot names.", session=session)
        order = sorted(found)
        return dict(zip(order, from_json([found[number] for number in order], session), strict=True))

    def _known_of(self, session: str) -> _Known:
        known = self._known.get(session)
        if known is None:
            known = _Known()
            self._known.put(session, known)
        return known

    async def _catch_up(self, session: str) -> _Known:
        """What is known, with the commits that came since. Raises `Deleted`, unless the session has expired."""
        known = self._known_of(session)
        try:
            async for commit in kept(self._store, session, after=known.version, control=True):
                if commit.version > known.version + 1:  # between them an earlier life ended, or commits were dropped
                    known = _Known(commit.version - 1)
                    self._known.put(session, known)
                known.learn(commit)
        except NotFound:
            known = _Known()
            self._known.put(session, known)
        except Deleted:
            tombstone = await expired_at(self._store, session)
            if tombstone is None:
                raise
            known = _Known(tombstone)
            known.has_expired = True
            self._known.put(session, known)
        return known


def to_json(messages: Sequence[ModelMessage]) -> list[dict[str, Any]]:
    """The framework's JSON of each message, sound and escaped. Raises `Invalid` naming what it refuses."""
    if not isinstance(messages, (list, tuple)):
        raise Invalid(f"Messages come in a list, not in {type(messages).__name__}.")
    encoded: list[dict[str, Any]] = adapter_json(ModelMessagesTypeAdapter, list(messages), "A message")
    check(encoded, what="the messages")
    return encoded


def from_json(messages: list[Any], session: str) -> list[ModelMessage]:
    """The messages again. Raises `Unsupported` for what this version of the framework does not understand."""
    try:
        return adapter_value(
            ModelMessagesTypeAdapter, lambda: ModelMessagesTypeAdapter.validate_json(msgspec.json.encode(messages)), messages
        )
    except ValueError as error:
        raise Unsupported(f"Session {session!r} holds a message that this pydantic-ai does not understand: {error}.") from error


def digest(message: Any) -> tuple[bytes, int]:
    """What a message is known by, whatever the order of its members, and the size of its JSON."""
    text = msgspec.json.encode(message, order="sorted")
    return hashlib.sha256(text).digest(), len(text)


def parse(data: Any, commit: Commit) -> tuple[int, dict[str, Any]]:
    """Number and message of an event's data. Raises `Invalid` for what something else wrote."""
    if not isinstance(data, dict) or type(data.get("number")) is not int or not isinstance(data.get("message"), dict):
        raise Invalid(f"The message at version {commit.version} is not Pydantic AI's: something else wrote it.")
    return data["number"], data["message"]


def author(message: dict[str, Any]) -> str:
    """Who speaks, for people who read the log."""
    if message.get("kind") == "response":
        return "assistant"
    kinds = [part.get("part_kind") for part in message.get("parts") or ()]
    for kind, name in (("user-prompt", "user"), ("tool-return", "tool"), ("system-prompt", "system")):
        if kind in kinds:
            return name
    return "user"


def runs(numbers: Iterable[int]) -> Numbers:
    """Consecutive numbers as runs, in their order."""
    found: Numbers = []
    for number in numbers:
        if found and number == found[-1][0] + found[-1][1]:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((number, 1))
    return found


def expand(numbers: Numbers) -> Iterator[int]:
    """Every number that the runs hold, in their order."""
    for first, count in numbers:
        yield from range(first, first + count)
