"""Other values and bits in what each engine stores: the right answer or `Corrupt`, and `verify` finds them all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

import perdure
from tests.servers.fixture import Servers
from tests.servers.process import Server
from tests.support.backends.flips import LAYOUTS, Flip, flips
from tests.support.engine.flipped import READS, WRITES, fill, outcome, verified
from tests.support.golden.places import Place
from tests.support.golden.stores import GOLDEN, Golden

on_engines = pytest.mark.parametrize("golden", [golden for golden in GOLDEN if golden.name in LAYOUTS], ids=str)
on_quick_engines = pytest.mark.parametrize(
    "golden", [golden for golden in GOLDEN if golden.name in LAYOUTS and golden.name != "cassandra"], ids=str
)
"""On Cassandra it takes ten seconds to make a store."""
LISTS_PROVEN = ("postgresql", "objects")
"""Engines whose listings compare each head with its newest commit; elsewhere a listing shows what its rows say."""
BELIEVED = re.compile(r"\.(due_at|due|control|size_bytes|size):|\}[aoz] b|^b'i/")
"""Cells that the engine holds for others: no commit says them, and no read or write goes by them."""


SLOW_TO_LOAD = ("mongodb", "dynamodb", "firestore", "datastore", "cassandra")
"""Engines on which a store takes a second to make."""


class Suffering:
    """One store, and copies of it of which each has one cell that was changed."""

    def __init__(self, golden: Golden, server: Server | None, folder: Path) -> None:
        self._golden, self._server, self._folder = golden, server, folder
        self.truth: dict[str, Any] = {}
        self.wrong: list[str] = []
        self.unfound: list[str] = []

    def _place(self) -> Place:
        return self._golden.place(self._server, self._folder)

    async def begin(self) -> list[Flip]:
        """Fill the store, learn what it answers, and think of all the changes."""
        place = self._place()
        await fill(place.url)
        whole = place.dump()
        async with perdure.open(place.url) as store:
            for name, action in READS.items():
                self.truth[name] = self._plain(name, await outcome(action, store))
        for name in WRITES:
            self.truth[name] = await self._answer(whole, name)
        return list(flips(self._golden.name, whole))

    async def _answer(self, dump: Any, name: str) -> Any:
        place = self._place()
        place.load(dump)
        async with perdure.open(place.url) as store:
            return await outcome(WRITES[name], store)

    def _plain(self, name: str, answer: Any) -> Any:
        """What is proven of an answer: not what the index row alone says."""
        if name.startswith("read ") and isinstance(answer, tuple):
            version, hash, state, status, _, _, updated_at = answer
            return version, hash, state, status, updated_at
        return [info.session for info in answer] if name.startswith("list") and isinstance(answer, list) else answer

    async def change(self, flip: Flip, writes: list[str]) -> None:
        """Ask a store with this change."""
        place = self._place()
        try:
            place.load(flip.dump)
        except psycopg.DataError:
            return  # The column's type forbids it.
        async with perdure.open(place.url) as store:
            for name, action in READS.items():
                if self._golden.name in LISTS_PROVEN or not name.startswith("list"):
                    self._judge(flip, name, self._plain(name, await outcome(action, store)))
        if await verified(place.url) and not BELIEVED.search(flip.where):
            self.unfound.append(flip.where)
        for name in writes:
            self._judge(flip, name, await self._answer(flip.dump, name))

    def _judge(self, flip: Flip, name: str, answer: Any) -> None:
        tagged = name == "list tagged" and "tags" in flip.where
        if answer not in (self.truth[name], perdure.Corrupt) and not tagged:
            self.wrong.append(f"{flip.where}: {name} answers {answer!r} instead of {self.truth[name]!r}")


async def suffer(golden: Golden, servers: Servers[Server], folder: Path, part: slice, least: int) -> None:
    """Make some of all the changes; each is seen by all reads and some of the writes."""
    suffering = Suffering(golden, servers(golden.server) if golden.server else None, folder)
    every, some = await suffering.begin(), [*WRITES]
    chosen = every[part]
    assert len(chosen) >= least
    for number, flip in enumerate(chosen):
        await suffering.change(flip, [some[(3 * number + place) % len(some)] for place in range(3)])
    assert not suffering.wrong, "\n".join(suffering.wrong[:30])
    assert not suffering.unfound, "\n".join(suffering.unfound[:30])


@on_quick_engines
async def test_some_cells(golden: Golden, servers: Servers[Server], tmp_path: Path) -> None:
    """What the next test claims of every change, of some."""
    await suffer(golden, servers, tmp_path, slice(None, None, 401 if golden.name in SLOW_TO_LOAD else 67), 1)


@pytest.mark.slow("hundreds of damaged stores")
@pytest.mark.timeout(1800)
@on_engines
async def test_every_cell(golden: Golden, servers: Servers[Server], tmp_path: Path) -> None:
    """Whatever one cell is changed to: reads and writes answer as before or with `Corrupt`, and `verify` finds it. Listings answer so where
    the engine compares heads for them."""
    await suffer(golden, servers, tmp_path, slice(None, None, 7 if golden.name in SLOW_TO_LOAD else 1), 40)
