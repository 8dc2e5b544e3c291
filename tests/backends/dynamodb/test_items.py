"""What lies in the table: requests counted, records that move out of the header item, parts, what truncation and purge leave."""

from __future__ import annotations

import random
from typing import Any

import pytest

import perdure
from perdure.backends.conformance import behind, record, versions
from perdure.backends.dynamodb.layout import SEGMENT_RECORDS
from perdure.backends.dynamodb.writes import TAIL_BYTES
from perdure.backends.spi import Append, Appended, Head, Record, Snapshot
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey
from tests.support.backends.fake_dynamodb import S, chain, items
from tests.support.backends.scenarios import large_ones_come_back_whole, opened, warm_read_is_one_request


async def test_a_commit_is_one_request_and_so_is_a_warm_read(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 64 sessions at once, plain appends are three requests together, and one each the first, with a key, or when records move; a read
    in memory asks for its head alone. The store's header, which is read again every few seconds, is not counted here."""
    monkeypatch.setattr("perdure.backends.common.schema.MIN_WRITER_SECONDS", 600)

    async with opened(url) as backend:
        table = backend.driver.table
        sessions = [SessionKey("acme", f"s{number}") for number in range(64)]
        spent = []
        for turn in range(20):
            before = table.requests
            key = f"k{turn}" if turn % 6 == 0 else None
            outcomes = await backend.append([behind(session, key=key, body=b"x" * 300) for session in sessions])
            assert all(isinstance(outcome, Appended) for outcome in outcomes)
            spent.append(table.requests - before)
        assert {*spent[::6]} == {64}
        assert {*spent} == {64, 3}
        assert spent.count(3) >= 12
    await warm_read_is_one_request(url, lambda backend: backend.driver.table.requests)


async def test_a_cold_start_is_one_request(url: str) -> None:
    """A session that another process wrote is loaded with its snapshot and newest records in one request."""

    async with opened(url) as backend:
        heads = await chain(backend, S, 40)
        await backend.put_snapshot(S, Snapshot(30, heads[29].hash, b"state"))
    async with opened(url) as backend:
        before = backend.driver.table.requests
        loaded = await backend.load(S)
        assert backend.driver.table.requests == before + 1
        assert loaded.snapshot.version == 30
        assert [item.head.version for item in loaded.records] == list(range(31, 41))


async def test_records_of_any_size_are_read_back_from_anywhere(url: str) -> None:
    """A chain of small, middling and huge records, several in one append, gives the same for every range, limit and direction as a list."""
    chance = random.Random(7)
    sizes = [chance.choice((10, 200, 1500, 3000, 60_000, 250_000)) for _ in range(70)]

    def several(head: Head | None, sizes: list[int]) -> list[Record]:
        made: list[Record] = []
        for size in sizes:
            made.append(record(S, made[-1].head if made else head, body=chance.randbytes(size)))
        return made

    async with opened(url) as backend:
        waiting, expected = list(sizes), []
        while waiting:
            group, waiting = waiting[: (count := chance.choice((1, 1, 1, 4)))], waiting[count:]
            made: list[Record] = []

            def finish(head: Head | None, group: list[int] = group, made: list[Record] = made) -> list[Record]:
                made[:] = several(head, group)
                return made

            (outcome,) = await backend.append([Append(S, finish)])
            assert isinstance(outcome, Appended), outcome
            expected += made
        for item in await items(backend):
            weight = sum(len(str(value)) for value in item.values())
            assert len(item.get("x", {"L": []})["L"]) <= SEGMENT_RECORDS
            assert weight < 4 * 400_000
        (header,) = [item for item in await items(backend, "/s/") if item["sk"]["S"] == "t"]
        assert sum(len(one["B"]) for one in header["x"]["L"]) <= TAIL_BYTES
    async with opened(url) as backend:
        assert [one async for one in _all(backend)] == expected
        for at in (None, 1, 17, 35, 70):
            loaded = await backend.load(S, at)
            assert list(loaded.records) == expected[:at]
        for _ in range(40):
            after, before = chance.randrange(0, 70), chance.choice((None, chance.randrange(1, 75)))
            limit, reverse = chance.choice((1, 3, 20, 256)), chance.random() < 0.5
            wanted = [one for one in expected if after < one.head.version < (before or 99)]
            wanted = (wanted[::-1] if reverse else wanted)[:limit]
            found = await backend.read(S, after=after, before=before, limit=limit, reverse=reverse)
            assert list(found) == wanted[: len(found)]
            assert len(found) == len(wanted) or sum(one.stored_bytes for one in found) > 4 << 20


async def _all(backend: Any) -> Any:
    after = 0
    while page := await backend.read(S, after=after):
        for one in page:
            yield one
        after = page[-1].head.version


async def test_what_is_larger_than_an_item_goes_in_parts(url: str) -> None:
    """A commit of 5 MiB and a state of 3 MiB with its snapshot come back whole; above 16 MiB it is `TooLarge` and nothing is stored."""
    await large_ones_come_back_whole(url)


async def test_an_append_of_very_many_records_is_refused_whole(url: str) -> None:
    """Sixty records with keys of their own are stored in one transaction; more items than DynamoDB takes are `TooLarge`, none is stored."""

    def many(count: int) -> Append:
        def finish(head: Head | None) -> list[Record]:
            made: list[Record] = []
            for number in range(count):
                made.append(record(S, made[-1].head if made else head, key=f"{count}-{number}", body=b"x" * 30_000))
            return made

        return Append(S, finish)

    async with opened(url) as backend:
        (outcome,) = await backend.append([many(60)])
        assert isinstance(outcome, Appended), outcome
        (outcome,) = await backend.append([many(120)])
        assert isinstance(outcome, perdure.TooLarge)
        assert await versions(backend, S) == list(range(1, 61))
        assert (await backend.find_key(S, "60-59")).version == 60


async def test_only_the_newest_two_snapshots_stay(url: str) -> None:
    """Of five snapshots, each in parts, two are left, and no part of the others."""

    async with opened(url) as backend:
        heads = await chain(backend, S, 5)
        for head in heads:
            await backend.put_snapshot(S, Snapshot(head.version, head.hash, bytes([head.version]) * 900_000))
            await backend.put_snapshot(S, Snapshot(head.version, head.hash, b"again"))
        kept = [item for item in await items(backend, "/s/") if item["sk"]["S"][0] == "s"]
        assert [int(item["sk"]["S"][1:], 16) for item in kept] == [4, 5]
        assert len(await items(backend, "/p/")) == 2 * 3
        assert (await backend.load(S)).snapshot.body == b"\5" * 900_000


async def test_nothing_truncated_comes_back(url: str) -> None:
    """A process that still remembers the records a truncation dropped moves none of them back into the table."""

    async with opened(url) as one, opened(url) as two:
        await chain(one, S, 10, body=b"secret")
        (anchor,) = await chain(one, S, 1, kind=Kind.anchor)
        await one.load(S)
        await two.truncate(S, 11, (anchor.version, anchor.hash))
        await chain(one, S, 30)
        assert await versions(one, S) == list(range(11, 42))
        assert b"secret" not in b"".join(blob["B"] for item in await items(one, "/s/") for blob in item.get("x", {"L": []})["L"])


async def test_a_truncation_inside_an_item_shortens_it(url: str) -> None:
    """Records below the limit are gone also from the item that reaches above it, and the pieces of large ones with them."""

    async with opened(url) as backend:
        await chain(backend, S, 1, body=b"secret" * 100_000)
        await chain(backend, S, 9, body=b"secret")
        heads = await chain(backend, S, 10, kind=Kind.anchor)
        await chain(backend, S, 20)
        await backend.truncate(S, 13, (heads[5].version, heads[5].hash))
        assert await versions(backend, S) == list(range(13, 41))
        assert [one.head.version for one in (await backend.load(S)).records] == list(range(13, 41))
        assert b"secret" not in str(await items(backend)).encode()


async def test_a_purge_leaves_the_stub_and_nothing_else(url: str) -> None:
    """A purge leaves the session's header, its place in the listing, and nothing of what was in it. Another does nothing."""

    async with opened(url) as backend:
        heads = await chain(backend, S, 30, body=b"secret" * 20)
        await backend.append([behind(S, body=b"secret" * 100_000, key="secret-key", index=perdure.backends.spi.Index({"a": "secret"}))])
        await backend.put_snapshot(S, Snapshot(20, heads[19].hash, b"secret" * 10_000))
        await chain(backend, S, 1, kind=Kind.tombstone, status=Status.deleted, body=b"secret" * 50_000)
        await backend.purge(S)
        left = await items(backend)
        assert sorted(item["pk"]["S"].split("/")[1] for item in left) == ["i", "m", "s"]
        assert "secret" not in str(left)
        await backend.purge(S)
        assert await items(backend) == left
        await backend.put_snapshot(S, Snapshot(32, (await backend.heads([S]))[0].hash, b"secret"))
        assert await items(backend) == left
