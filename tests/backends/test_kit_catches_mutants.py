"""The kit's own test: engines with one deliberate defect each must fail it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from perdure.backends.conformance import CASES, record
from perdure.backends.memory import MemoryBackend
from perdure.backends.spi import Append, Backend, Head, Index, Known, Page, Query, Record, Row
from perdure.clock import SeededClock
from perdure.errors import Invalid
from perdure.model.commit import Status
from perdure.model.ids import SessionKey


class Mutant(MemoryBackend):
    """The memory engine, to be spoilt."""

    def __init__(self) -> None:
        super().__init__(SeededClock(1))


class LostUpdate(Mutant):
    """Accepts a stale head: a refused append is stored over whatever is there."""

    def _one(self, append: Append) -> Any:
        def finish(head: Head | None) -> Sequence[Record]:
            return append.finish(head) or (record(append.session, head, salt=b"stale"),)

        return super()._one(msgspec.structs.replace(append, finish=finish))


class Gap(Mutant):
    """Stores records that do not follow the head."""

    def _one(self, append: Append) -> Any:
        outcome = super()._one(append)
        if isinstance(outcome, Exception):
            chain = self._chains.get(append.session)
            if chain is not None:
                chain.records += append.finish(chain.head) or ()
        return outcome


class KeyTwice(Mutant):
    """Applies a key again."""

    def _one(self, append: Append) -> Any:
        return super()._one(msgspec.structs.replace(append, key=None))


class StaleRead(Mutant):
    """Answers `heads` one commit late."""

    async def heads(self, sessions: Sequence[SessionKey]) -> Sequence[Head | None]:
        chains = [self._chains.get(session) for session in sessions]
        return [chain.records[-2].head if chain and len(chain.records) > 1 else chain and chain.head for chain in chains]


class Resurrected(Mutant):
    """Forgets a purged session altogether."""

    async def purge(self, session: SessionKey) -> None:
        await super().purge(session)
        del self._chains[session]


class KeyForgotten(Mutant):
    """Forgets the keys of what it truncates."""

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:
        await super().truncate(session, below, anchor, snapshot=snapshot)
        chain = self._chains[session]
        chain.keys = {key: known for key, known in chain.keys.items() if known[0] >= below}


class TruncatesAnyway(Mutant):
    """Truncates without an anchor."""

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:
        chain = self._chains[session]
        chain.records = chain.records[chain.after(below - 1) :]


class PurgesTheLiving(Mutant):
    """Purges what is not deleted."""

    async def purge(self, session: SessionKey) -> None:
        chain = self._chains[session]
        chain.records = chain.records[-1:]
        chain.records[-1] = msgspec.structs.replace(
            chain.records[-1], head=msgspec.structs.replace(chain.head, status=int(Status.deleted)), body=b""
        )


class CrossTenant(Mutant):
    """Lists every tenant's sessions."""

    async def scan(self, query: Query, *, cursor: str | None = None, limit: int = 100) -> Page[Any]:
        rows = []
        if query.order != "id":
            return await super().scan(query, cursor=cursor, limit=limit)
        for tenant in sorted({session.tenant for session in self._chains}):
            rows += (await super().scan(msgspec.structs.replace(query, tenant=tenant), cursor=cursor, limit=limit)).items
        return Page(rows, None)


class HalfAnAppend(Mutant):
    """Stores the first of several records although the second does not follow."""

    def _one(self, append: Append) -> Any:
        outcome = super()._one(append)
        if isinstance(outcome, Exception) and append.session not in self._chains:
            try:
                records = append.finish(None) or ()
            except Invalid:
                return outcome
            super()._one(msgspec.structs.replace(append, finish=lambda head: records[:1]))
        return outcome


class Disordered(Mutant):
    """Answers the appends of a call in another order."""

    async def append(self, appends: Sequence[Append]) -> Any:
        return list(reversed(await super().append(appends)))


class FeedSkips(Mutant):
    """Leaves out every seventh record of the feed."""

    async def feed(self, cursor: str | None = None, limit: int = 256) -> Page[Any]:
        page = await super().feed(cursor, limit)
        return Page([change for change in page.items if change.record.head.version != 4], page.cursor)


