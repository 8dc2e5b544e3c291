"""Cassandra: a session that goes on from partition to partition is, to a reader, one chain."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from perdure.backends.cassandra.layout import Buckets
from perdure.backends.conformance import behind, record, versions
from perdure.backends.memory import MemoryBackend
from perdure.backends.registry import open_backend
from perdure.backends.remote import Attempt, HeadMismatch
from perdure.backends.spi import Append, Appended, Backend, Durability, Head, Index, Known, Record, Refused, Snapshot
from perdure.clock import SeededClock, SystemClock
from perdure.errors import Error
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey
from tests.servers.cassandra import Cassandra
from tests.servers.fixture import Servers
from tests.support.backends.engines import Engine
from tests.support.backends.scenarios import opened

ENGINE = Engine("cassandra", Cassandra, "bucket=3&namespace={}".format)
S = SessionKey("acme", "s")


@pytest.fixture
def url(servers: Servers[Cassandra]) -> str:
    return ENGINE.url(servers(Cassandra))


def test_where_an_append_goes() -> None:
    """The bucket follows from the expected head alone; a fork's first is 0; crossing a multiple seals."""
    buckets = Buckets(10)
    assert [buckets.of(version, 0) for version in (0, 9, 10, 19, 20)] == [0, 0, 1, 1, 2]
    assert [buckets.of(version, 47) for version in (0, 47, 49, 50, 60)] == [0, 0, 0, 1, 2]
    assert not buckets.seals(9, 0, 0)
    assert buckets.seals(10, 0, 0)
    assert buckets.seals(12, 0, 0)


def several(count: int, key: str | None = None, **columns: Any) -> Append:
    """An append of some records behind whatever head is there."""

    def finish(head: Head | None) -> Sequence[Record]:
        made: list[Record] = []
        for number in range(count):
            made.append(record(S, head, key=key if number == 0 else None, **columns))
            head = made[-1].head
        return made

    return Append(S, finish, key)


@pytest.mark.parametrize("seed", range(4))
async def test_it_does_what_the_memory_engine_does(url: str, seed: int) -> None:
    """A random walk of appends of one to three records, keys used twice, snapshots, truncation, deletion, purge and reads of all kinds,
    through two handles that know different things: every answer is the memory engine's."""
    chance = random.Random(seed)

    model = MemoryBackend(SeededClock(seed))
    async with opened(url) as one, opened(url) as two:

        async def both(call: str, *arguments: Any, **options: Any) -> Any:
            found: list[Any] = []
            for backend in (model, chance.choice((one, two))):
                try:
                    found.append(await getattr(backend, call)(*arguments, **options))
                except Error as error:
                    found.append(type(error))
            if call == "load":
                found = level(*found)
            assert plain(found[1]) == plain(found[0]), (call, arguments, options)
            return found[0]

        keys: list[str] = []
        base = chance.choice((0, 0, 7, 30))
        await both("append", [Append(S, lambda head: (record(S, head, skip=base if head is None else 0),))])
        for step in range(60):
            match chance.randrange(12):
                case 0 | 1 | 2 | 3:
                    keys.append(f"k{step}")
                    await both("append", [several(chance.randrange(1, 4), keys[-1], salt=b"%d" % step)])
                case 4:
                    await both("append", [several(1, chance.choice(keys or ["k"]), salt=b"again")])
                case 5:
                    await both("append", [behind(S, salt=b"t%d" % step, index=Index({"step": str(step)}))])
                case 6:
                    await both("find_key", S, chance.choice(keys or ["k"]))
                case 7:
                    head = (await model.heads([S]))[0]
                    (row,) = await model.read(S, reverse=True, limit=1)
                    await both("put_snapshot", S, Snapshot(row.head.version, row.head.hash, b"state%d" % step))
                    assert head == row.head
                case 8:
                    head = (await both("append", [behind(S, kind=Kind.anchor, salt=b"a%d" % step)]))[0].head
                    below = chance.randrange(max(head.version - 8, 1), head.version + 1)
                    await both("truncate", S, below, (head.version, head.hash))
                case 9 if chance.random() < 0.3:
                    await both("append", [behind(S, kind=Kind.tombstone, status=Status.deleted, salt=b"d%d" % step)])
                    await both("purge", S)
                    keys.clear()
                case _:
                    head = (await both("heads", [S]))[0]
                    at = chance.randrange(1, head.version + 2)
                    await both("load", S, chance.choice((None, at)))
                    after, before = at - chance.randrange(5), chance.choice((None, at + chance.randrange(6)))
                    options = {"limit": chance.choice((2, 256)), "reverse": chance.random() < 0.5}
                    await both("read", S, after=max(after, 0), before=before, **options)


