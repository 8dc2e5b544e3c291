"""What the tests of consumers share: a handler that records and fails, short pauses, what two runs of one name claim."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import pytest

from perdure import Change, Event, Store, ops
from tests.support.engine.following import Versions, versions

Places = set[tuple[str, int]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between attempts, and between looks at what was asked for, are short."""
    monkeypatch.setattr("perdure.ops.consumer.BACKOFF", 0.001)
    monkeypatch.setattr("perdure.ops.consumer.LOOK_EVERY", 0.01)
    monkeypatch.setattr("perdure.ops.checkpoint.WRITE_AGAIN_AFTER", 0.001)
    monkeypatch.setattr("perdure.engine.live.changes.POLL_SELDOM", 0.2)
    monkeypatch.setattr("perdure.engine.live.watch.POLL_SELDOM", 0.2)


class Recorder:
    """A handler that keeps what it has handled, and fails on each batch with one of the bad places."""

    def __init__(self, bad: Places = frozenset()) -> None:  # type: ignore[assignment]
        self.bad = set(bad)
        self.changes: list[Change] = []
        self.batches: list[int] = []
        self.failures = 0

    async def __call__(self, changes: list[Change]) -> None:
        await asyncio.sleep(0)
        for change in changes:
            if (place := (change.session, change.commit.version)) in self.bad:
                self.failures += 1
                raise ValueError(f"not {place}")
        self.changes += changes
        self.batches.append(len(changes))


def handled_in_order(changes: Iterable[Change]) -> Versions:
    """The versions of each session without repetitions; they must be in order."""
    found = versions(list(changes))
    assert all(given == sorted(set(given)) for given in found.values()), found
    return found


async def until_true(holds: Callable[[], Awaitable[object]]) -> None:
    """Wait until this holds; it is asked again and again."""
    async with asyncio.timeout(60):
        while not await holds():  # noqa: ASYNC110 - what is waited for is in the store
            await asyncio.sleep(0.01)


async def parked(store: Store) -> int:
    """Of how many sessions the only consumer has something parked."""
    return sum(len(info.parked) for info in await ops.consumers(store))


async def effects_happen_once(mine: Store, other: Store, *, sessions: int = 4, commits: int = 15) -> None:
    """Of two runs of one name one works at a time. They are started again until all is handled: then every change was handled by one of
    them, once, and has had its effect in the order of its session."""

    at_work = 0
    handled: list[tuple[str, int]] = []

    def handler_of(store: Store) -> ops.Handler:
        effects = store.for_tenant("effects")

        async def write(changes: list[Change]) -> None:
            nonlocal at_work
            at_work += 1
            assert at_work == 1, "Both work at once."
            for change in changes:
                await asyncio.sleep(0)  # Where an engine never waits, the other gets its turn here.
                event = Event("did", {"session": change.session, "version": change.commit.version})
                await effects.append(f"of {change.session}", event, key=change.key("writer"))
                handled.append((change.session, change.commit.version))
            at_work -= 1

        return write

    async def work(store: Store) -> None:
        while True:
            over = writing.done()
            done = await ops.consume(store, "writer", handler_of(store), batch=3, attempts=1, follow=False)
            assert done.parked == 0
            if over and done.handled == 0:
                return

    async def write(number: int) -> None:
        for _ in range(commits):
            await mine.append(f"s{number}", Event("n"))
            await asyncio.sleep(0)

    writing = asyncio.gather(*(write(number) for number in range(sessions)))
    await asyncio.gather(work(mine), work(other))
    await writing
    for number in range(sessions):
        history = mine.for_tenant("effects").history(f"of s{number}")
        assert [commit.events[0].data["version"] async for commit in history] == list(range(1, commits + 1))
    assert len(handled) == len(set(handled)) == sessions * commits
    (info,) = await ops.consumers(mine)
    assert (info.handled, info.waiting, info.parked) == (sessions * commits, 0, ())
