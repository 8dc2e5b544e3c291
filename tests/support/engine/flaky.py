"""A store whose engine can be away, lose answers, be slow or refuse: the methods of the open engine itself are wrapped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import perdure
from perdure.backends.spi import Append, Outcome


class Flaky:
    """`Flaky(store)`, then set `away`, `lossy`, `refusing` or `slow`. Counts the calls of `append` that reached the engine."""

    def __init__(self, store: Any) -> None:
        backend: Any = store._core.backend
        self.away = False
        """Nothing is written or read: `Unavailable`."""
        self.lossy = 0
        """So many appends are written, and their answers lost: `Unknown`, of which only a second try says more."""
        self.refusing: perdure.Error | None = None
        """What an append meets in place of being written."""
        self.slow = 0.0
        """Seconds before each append."""
        self.appends = 0
        self.tries = 0
        """Appends that were tried, also while the engine is away."""
        self._append, self._heads = backend.append, backend.heads
        backend.append, backend.heads = self.append, self.heads

    async def append(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
        self.tries += 1
        self._check()
        if self.refusing is not None:
            raise self.refusing
        if self.slow:
            await asyncio.sleep(self.slow)
        self.appends += 1
        outcomes: Sequence[Outcome | BaseException] = await self._append(appends)
        if self.lossy:
            self.lossy -= 1
            raise perdure.Unknown("injected: the answer was lost", settled=True)
        return outcomes

    async def heads(self, sessions: Any) -> Any:
        self._check()
        return await self._heads(sessions)

    def _check(self) -> None:
        if self.away:
            raise perdure.Unavailable("injected: nobody is there")
