"""Cassandra: the feed skips nothing, also what is written long after it was told, and by clocks that differ."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from perdure.backends.conformance import behind, record
from perdure.backends.registry import open_backend
from perdure.backends.spi import Appended, Backend
from perdure.clock import SystemClock
from perdure.errors import Invalid
from perdure.model.ids import SessionKey
from tests.servers.cassandra import Cassandra
from tests.servers.fixture import Servers
from tests.support.backends.engines import Engine

ENGINE = Engine("cassandra", Cassandra, "horizon=0.6&bucket=3&namespace={}".format)
S = SessionKey("acme", "s")


@pytest.fixture
def url(servers: Servers[Cassandra]) -> str:
    return ENGINE.url(servers(Cassandra))


class Ahead(SystemClock):
    """A clock that is ahead of the others."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._ahead = int(seconds * 1e9)

    def now(self) -> int:
        return super().now() + self._ahead


async def all_of(backend: Backend, cursor: str | None = None) -> tuple[list[tuple[str, int]], str | None]:
    """What came behind a cursor for the first time, as session and version, and the cursor to go on from."""
    seen: dict[tuple[str, int], None] = {}
    while (page := await backend.feed(cursor, limit=7)).items:
        seen |= dict.fromkeys((change.session.id, change.record.head.version) for change in page.items)
        cursor = page.cursor
    return list(seen), page.cursor


class Sleeper:
    """Stops the first conditional write of a driver after it was told to the feed, until it is woken."""

    def __init__(self, client: Any) -> None:
        self._decide, self.calls = client.decide, 0
        self.asleep, self._awake = threading.Event(), threading.Event()
        client.decide = self.decide

    async def decide(self, *statements: Any) -> Any:
        self.calls += 1
        if self.calls == 1:
            self.asleep.set()
            await asyncio.to_thread(self._awake.wait)
        return await self._decide(*statements)

    def wake(self) -> None:
        self._awake.set()


@pytest.mark.parametrize("before", [0, 1, 2, 3])
async def test_a_write_that_was_told_and_slept_is_told_again(url: str, before: int) -> None:
    """A writer sleeps between telling and writing until a reader has gone by: its write is fenced off, told anew, and that reader sees
    it. So it is for a session's first record, for the next, and for a new bucket's first."""

    writer: Any = await open_backend(url, clock=SystemClock())
    reader = await open_backend(url, clock=SystemClock())
    for _ in range(before):
        await writer.append([behind(S)])
    seen, cursor = await all_of(reader)
    assert seen == [("s", version) for version in range(1, before + 1)]
    sleeper = Sleeper(writer.driver.client)
    append = asyncio.create_task(writer.append([behind(S, key="k")]))
    await asyncio.to_thread(sleeper.asleep.wait)
    nothing, cursor = await all_of(reader, cursor)
    assert nothing == []
    sleeper.wake()
    (outcome,) = await append
    assert isinstance(outcome, Appended)
    assert sleeper.calls == 2
    assert (await all_of(reader, cursor))[0] == [("s", before + 1)]
    await writer.append([behind(S)])
    assert len(await reader.read(S)) == before + 2
    await writer.close()
    await reader.close()


async def test_a_write_that_relied_on_being_told_ahead_and_slept_is_told_again(url: str) -> None:
    """A session that is written to again and again is told of ahead, without a request of its own for each append. Should one of these
    sleep until a reader has gone by it is fenced off and told anew; a later reader finds the fence and makes none."""
    url = url.replace("bucket=3&", "")

    writer: Any = await open_backend(url, clock=SystemClock())
    reader: Any = await open_backend(url, clock=SystemClock())
    client = writer.driver.client
    for _ in range(2):
        await writer.append([behind(S)])
    before = client.requests
    for _ in range(3):
        await writer.append([behind(S)])
    assert client.requests == before + 3
    sleeper = Sleeper(client)
    append = asyncio.create_task(writer.append([behind(S, key="k")]))
    await asyncio.to_thread(sleeper.asleep.wait)
    assert client.requests == before + 3
    seen, cursor = await all_of(reader)
    assert seen == [("s", version) for version in range(1, 6)]
    sleeper.wake()
    (outcome,) = await append
    assert isinstance(outcome, Appended)
    assert sleeper.calls == 2
    assert (await all_of(reader, cursor))[0] == [("s", 6)]
    fence = (await reader.run(reader.driver._chain.bare(S, 0))).fence
    assert (await all_of(writer))[0] == [("s", version) for version in range(1, 7)]
    assert (await reader.run(reader.driver._chain.bare(S, 0))).fence == fence
    await writer.close()
    await reader.close()


