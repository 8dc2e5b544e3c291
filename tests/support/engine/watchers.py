"""What the tests of watching share: a store on an engine of their own, what a watch gives, no look that hides what was not told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from perdure import Durability
from perdure.backends.spi import Backend
from perdure.clock import Clock, SystemClock
from perdure.codec.codec import Codec
from perdure.config import make_settings
from perdure.engine.core import Core
from perdure.engine.store import Store
from perdure.model.ids import SessionKey

S = SessionKey("default", "s")


@pytest.fixture(autouse=True)
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the engine tells of news, nothing else may wake a watcher: a look would hide what was not told."""
    monkeypatch.setattr("perdure.engine.live.watch.POLL_SELDOM", 600.0)


@asynccontextmanager
async def on(backend: Backend, clock: Clock | None = None, **settings: Any) -> AsyncIterator[Store]:
    """A store on this very backend."""
    core = Core(backend, "test:", clock or SystemClock(), make_settings(**settings), Durability.memory, Codec())
    try:
        yield Store(core, "default")
    finally:
        await core.close()


async def until(holds: Callable[[], bool]) -> None:
    """Wait until this holds; who changes it need not say so."""
    async with asyncio.timeout(30):
        while True:
            await asyncio.sleep(0.001)
            if holds():
                return


async def versions(store: Store, count: int, session: str = "s", **options: Any) -> list[int]:
    """The versions of so many commits."""
    found = []
    async with asyncio.timeout(30), contextlib.aclosing(store.watch(session, **options)) as commits:
        async for commit in commits:
            found.append(commit.version)
            if len(found) == count:
                break
    return found
