"""Checkpoints of consumers: when they are written, what they keep, and what happens where one cannot be written."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

import perdure
from perdure import Change, Event, ops
from perdure.backends.memory import MemoryBackend
from perdure.backends.spi import Append
from perdure.clock import SystemClock
from perdure.engine.store import system_store
from tests.support.engine.following import versions
from tests.support.engine.watchers import on, until
from tests.support.ops.consumers import Recorder, until_true
from tests.support.ops.registered import checkpoint, until_saved, write


async def test_a_checkpoint_does_not_make_the_next(url: str) -> None:
    """Nothing is written for what is passed over: other sessions, other tenants, other types, the checkpoint itself; and nothing is seen
    of it by users."""
    async with perdure.open(url) as store:
        seen = Recorder()
        await write(store, "a")
        running = asyncio.create_task(ops.consume(store, "indexer", seen, prefix="a", types={"n"}))
        await until(lambda: len(seen.changes) == 1)
        await until_saved(store, seen.changes[-1])
        before = (await checkpoint(store)).version
        await write(store, "b", 5)
        await write(store.for_tenant("another"), "a", 5)
        await store.append("a", Event("other"))
        await write(store, "a")
        await until(lambda: len(seen.changes) == 2)
        await until_saved(store, seen.changes[-1])
        assert (await checkpoint(store)).version == before + 1
        await write(store, "b", 3)
        assert (await ops.consume(store, "second", seen, prefix="nothing", follow=False)).handled == 0
        assert (await checkpoint(store, "second")).version == 1 + 2, "It was registered, and its lease was taken and released."
        assert (await checkpoint(store)).version == before + 1
        running.cancel()
        assert {info.session async for info in store.list()} == {"a", "b"}
        assert {change.session async for change in store.changes(follow=False)} == {"a", "b"}


async def test_a_checkpoint_keeps_its_newest_commits(url: str) -> None:
    """However much is handled, a checkpoint has a few hundred commits at most, and the consumer goes on where it was."""
    async with perdure.open(url) as store:
        system, seen = system_store(store), Recorder()
        await write(store, "a", 330)
        await ops.consume(store, "indexer", seen, batch=1, follow=False)
        with pytest.raises(perdure.Truncated) as caught:
            [commit async for commit in system.history("consumer/indexer", control=True)]
        left = [commit async for commit in system.history("consumer/indexer", control=True, after=caught.value.first - 1)]
        assert 100 <= len(left) <= 260
        await write(store, "a", 2)
        assert (await ops.consume(store, "indexer", seen, follow=False)).handled == 2
        assert versions(seen.changes) == {"a": list(range(1, 333))}


async def test_a_checkpoint_is_cut_though_nothing_is_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers to those who wait for the lease do not let the checkpoint of an idle consumer grow."""
    monkeypatch.setattr("perdure.ops.consumer.CUT_SECONDS", 0.0)
    async with perdure.open("memory:") as store:
        system = system_store(store)
        running = asyncio.create_task(ops.consume(store, "indexer", Recorder()))

        async def at_work() -> bool:
            return [info.session async for info in system.leases()] == ["consumer/indexer"]

        await until_true(at_work)
        for number in range(220):
            await system.configure("consumer/indexer", tags={"n": str(number)})
        await write(store, "a")  # It wakes the consumer.

        async def is_cut() -> bool:
            try:
                return not [commit async for commit in system.history("consumer/indexer")]
            except perdure.Truncated:
                return True

        await until_true(is_cut)
        running.cancel()


@pytest.mark.parametrize("stored", [True, False])
async def test_a_lost_answer_of_a_checkpoint(stored: bool) -> None:
    """Where the answer of a checkpoint's write is lost, whether or not it was stored, the consumer goes on, and does not step back."""

    class Loses(MemoryBackend):
        left = 3

        async def append(self, appends: Sequence[Append]) -> Any:
            mine = appends[0].session.id == "consumer/indexer" and appends[0].key is not None
            if mine and self.left:
                self.left -= 1
                if stored:
                    await super().append(appends)
                raise perdure.Unknown("The connection broke.")
            return await super().append(appends)

    backend = Loses(SystemClock())
    async with on(backend) as store:
        await write(store, "ab", 6)
        seen = Recorder()
        assert await ops.consume(store, "indexer", seen, batch=2, follow=False) == ops.Consumed(12, 0)
        assert versions(seen.changes) == {session: list(range(1, 7)) for session in "ab"}
        assert (await ops.consumers(store))[0].handled == 12
        assert (await checkpoint(store)).version == 1 + 6 + 2, "It was registered, written six times, and its lease taken and released."


async def test_a_checkpoint_waits_for_an_engine_that_is_away() -> None:
    """`Unavailable` at the checkpoint's write is waited out: the changes are not handled again."""

    class Away(MemoryBackend):
        left = 2

        async def append(self, appends: Sequence[Append]) -> Any:
            if appends[0].session.tenant == "~default" and appends[0].key is not None and self.left:
                self.left -= 1
                raise perdure.Unavailable("It is away.")
            return await super().append(appends)

    async with on(Away(SystemClock())) as store:
        await write(store, "a", 2)
        seen = Recorder()
        assert await ops.consume(store, "indexer", seen, follow=False) == ops.Consumed(2, 0)
        assert versions(seen.changes) == {"a": [1, 2]}


async def test_a_name_belongs_to_one_registration(url: str) -> None:
    """A consumer of a name that was registered for other changes, or another function, is refused and handles nothing; `code` says that
    it is the same after all. A forgotten one begins at the start, or after a cursor."""

    async def other(changes: list[Change]) -> None:
        raise AssertionError

    async with perdure.open(url) as store:
        await write(store, "abc")
        seen = Recorder()
        await ops.consume(store, "indexer", seen, follow=False, prefix="a", types={"n"})
        same: dict[str, Any] = {"prefix": "a", "types": ["n"]}
        for handler, options, words in (
            (seen, {"prefix": "b", "types": {"n"}}, "prefix='a', not 'b'"),
            (seen, {"prefix": "a"}, r"types=\['n'\], not None"),
            (seen, same | {"tags": {"x": "y"}}, "tags="),
            (seen, same | {"control": True}, "control=False, not True"),
            (other, same, "code='Recorder', not 'other'"),
        ):
            with pytest.raises(perdure.Invalid, match=words):
                await ops.consume(store, "indexer", handler, follow=False, **options)
        await write(store, "a")
        assert await ops.consume(store, "indexer", other, follow=False, code="Recorder", attempts=1, **same) == ops.Consumed(0, 1)
        await ops.forget(store, "indexer")
        assert await ops.consumers(store) == []
        first = [change async for change in store.changes(follow=False)][1]
        fresh = Recorder()
        await ops.consume(store, "indexer", fresh, follow=False, after=first.cursor)
        assert versions(fresh.changes) == {"c": [1], "a": [2]}


async def test_a_consumer_that_was_forgotten_stops(url: str) -> None:
    """`forget` ends a consumer at work with `Fenced` at its next checkpoint, also when the name was registered again."""
    async with perdure.open(url) as store:
        for again in (False, True):
            seen = Recorder()
            running = asyncio.create_task(ops.consume(store, "indexer", seen))
            await write(store, "a")
            await until(lambda: bool(seen.changes))  # noqa: B023 - it is waited for here
            await until_saved(store, [change async for change in store.changes(follow=False)][-1])
            await ops.forget(store, "indexer")
            if again:
                await ops.consume(store, "indexer", Recorder(), follow=False)
            await write(store, "a")
            with pytest.raises(perdure.Fenced):
                await running