async def test_what_lost_its_race_is_not_in_the_feed_and_ghosts_do_not_stop_it(url: str) -> None:
    """Of many who race each record comes, from whoever wrote it; sessions that were told of and never written hold nobody up."""

    handles: list[Any] = [await open_backend(url, clock=SystemClock()) for _ in range(3)]
    for number in range(3):
        ghost = SessionKey("acme", f"ghost{number}")
        await handles[0].run(handles[0].driver._writer._announcer.announce(ghost, 0, (record(ghost, None),), 3))
    await asyncio.gather(*[handle.append([behind(S, salt=bytes([n, m])) for m in range(5)]) for n, handle in enumerate(handles)])
    seen, cursor = await all_of(handles[0])
    assert seen == [("s", version) for version in range(1, 16)]
    assert await handles[1].heads([SessionKey("acme", "ghost0")]) == [None]
    assert isinstance((await handles[1].append([behind(SessionKey("acme", "ghost0"))]))[0], Appended)
    assert (await all_of(handles[0], cursor))[0] == [("ghost0", 1)]
    for handle in handles:
        await handle.close()


async def test_a_clock_that_is_ahead_does_not_turn_a_chain_round(url: str) -> None:
    """Two handles take turns, one clock a quarter of a second ahead: a session's records come in the order of their versions, across
    buckets too."""

    one = await open_backend(url, clock=SystemClock())
    two = await open_backend(url, clock=Ahead(0.25))
    for number in range(12):
        await (one, two)[number % 2].append([behind(S, salt=bytes([number]))])
    seen, _ = await all_of(one)
    assert seen == [("s", version) for version in range(1, 13)]
    await one.close()
    await two.close()


async def test_a_telling_that_arrives_late_is_waited_for(url: str) -> None:
    """A writer whose telling takes a quarter of a second is not passed over by a reader who follows a quicker one."""

    slow: Any = await open_backend(url, clock=SystemClock())
    quick = await open_backend(url, clock=SystemClock())
    late, early = SessionKey("acme", "late"), SessionKey("acme", "early")
    await slow.append([behind(late)])
    await quick.append([behind(early)])
    seen, cursor = await all_of(quick)
    assert len(seen) == 2
    run = slow.driver.client.run

    async def sleepy(name: str, *values: Any) -> Any:
        if name == "announce":
            await asyncio.sleep(0.25)
        return await run(name, *values)

    slow.driver.client.run = sleepy
    append = asyncio.create_task(slow.append([behind(late)]))
    await asyncio.sleep(0.1)
    await quick.append([behind(early)])
    seen, cursor = await all_of(quick, cursor)
    await append
    seen += (await all_of(quick, cursor))[0]
    assert sorted(seen) == [("early", 2), ("late", 2)]
    await slow.close()
    await quick.close()


async def test_a_telling_that_took_too_long_is_made_again(url: str) -> None:
    """When a telling is durable only after half the horizon its time is too old to be relied on: the next one's counts."""

    backend: Any = await open_backend(url, clock=SystemClock())
    await backend.append([behind(S)])
    client, tellings = backend.driver.client, []
    run = client.run

    async def slow(name: str, *values: Any) -> Any:
        if name == "announce":
            tellings.append(values[3])
            if len(tellings) == 1:
                await asyncio.sleep(0.4)
        return await run(name, *values)

    client.run = slow
    await backend.append([behind(S)])
    client.run = run
    assert len(tellings) == 2
    (row,) = await backend.run(backend.driver._chain.ascend(S, 2, 2, 1))
    assert row.announced == tellings[1]
    assert (await all_of(backend))[0] == [("s", 1), ("s", 2)]
    await backend.close()


async def test_a_cursor_of_another_kind_is_refused(url: str) -> None:
    """What is no cursor of this feed is `Invalid`."""

    backend = await open_backend(url, clock=SystemClock())
    for cursor in ("x", "1:2", "1:2:-3", f"{1 << 63}:0:0"):
        with pytest.raises(Invalid):
            await backend.feed(cursor)
    await backend.close()
