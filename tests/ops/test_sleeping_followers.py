"""Followers of `changes` with a cursor alone, which sleep while a sweeper moves what they have not read to the archive."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import perdure
from perdure import Event
from perdure.ops import sweep
from tests.support.ops.scenarios import DAY
from tests.support.ops.simulated_clock import SimulatedClock


class Follower:
    """Reads some changes, or all that are there, then sleeps; each time it is a new one that has its cursor alone."""

    def __init__(self, store: perdure.Store) -> None:
        self._store = store
        self._cursor: str | None = None
        self.got: dict[str, list[int]] = {}

    async def read(self, count: int | None) -> None:
        """Read at most so many."""
        newest: dict[str, int] = {}
        async for change in self._store.changes(after=self._cursor, types=["n"], follow=False):
            self._cursor, version = change.cursor, change.commit.version
            assert version > newest.get(change.session, 0)
            newest[change.session] = version
            self.got.setdefault(change.session, []).extend(event.data for event in change.commit.events)
            if count is not None and (count := count - 1) == 0:
                return


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
@pytest.mark.parametrize("seed", range(3))
async def test_no_commit_is_missed_by_who_sleeps(tmp_path: Path, engine: str, seed: int) -> None:
    """Sessions are used, kept short, archived, restored and forked by chance; two followers wake now and then. Each gets every commit of
    each session, at least once, and in its order."""
    chance, clock = random.Random(seed), SimulatedClock(seed=seed)
    url = "memory:" if engine == "memory" else f"sqlite:///{tmp_path}/s.db"
    async with perdure.open(url, clock=clock, archive=f"file://{tmp_path}/archive") as store:
        followers = [Follower(store), Follower(store)]
        written: dict[str, list[int]] = {}
        await store.configure(prefix="short-", keep=3)
        await store.configure(prefix="idle-", archive_after=2 * DAY)
        for step in range(120):
            session = f"{chance.choice(('short-', 'idle-'))}{chance.randrange(5)}"
            if session in written and chance.random() < 0.1:
                session = await store.fork(session, id=f"{session}-{step}")
            await store.append(session, Event("n", step))
            written.setdefault(session, []).append(step)
            if chance.random() < 0.1:
                clock.advance(days=3)
                await sweep(store, once=True)
            if chance.random() < 0.15:
                await chance.choice(followers).read(chance.choice((1, 5, None)))
        clock.advance(days=3)
        await sweep(store, once=True)
        for follower in followers:
            await follower.read(None)
            assert follower.got.keys() == written.keys()
            for session, numbers in written.items():
                first = list(dict.fromkeys(follower.got[session]))
                assert first == numbers, session
