"""Any life of sessions with and without an archive: two stores get the same calls, one archives in between, and both read the same."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import perdure
from perdure import Commit, Event, Kind, Store, op

T = TypeVar("T")
PART = st.floats(0, 1, exclude_max=True)
KEYS = st.sampled_from(["a", "b", "c", "d"])
NAMES = ("one", "two")
SEARCH = (Phase.explicit, Phase.reuse, Phase.generate)
"""A failure is shown as it was found: making it smaller would take minutes."""


def said(commit: Commit) -> list[Any]:
    """The events of a commit. Which version and hash a merge took in differs: an anchor is a commit too."""
    events = commit.events if commit.kind is Kind.data else ()
    return [(event.type, None if event.type == "merged" else event.data, event.ops) for event in events]


class ArchivedBesidePlain(RuleBasedStateMachine):
    """`archived` is the store that archives, and `plain` the one that never does."""

    scheme = "memory:"

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="perdure-archive-"))
        self.names: list[str] = []
        self.forks = self.writes = 0
        self.parents: dict[str, str] = {}
        self.cursor: str | None = None
        self.followed: set[tuple[str, int]] = set()

    def place(self) -> dict[str, Any]:
        """Where the store that archives is, as it is opened."""
        url = self.scheme if self.scheme == "memory:" else f"sqlite:///{self.folder}/archived.db"
        return {"url": url, "archive": f"file://{self.folder}/archive"}

    @initialize()
    def opens(self) -> None:
        self.archived = self.wait(self.opened(**self.place()))
        self.plain = self.wait(self.opened("memory:"))
        for name in NAMES:
            self.both(lambda store, name=name: store.append(name, Event("start", None, (op.set("/n", 0),))))  # type: ignore[misc]
        self.names = [*NAMES]

    async def opened(self, url: str, **options: Any) -> Store:
        return await perdure.open(url, snapshot_bytes_min=500, cache_bytes=2_000, **options)

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        try:
            if self.names:
                self.same_everywhere()
        finally:
            if self.names:
                self.wait(self.archived.close())
                self.wait(self.plain.close())
            self.runner.close()
            shutil.rmtree(self.folder)

    def outcome(self, call: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self.wait(call)
        except perdure.Error as error:
            return type(error)

    def both(self, call: Any) -> Any:
        """The same call on both: both do it, or both refuse it with the same error."""
        one, two = self.outcome(call(self.archived)), self.outcome(call(self.plain))
        assert isinstance(one, type) == isinstance(two, type), (one, two)
        if isinstance(one, type):
            assert one is two
        return one

    def name(self, part: float) -> str:
        return self.names[int(part * len(self.names))]

    @rule(part=PART, key=st.none() | KEYS, ops=st.booleans(), size=st.integers(0, 300))
    def append(self, part: float, key: str | None, ops: bool, size: int) -> None:
        self.writes += 1
        events = Event("turn", {"text": "x" * size}), Event("more", None, (op.append("/list", [self.writes]),) if ops else ())
        name = self.name(part)
        self.both(lambda store: store.append(name, *events, key=key))

    @rule(part=PART, value=st.integers())
    def edit(self, part: float, value: int) -> None:
        name = self.name(part)

        async def change(store: Store) -> Any:
            async with store.edit(name) as draft:
                draft.state["n"] = value
            return draft.receipt

        self.both(change)

    @rule(part=PART, value=st.sampled_from(["x", "y"]))
    def tag(self, part: float, value: str) -> None:
        name = self.name(part)
        self.both(lambda store: store.configure(name, tags={"t": value}))

    @precondition(lambda self: len(self.names) < 6)
    @rule(part=PART, at=PART)
    def fork(self, part: float, at: float) -> None:
        name, self.forks = self.name(part), self.forks + 1
        child = f"fork{self.forks}"

        async def make(store: Store) -> str:
            commits = await self.told(store, name)
            return await store.fork(name, at=commits[int(at * len(commits))].version, id=child)

        if not isinstance(self.both(make), type):
            self.names.append(child)
            self.parents[child] = name

    @precondition(lambda self: self.parents)
    @rule(part=PART)
    def merge(self, part: float) -> None:
        child = [*self.parents][int(part * len(self.parents))]
        self.both(lambda store: store.merge(child, into=self.parents[child]))

    @rule(part=PART)
    def delete(self, part: float) -> None:
        name = self.name(part)
        self.both(lambda store: store.delete(name))

    @rule(part=PART, key=st.none() | KEYS)
    def recreate(self, part: float, key: str | None) -> None:
        name = self.name(part)
        self.both(lambda store: store.append(name, Event("again", None, (op.set("/life", 2),)), key=key, recreate=True))

    @rule(part=PART)
    def archive(self, part: float) -> None:
        self.outcome(self.archived.archive(self.name(part)))

    @rule(part=PART, keep=st.integers(0, 6))
    def compact(self, part: float, keep: int) -> None:
        self.outcome(self.archived.compact(self.name(part), keep=keep))

    @rule(part=PART)
    def restore(self, part: float) -> None:
        self.outcome(self.archived.restore(self.name(part)))

    @rule(count=st.integers(1, 8))
    def follow(self, count: int) -> None:
        """A follower that has its cursor alone reads some of what there is."""
        self.wait(self._follow(count))

    async def _follow(self, count: int) -> None:
        async for change in self.archived.changes(after=self.cursor, control=True, follow=False):
            self.cursor = change.cursor
            self.followed.add((change.session, change.commit.version))
            if (count := count - 1) == 0:
                break

    async def told(self, store: Store, name: str, **options: Any) -> list[Commit]:
        """The commits, but those that archive."""
        return [commit async for commit in store.history(name, **options) if commit.kind is not Kind.anchor]

    @invariant()
    def heads_are_the_same(self) -> None:
        for name in self.names:
            one, two = self.outcome(self.archived.read(name)), self.outcome(self.plain.read(name))
            assert (one, type) == (two, type) if isinstance(one, type) else (one.state, one.tags) == (two.state, two.tags)

    def same_everywhere(self) -> None:
        """Histories from both ends, every version, every key and every proof; and followers got every commit."""

        async def compare() -> None:
            await self._follow(-1)
            for name in self.names:
                own = [commit async for commit in self.archived.history(name, include_deleted=True, newest_first=True)]
                start = next((commit.version for commit in own if commit.events[0].type == "forked"), 1)
                missed = {(name, commit.version) for commit in own if commit.version >= start} - self.followed
                assert not missed
                one, two = [await self.told(store, name, include_deleted=True) for store in (self.archived, self.plain)]
                assert [said(commit) for commit in one] == [said(commit) for commit in two]
                assert [(commit.kind, commit.key) for commit in one] == [(commit.kind, commit.key) for commit in two]
                assert await self.told(self.archived, name, include_deleted=True, newest_first=True) == one[::-1]
                for mine, theirs in zip(one, two, strict=True):
                    states = [
                        (await store.read(name, at=commit.version, include_deleted=True)).state
                        for store, commit in ((self.archived, mine), (self.plain, theirs))
                    ]
                    assert states[0] == states[1], (name, mine.version)
                assert (await self.archived.verify(name)).commits >= len(one)
                places = [{commit.version: number for number, commit in enumerate(commits)} for commits in (one, two)]
                for key in ("a", "b", "c", "d"):
                    found = [await store.find(name, key) for store in (self.archived, self.plain)]
                    assert [receipt and place[receipt.version] for receipt, place in zip(found, places, strict=True)].count(
                        found[1] and places[1][found[1].version]
                    ) == 2

        self.wait(compare())


class ArchivedOnSQLite(ArchivedBesidePlain):
    """The same, where the archiving store is a file."""

    scheme = "sqlite"


TestMemory = ArchivedBesidePlain.TestCase
TestMemory.settings = settings(max_examples=25, stateful_step_count=30, phases=SEARCH)
TestSQLite = ArchivedOnSQLite.TestCase
TestSQLite.settings = settings(max_examples=10, stateful_step_count=25, phases=SEARCH)
TestMore = pytest.mark.slow(type("TestMore", (ArchivedBesidePlain.TestCase,), {"settings": settings(max_examples=300, phases=SEARCH)}))
"""Slow: minutes of random lives."""
