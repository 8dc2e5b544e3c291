"""Clients of an engine that write down all they did and saw, for the checker of `linearizability`."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import count

import msgspec

from perdure.backends.conformance import expecting
from perdure.backends.spi import Append, Appended, Backend, Durability, Head, Known, Record, Refused
from perdure.errors import Error, Unavailable, Unknown
from perdure.model.ids import SessionKey
from tests.support.backends.linearizability import Call, Lookup, Position, Read, Refusal, Write, linearizable

SESSIONS = [SessionKey("acme", f"s{number}") for number in range(16)]


def at(head: Head | None) -> Position:
    """A head as the checker knows it."""
    return None if head is None else (head.version, head.hash)


class Load:
    """Clients at work until `stop`; then the history. Every handle is an engine opened on its own."""

    def __init__(self, handles: Sequence[Backend], *, clients: int = 12, seed: int = 1) -> None:
        self.calls: dict[SessionKey, list[Call]] = defaultdict(list)
        self.acknowledged: dict[SessionKey, list[Appended]] = defaultdict(list)
        self.refused: dict[SessionKey, list[bytes]] = defaultdict(list)
        """Ids of records whose append was `Unavailable`: certainly not applied."""
        self.wrong: list[BaseException] = []
        """Errors that an engine must not give here."""
        self.unknown = 0
        self.handles = list(handles)
        """Of which clients take one for each call; may be changed while they work."""
        self._numbers = count()
        self._stopped, self._progress = asyncio.Event(), asyncio.Event()
        self._clients = [asyncio.create_task(self._client(random.Random(f"{seed}/{number}"))) for number in range(clients)]

    @property
    def writes(self) -> int:
        """How many appends were acknowledged."""
        return sum(map(len, self.acknowledged.values()))

    async def more(self, writes: int, seconds: float = 60) -> None:
        """Until that many more appends were acknowledged."""
        aim = self.writes + writes
        async with asyncio.timeout(seconds):
            while self.writes < aim:
                self._progress.clear()
                await self._progress.wait()

    async def stop(self) -> None:
        """Let each client end its call, and look at every session once more."""
        self._stopped.set()
        await asyncio.gather(*self._clients)
        for session in SESSIONS:
            await self._read(self.handles[0], session)

    async def check(self) -> None:
        """Raise `AssertionError` unless all that was seen is linearizable and the chains hold what was acknowledged."""
        await self.check_chains()
        for session in SESSIONS:
            assert linearizable(self.calls[session]), f"what was seen of {session} has no order: {self.calls[session]}"

    async def check_chains(self, loss: Durability | None = None) -> int:
        """The part that holds also where reads may show what a failover drops: chains are whole and hold what was acknowledged, at a
        level above `loss` where that is given. How many of the others they do not hold."""
        assert not self.wrong, self.wrong[0]
        dropped = 0
        for session in SESSIONS:
            chain = await whole(self.handles[0], session)
            held = {record.head.version: record.head.hash for record in chain}
            assert list(held) == list(range(1, len(chain) + 1))
            gone = [one for one in self.acknowledged[session] if held.get(one.head.version) != one.head.hash]
            lost = [one for one in gone if loss is None or one.durability > loss]
            assert not lost, f"{session}: {len(lost)} acknowledged commits are not in the chain, first {lost[0]}"
            dropped += len(gone)
            assert not {record.id for record in chain} & set(self.refused[session])
            keys = [record.key for record in chain]
            assert len(set(keys)) == len(keys)
        return dropped

    async def _client(self, chance: random.Random) -> None:
        heads: dict[SessionKey, Head | None] = {}
        again: list[tuple[SessionKey, str]] = []
        while not self._stopped.is_set():
            await asyncio.sleep(0)
            session, handle = chance.choice(SESSIONS), chance.choice(self.handles)
            try:
                match chance.random():
                    case dice if dice < 0.2 or session not in heads:
                        heads[session] = await self._read(handle, session)
                    case dice if dice < 0.3 and again:
                        await self._find(handle, *chance.choice(again))
                    case dice:
                        key = f"k{next(self._numbers)}"
                        if dice > 0.9 and again:
                            session, key = again.pop()
                        heads[session] = await self._append(handle, session, heads.get(session), key)
            except Error as error:
                heads.pop(session, None)
                if isinstance(error, Unknown):
                    self.unknown += 1
                    again.append((session, key))
                elif not isinstance(error, Unavailable):
                    self.wrong.append(error)
                await asyncio.sleep(0.02)
            except Exception as error:  # noqa: BLE001 - nothing but errors of ours may come out of an engine
                self.wrong.append(error)

    async def _append(self, handle: Backend, session: SessionKey, expected: Head | None, key: str) -> Head | None:
        append = expecting(session, expected, key=key, salt=str(next(self._numbers)).encode())
        append = msgspec.structs.replace(append, durability=handle.capabilities.durability)
        (made,) = append.finish(expected) or ()
        start = time.monotonic()
        outcome = await self._outcome(handle, append)
        end = time.monotonic()
        wanted = Write(start, expected=at(expected), made=at(made.head), key=key, end=end)
        match outcome:
            case Appended(head):
                self.acknowledged[session].append(outcome)
                self._progress.set()
                self.calls[session].append(wanted)
                assert at(head) == at(made.head)
                return head
            case Refused(head):
                self.calls[session].append(Refusal(start, at(expected), at(head), key, end=end))
                return head
            case Known(version, _, head):
                self.calls[session].append(Lookup(start, key, version, end=end))
                return head
            case Unavailable():
                self.refused[session].append(made.id)
                raise outcome
            case Unknown():
                self.calls[session].append(Write(start, wanted.expected, wanted.made, key))
                raise outcome
            case error:
                raise error

    async def _outcome(self, handle: Backend, append: Append) -> object:
        try:
            return (await handle.append([append]))[0]
        except Error as error:
            return error

    async def _read(self, handle: Backend, session: SessionKey) -> Head | None:
        start = time.monotonic()
        (head,) = await handle.heads([session])
        self.calls[session].append(Read(start, at(head), end=time.monotonic()))
        return head

    async def _find(self, handle: Backend, session: SessionKey, key: str) -> None:
        start = time.monotonic()
        known = await handle.find_key(session, key)
        self.calls[session].append(Lookup(start, key, known.version if known else None, end=time.monotonic()))


async def whole(backend: Backend, session: SessionKey) -> list[Record]:
    """All records of a session."""
    found: list[Record] = []
    while page := await backend.read(session, after=found[-1].head.version if found else 0):
        found += page
    return found
