"""Clients of a service that write down all they did and saw through the public API, for the checker of `linearizability`."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import count

import perdure
from perdure import Event, op
from perdure.backends.remote import cancel_and_wait
from tests.support.backends.linearizability import Call, Lookup, Position, Read, Write, linearizable

SESSIONS = [f"s{number}" for number in range(16)]
RETRIED = (perdure.Unknown, perdure.Unavailable, perdure.Busy)
"""What the documentation says to send again, with the same key."""


class Visitors:
    """Clients at work until `stop`; then the history. Every client has its own key for each write, and sends a write again until it is
    answered."""

    def __init__(self, stores: Sequence[perdure.Store], *, writers: int = 12, readers: int = 4, seed: int = 1) -> None:
        self.errors: list[perdure.Error] = []
        """What `RETRIED` clients were told."""
        self.wrong: list[BaseException] = []
        """What nobody should be told here."""
        self.done: dict[str, dict[str, int]] = defaultdict(dict)
        """The version of each key, of each session, as the receipts have it."""
        self.reads = 0
        self.slowest = 0.0
        """Seconds of the longest call."""
        self._stores = list(stores)
        self._seen: dict[str, list[Call]] = defaultdict(list)
        self._written: dict[str, list[tuple[float, float, str, int]]] = defaultdict(list)
        """When a write began and ended, its key, and its version as the receipt has it."""
        self._open: dict[str, list[tuple[float, str]]] = defaultdict(list)
        """When a write began that nobody answered, and its key."""
        self._numbers = count()
        self._stopped, self._progress = asyncio.Event(), asyncio.Event()
        clients = [self._write] * writers + [self._look] * readers
        self._tasks = [asyncio.create_task(self._visit(visit, random.Random(f"{seed}/{number}"))) for number, visit in enumerate(clients)]

    @property
    def writes(self) -> int:
        """How many writes were acknowledged."""
        return sum(map(len, self.done.values()))

    def told(self) -> Counter[str]:
        """How many errors of each kind clients were told."""
        return Counter(error.code for error in self.errors)

    async def more(self, writes: int, seconds: float = 120) -> None:
        """Until that many more writes were acknowledged."""
        aim = self.writes + writes
        async with asyncio.timeout(seconds):
            while self.writes < aim:
                self._progress.clear()
                await self._progress.wait()
                if self.wrong:
                    raise self.wrong[0]

    async def stop(self) -> None:
        """Let each client end what it does, and look at every session once more."""
        self._stopped.set()
        await asyncio.gather(*self._tasks)
        for session in SESSIONS:
            await self._read(self._stores[0], session)

    async def cancel(self) -> None:
        """End every client at once."""
        await cancel_and_wait(*self._tasks)

    async def check(self) -> None:
        """Raise `AssertionError` unless all that was acknowledged is there once, nothing else is there twice, and what was seen has one
        order."""
        assert not self.wrong, repr(self.wrong[0])
        for session in SESSIONS:
            await self._stores[0].verify(session)
            commits = [commit async for commit in self._stores[0].history(session)]
            assert [commit.version for commit in commits] == list(range(1, len(commits) + 1))
            at = {str(commit.key): commit.version for commit in commits}
            assert len(at) == len(commits), f"a key is there twice in {session}"
            assert {key: at.get(key) for key in self.done[session]} == self.done[session], f"{session} has lost an acknowledged commit"
            assert set(at) <= {*self.done[session], *[key for _, key in self._open[session]]}
            assert (await self._stores[0].read(session)).state == {"seen": len(commits)}
            heads: list[Position] = [None, *[(commit.version, commit.hash) for commit in commits]]
            calls = [*self._seen[session]]
            calls += [
                Write(start, expected=heads[version - 1], made=heads[version], key=key, end=end)
                for start, end, key, version in self._written[session]
            ]
            calls += [
                Write(start, expected=heads[at[key] - 1], made=heads[at[key]], key=key) for start, key in self._open[session] if key in at
            ]
            assert linearizable(calls), f"what was seen of {session} has no order: {calls}"

    async def _visit(self, visit: object, chance: random.Random) -> None:
        while not self._stopped.is_set():
            start = time.monotonic()
            try:
                await visit(chance)  # type: ignore[operator]
            except RETRIED as error:
                self.errors.append(error)
                await asyncio.sleep(0.02)
            except Exception as error:  # noqa: BLE001 - nothing else may come out of a client
                self.wrong.append(error)
                self._progress.set()
                return
            self.slowest = max(self.slowest, time.monotonic() - start)

    async def _look(self, chance: random.Random) -> None:
        session, store = chance.choice(SESSIONS), chance.choice(self._stores)
        if chance.random() < 0.3 and self.done[session]:
            key, start = chance.choice(list(self.done[session])), time.monotonic()
            receipt = await store.find(session, key)
            self._seen[session].append(Lookup(start, key, receipt and receipt.version, end=time.monotonic()))
        else:
            await self._read(store, session)
        self.reads += 1
        await asyncio.sleep(0.005)

    async def _read(self, store: perdure.Store, session: str) -> None:
        found: Position = None
        start = time.monotonic()
        with suppress(perdure.NotFound):
            view = await store.read(session)
            found = view.version, view.hash
        self._seen[session].append(Read(start, found, end=time.monotonic()))

    async def _write(self, chance: random.Random) -> None:
        """One write, with one key, sent until it is answered."""
        session, key, edits = chance.choice(SESSIONS), f"k{next(self._numbers)}", chance.random() < 0.5
        while True:
            start = time.monotonic()
            try:
                receipt = await self._send(chance.choice(self._stores), session, key, edits=edits)
            except RETRIED as error:
                self.errors.append(error)
                if isinstance(error, perdure.Unknown):
                    self._open[session].append((start, key))
                await asyncio.sleep(0.02)
            else:
                break
        end = time.monotonic()
        if receipt.duplicate:
            self._seen[session].append(Lookup(start, key, receipt.version, end=end))
        else:
            self._written[session].append((start, end, key, receipt.version))
        self.done[session][key] = receipt.version
        self._progress.set()

    async def _send(self, store: perdure.Store, session: str, key: str, *, edits: bool) -> perdure.Receipt:
        if not edits:
            return await store.append(session, Event("note", None, (op.add("/seen", 1),)), key=key)
        async with store.edit(session, key=key) as draft:
            if draft.receipt is None:
                draft.add("/seen", 1)
        assert draft.receipt is not None
        return draft.receipt
