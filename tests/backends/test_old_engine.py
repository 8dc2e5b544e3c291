"""An engine of somebody else, written before schema 2: what it does not know it is not asked for."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

import perdure
from perdure import Event
from perdure.backends import registry
from perdure.backends.conformance import CASES, Case
from perdure.backends.memory import MemoryBackend
from perdure.backends.spi import Append, Indexed, Query, Row, Snapshot, Versioned, indexed
from perdure.clock import Clock, SystemClock
from perdure.model.ids import SessionKey
from tests.support.backends.scenarios import opened


class OldEngine:
    """What the specification was before: no member that came later, and rows without the later cells."""

    def __init__(self, clock: Clock) -> None:
        self._engine = MemoryBackend(clock)
        self.store_id = self._engine.store_id
        self.capabilities = msgspec.structs.replace(self._engine.capabilities, scan_orders=("id",), notification=False)

    async def append(self, appends: Sequence[Append]) -> Any:
        return await self._engine.append(appends)

    async def heads(self, sessions: Sequence[SessionKey]) -> Any:
        return await self._engine.heads(sessions)

    async def load(self, session: SessionKey, at: int | None = None) -> Any:
        loaded = await self._engine.load(session, at)
        return loaded and msgspec.structs.replace(loaded, row=old(loaded.row))

    async def read(self, session: SessionKey, *, after: int = 0, before: int | None = None, limit: int = 256, reverse: bool = False) -> Any:
        return await self._engine.read(session, after=after, before=before, limit=limit, reverse=reverse)

    async def find_key(self, session: SessionKey, key: str) -> Any:
        return await self._engine.find_key(session, key)

    async def put_snapshot(self, session: SessionKey, snapshot: Snapshot) -> None:
        await self._engine.put_snapshot(session, snapshot)

    async def scan(self, query: Query, *, cursor: str | None = None, limit: int = 100) -> Any:
        page = await self._engine.scan(query, cursor=cursor, limit=limit)
        return msgspec.structs.replace(page, items=[old(row) for row in page.items])

    async def feed(self, cursor: str | None = None, limit: int = 256) -> Any:
        return await self._engine.feed(cursor, limit)

    async def truncate(self, session: SessionKey, below: int, anchor: tuple[int, bytes]) -> None:
        await self._engine.truncate(session, below, anchor)

    async def purge(self, session: SessionKey) -> None:
        await self._engine.purge(session)

    async def close(self) -> None:
        await self._engine.close()


def old(row: Row) -> Row:
    """A row as it was made before."""
    return Row(row.session, row.head, row.tags, row.created_at)


async def open_old(url: str, *, clock: Clock) -> OldEngine:
    """The engine's entry point."""
    return OldEngine(clock)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", lambda: {"old": f"{__name__}:open_old"})


@pytest.mark.parametrize("case", [case for case in CASES if not case.needs_another], ids=str)
def test_it_conforms(case: Case) -> None:
    """It passes the kit, which asks it for nothing of schema 2."""
    case.run(lambda: opened("old:"))


async def test_a_store_on_it_works() -> None:
    """Every public call of a store works on it, snapshots, deletion and purge too."""
    async with perdure.open("old:", snapshot_bytes_min=0) as store:
        for number in range(40):
            async with store.edit("trip") as draft:
                draft.state[f"k{number}"] = number
        await store.configure("trip", tags={"a": "b"})
        assert [info.session async for info in store.list(tags={"a": "b"})] == ["trip"]
        child = await store.fork("trip", at=20)
        assert len((await store.read(child)).state) == 20
        await store.delete("trip")
        with pytest.raises(perdure.Deleted):
            await store.append("trip", Event("late"))
        await store.delete(child)
        await store.purge(child)


async def test_it_is_told_apart() -> None:
    """It has none of the protocols that came with schema 2, and nothing is said to upgrade."""
    async with opened("old:") as backend:
        assert not isinstance(backend, Indexed | Versioned)
        assert indexed(backend) is None
        assert "snapshot" not in inspect.signature(backend.truncate).parameters
    assert indexed(MemoryBackend(SystemClock())) is not None
