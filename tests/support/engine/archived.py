"""What tests of the archive share: a place, a session with turns, and what is where."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import perdure
from perdure import Store
from perdure.backends.spi import Backend, Loaded
from perdure.model.ids import SessionKey

S = "trip-42"
SERVED = os.environ.get("PERDURE_TEST_SERVED") == "1"
"""Whether the stores are those of nodes in this process: `tests/service/records/test_engine_suite.py` runs the tests so."""


def place(folder: Path) -> str:
    return f"file://{folder}/archive"


def archive(folder: Path) -> str | None:
    """What a test opens its store with: the place, but not where nodes have it."""
    return None if SERVED else place(folder)


async def turns(store: Store, count: int, session: str = S, start: int = 0) -> None:
    for number in range(start, start + count):
        async with store.edit(session, key=f"k{number}") as draft:
            draft.state.setdefault("turns", []).append(number)
            draft.event("message", {"n": number, "text": "hello " * 20})


async def history(store: Store, session: str = S, **options: Any) -> list[perdure.Commit]:
    return [commit async for commit in store.history(session, **options)]


@asynccontextmanager
async def engine(store: Store, folder: Path) -> AsyncIterator[Backend]:
    """The engine itself, below a node too."""
    if SERVED:
        async with perdure.open(f"sqlite:///{folder}/store.db", create=False) as direct:
            yield direct._core.backend
    else:
        yield store._core.backend


async def held(store: Store, folder: Path, session: str = S) -> list[int]:
    """The versions that the engine itself still holds."""
    async with engine(store, folder) as backend:
        return [record.head.version for record in await backend.read(SessionKey("default", session), limit=10_000)]


async def loaded(store: Store, folder: Path, session: str = S) -> Loaded:
    """What the engine itself loads of a session."""
    async with engine(store, folder) as backend:
        found = await backend.load(SessionKey("default", session))
        assert found is not None
        return found


def segments(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "archive").rglob("*-*-*") if path.is_file())