def level(model: Any, mine: Any) -> list[Any]:
    """Two answers to `load` as of the later of their snapshots: how many older ones are kept is the engine's to choose."""
    if mine is None or model is None:
        return [model, mine]
    base = max(loaded.snapshot.version if loaded.snapshot else 0 for loaded in (model, mine))
    if mine.snapshot and mine.records:
        assert mine.records[0].head.version == mine.snapshot.version + 1
    return [(loaded.row, [item for item in loaded.records if item.head.version > base]) for loaded in (model, mine)]


def plain(answer: Any) -> Any:
    """An answer without what an engine may choose: how durable, which older snapshot, which key wins in the report."""
    match answer:
        case list() | tuple():
            return [plain(item) for item in answer]
        case Appended():
            return answer.head, answer.previous, answer.id
        case Known():
            return answer.version, answer.request, answer.head
        case Refused():
            return answer.head
    return answer


async def test_a_bucket_that_was_announced_and_never_opened(url: str) -> None:
    """A writer that dies between announcing the next bucket and writing to it leaves the chain as it was, for old and new handles."""

    async with opened(url) as backend:
        await backend.append([behind(S, key=f"k{number}") for number in range(3)])
        (head,) = await backend.heads([S])
        chain = backend.driver._chain
        await backend.run(backend.driver._writer._open(S, head, 1))
        async with opened(url) as other:
            for handle in (backend, other):
                assert await handle.heads([S]) == [head]
                assert [item.head.version for item in await handle.read(S, reverse=True)] == [3, 2, 1]
                loaded = await handle.load(S)
                assert [item.head.version for item in loaded.records] == [1, 2, 3]
                found = await handle.find_key(S, "k1")
                assert (found.version, found.head) == (2, head)
            assert isinstance((await other.append([behind(S, key="k1")]))[0], Known)
            assert isinstance((await other.append([behind(S, key="k9")]))[0], Appended)
        assert await versions(backend, S) == [1, 2, 3, 4]
        assert chain.buckets.size == 3


async def test_a_sealed_head_is_looked_at_before_the_next_bucket_is_opened(url: str) -> None:
    """An append that expects a head of the right version and another hash, as after a restore, opens no bucket: it learns the true head."""

    async with opened(url) as backend:
        await backend.append([behind(S) for _ in range(3)])
        (head,) = await backend.heads([S])
        wrong = msgspec.structs.replace(head, hash=bytes(32))
        attempt = Attempt(S, wrong, (record(S, wrong),), None, None, Durability.memory)
        assert await backend.run(backend.driver.write([attempt])) == [HeadMismatch(head)]
        assert await versions(backend, S) == [1, 2, 3]


async def test_a_new_session_begins_in_one_place(url: str) -> None:
    """Of writers that start one session at versions whose buckets would differ, exactly one wins."""

    async with opened(url) as one, opened(url) as two:

        async def start(backend: Backend, skip: int) -> object:
            return (await backend.append([Append(S, lambda head: None if head else (record(S, None, skip=skip),))]))[0]

        outcomes = await asyncio.gather(start(one, 0), start(two, 50), start(one, 9), start(two, 7))
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Appended", "Refused", "Refused", "Refused"]
        assert len(await versions(one, S)) == 1


async def test_many_handles_on_one_session(url: str) -> None:
    """Six handles that append to one session at once: Paxos contention costs time and nothing else, each append is stored once."""

    handles = [await open_backend(url, clock=SystemClock()) for _ in range(6)]

    async def write(name: int) -> None:
        for number in range(8):
            (outcome,) = await handles[name].append([behind(S, key=f"{name}/{number}", salt=b"%d/%d" % (name, number))])
            assert isinstance(outcome, Appended), outcome

    try:
        await asyncio.gather(*map(write, range(6)))
        assert await versions(handles[0], S) == list(range(1, 49))
    finally:
        for handle in handles:
            await handle.close()
