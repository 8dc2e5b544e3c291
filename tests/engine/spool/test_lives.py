"""An entry is meant for the life of its session that was known when it was enqueued, and is never applied in another."""

from __future__ import annotations

from pathlib import Path

import pytest

import perdure
from perdure import Event, op
from perdure.engine.spool import entries
from tests.support.engine.flaky import Flaky

ONE = Event("one", None, (op.add("/n", 1),))
NEW = Event("new life", None, (op.set("/n", 100),))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


async def start_another_life(url: str, *, recreate: bool = True) -> None:
    """What another process does meanwhile."""
    async with perdure.open(url) as other:
        await other.delete("s")
        if recreate:
            await other.append("s", NEW, recreate=True)


async def test_a_life_that_is_over(url: str, spool: str) -> None:
    """Entries of a deleted session fail as `Deleted`, those of one that was recreated as `Conflict`; the new life is untouched and takes
    entries of its own, which those who have read it enqueue."""
    async with perdure.open(url, spool=spool) as store:
        await store.append("s", ONE)
        flaky = Flaky(store)
        flaky.away = True
        old = await store.enqueue("s", ONE)
        follower = await store.enqueue("s", ONE)
        await start_another_life(url, recreate=False)
        flaky.away = False
        with pytest.raises(perdure.Deleted, match="before this write was shipped"):
            await old.receipt()
        with pytest.raises(perdure.Busy):
            await follower.receipt()
        async with perdure.open(url) as other:
            await other.append("s", NEW, recreate=True)
        blind = await store.enqueue("s", ONE)
        with pytest.raises(perdure.Busy):
            await blind.receipt()
        assert (await store.read("s")).state == {"n": 100}
        assert (await (await store.enqueue("s", ONE)).receipt()).version == 4
        assert (await store.append("s", ONE)).version == 5
        assert (await store.read("s")).state == {"n": 102}


async def test_recreated_in_between(url: str, spool: str) -> None:
    """An entry that is shipped after its session was deleted and created again is a `Conflict` that says so."""
    async with perdure.open(url, spool=spool) as store:
        await (await store.enqueue("s", ONE)).receipt()
        flaky = Flaky(store)
        flaky.away = True
        old = await store.enqueue("s", ONE)
        await start_another_life(url)
        flaky.away = False
        with pytest.raises(perdure.Conflict, match="deleted and created again"):
            await old.receipt()
        assert (await store.read("s")).state == {"n": 100}


async def test_the_life_is_decided_in_the_append_itself(url: str, spool: str) -> None:
    """A session that is deleted and created again after the shipper has looked, and before its append, is not written to."""
    async with perdure.open(url, spool=spool) as store:
        await (await store.enqueue("s", ONE)).receipt()
        flaky = Flaky(store)
        real = flaky.append

        async def late(appends: object) -> object:
            store._core.backend.append = real  # type: ignore[method-assign]
            await start_another_life(url)
            return await real(appends)  # type: ignore[arg-type]

        for event in (Event("note"), ONE):
            store._core.backend.append = late  # type: ignore[method-assign,assignment]
            queued = await store.enqueue("s", event)
            with pytest.raises(perdure.Conflict, match="deleted and created again"):
                await queued.receipt()
            assert (await store.read("s")).state == {"n": 100}


async def test_applied_in_its_own_life(url: str, spool: str) -> None:
    """An entry that was written, whose answer was lost, and whose session then began another life: its receipt is the one it has earned,
    and it is not applied again."""
    async with perdure.open(url, spool=spool) as store:
        await store.append("s", ONE)
        flaky = Flaky(store)
        flaky.lossy = 1
        queued = await store.enqueue("s", ONE)
        while flaky.lossy:
            await store.flush(timeout=0.01)
        flaky.away = True
        await start_another_life(url)
        flaky.away = False
        receipt = await queued.receipt()
        assert (receipt.version, receipt.duplicate) == (2, True)
        assert (await store.read("s")).state == {"n": 100}


async def test_a_session_that_nobody_knows(url: str, spool: str) -> None:
    """An entry of a store that knows nothing of the session means the life that is there when it is first looked at."""
    await start_two_lives(url)
    async with perdure.open(url, spool=spool) as store:
        assert (await (await store.enqueue("s", ONE)).receipt()).version == 4
        assert (await store.read("s")).state == {"n": 101}


async def start_two_lives(url: str) -> None:
    async with perdure.open(url) as other:
        await other.append("s", ONE)
    await start_another_life(url)


async def test_a_key_of_an_earlier_life_counts_again(url: str, spool: str) -> None:
    """A key that the life before has used is applied once more in this one, as `append` does."""
    async with perdure.open(url, spool=spool) as store:
        assert (await (await store.enqueue("s", ONE, key="k")).receipt()).version == 1
        await start_another_life(url)
        await store.read("s")
        again = await store.enqueue("s", ONE, key="k")
        receipt = await again.receipt()
        assert (receipt.version, receipt.duplicate, again.duplicate) == (4, False, False)
        assert (await (await store.enqueue("s", ONE, key="k")).receipt()).version == 4
        assert (await store.read("s")).state == {"n": 101}


async def test_sent_again_into_another_life(url: str, spool: str) -> None:
    """An entry of an ended life that is sent again fails again, also when the shipper knows the new life by then; adopted it is applied."""
    async with perdure.open(url, spool=spool) as store:
        await store.append("s", ONE)
        flaky = Flaky(store)
        flaky.away = True
        old = await store.enqueue("s", ONE)
        await start_another_life(url)
        flaky.away = False
        with pytest.raises(perdure.Conflict):
            await old.receipt()
        await store.read("s")
        assert (await (await store.enqueue("s", ONE)).receipt()).version == 4
        file = store._core.spool._file  # type: ignore[union-attr]
        assert await file.write(lambda connection: entries.retry(connection, [1], adopt=False)) == 1
        with pytest.raises(perdure.Conflict, match="deleted and created again"):
            await old.receipt()
        assert (await store.read("s")).state == {"n": 101}
        assert await file.write(lambda connection: entries.retry(connection, [1], adopt=True)) == 1
        assert (await old.receipt()).version == 5
        assert (await store.read("s")).state == {"n": 102}


async def test_leases_are_no_lives(url: str, spool: str) -> None:
    """Entries are shipped across leases that are taken and released, wait while one is exclusive, and go on when it is released."""
    async with perdure.open(url, spool=spool) as store, perdure.open(url) as other:
        await store.append("s", ONE)
        async with other.lease("s", owner="other", ttl=30):
            assert (await (await store.enqueue("s", ONE)).receipt()).version == 3
        assert (await (await store.enqueue("s", Event("note"))).receipt()).version == 5
        async with other.lease("s", owner="other", ttl=30, exclusive=True):
            waiting = await store.enqueue("s", ONE)
            with pytest.raises(perdure.Unavailable):
                await waiting.receipt(timeout=0.3)
            await (await store.enqueue("t", ONE)).receipt()
        assert (await waiting.receipt()).version == 8
        assert (await store.read("s")).state == {"n": 3}