class ForeignSnapshot(Mutant):
    """Keeps a snapshot of a commit that is not in the chain."""

    async def put_snapshot(self, session: SessionKey, snapshot: Any, *, size_bytes: int | None = None) -> None:
        self._chains[session].snapshots[snapshot.version] = snapshot


class KnownWithoutRequest(Mutant):
    """Forgets what a key was used for."""

    def _one(self, append: Append) -> Any:
        outcome = super()._one(append)
        return Known(outcome.version, b"", outcome.head) if isinstance(outcome, Known) else outcome


class ForgetsCells(Mutant):
    """Writes a commit without what it says of the index row."""

    def _one(self, append: Append) -> Any:
        index = append.index and Index(append.index.tags)
        return super()._one(msgspec.structs.replace(append, index=index))


class CellsAnyway(Mutant):
    """Changes the row although its head moved."""

    async def change_index(self, row: Row, index: Index) -> bool:
        (head,) = await self.heads([row.session])
        due_at = self._chains[row.session].due_at if head else None
        return await super().change_index(msgspec.structs.replace(row, head=head or row.head, due_at=due_at), index)


class ChangesForAll(Mutant):
    """Does not compare when a row is due before it changes it."""

    async def change_index(self, row: Row, index: Index) -> bool:
        chain = self._chains.get(row.session)
        return await super().change_index(msgspec.structs.replace(row, due_at=chain and chain.due_at), index)


class StillDue(Mutant):
    """Lists what was due among what is."""

    def _end_due(self, due: Any) -> None:
        pass


class DueByName(Mutant):
    """Lists what is due by its name."""

    async def scan(self, query: Query, *, cursor: str | None = None, limit: int = 100) -> Page[Any]:
        page = await super().scan(query, cursor=cursor, limit=limit)
        return Page(sorted(page.items, key=lambda row: row.session), page.cursor)


class DueForOne(Mutant):
    """Lists what is due of one tenant only, whoever asks."""

    async def scan(self, query: Query, *, cursor: str | None = None, limit: int = 100) -> Page[Any]:
        return await super().scan(msgspec.structs.replace(query, tenant=query.tenant or "acme"), cursor=cursor, limit=limit)


class KeepsSnapshots(Mutant):
    """Leaves the snapshots where they are asked to go."""

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:
        await super().truncate(session, below, anchor)


class DropsSnapshots(Mutant):
    """Takes all snapshots with each truncation."""

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes], *, snapshot: bool = False) -> None:
        await super().truncate(session, below, anchor, snapshot=True)


class DueForEver(Mutant):
    """Leaves the cells of what it purges."""

    async def purge(self, session: SessionKey) -> None:
        old = self._chains[session]
        await super().purge(session)
        self._chains[session].control = old.control


class TakesOldWriters(Mutant):
    """Lets everybody write, whatever the store requires."""

    async def require_writer(self, version: int) -> None:
        pass


class TakesOldIndexes(Mutant):
    """Lets old writers change index rows."""

    async def change_index(self, row: Row, index: Index) -> bool:
        least, self._min_writer = self._min_writer, 0
        try:
            return await super().change_index(row, index)
        finally:
            self._min_writer = least


MUTANTS = Mutant.__subclasses__()


def failures(make: Callable[[], Backend]) -> list[str]:
    @asynccontextmanager
    async def fresh() -> AsyncIterator[Backend]:
        yield make()

    failed = []
    for case in CASES:
        if not case.needs_another:
            try:
                case.run(fresh)
            except Exception:  # noqa: BLE001 - however it fails, it is caught
                failed.append(case.name)
    return failed


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_kit_catches(mutant: type[Mutant]) -> None:
    """An engine with this defect fails at least one case."""
    assert failures(mutant)


def test_the_sound_engine_passes() -> None:
    """The engine that the mutants are made of fails no case: what they fail, they fail for their defect."""
    assert failures(Mutant) == []
