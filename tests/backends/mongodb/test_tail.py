"""MongoDB: records on their way from the tail to pages, what truncation and purge leave on the disk, the feed's notes, indexes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from bson.codec_options import CodecOptions

from perdure.backends.conformance import behind, expecting, record, versions
from perdure.backends.registry import open_backend
from perdure.backends.spi import Append, Appended, Head, Index, Known, Query, Record, Snapshot
from perdure.clock import SystemClock
from perdure.errors import Invalid, Unavailable
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey
from tests.servers.fixture import Servers
from tests.servers.mongodb import MongoDB
from tests.support.backends.engines import Engine

ENGINE = Engine("mongodb", MongoDB)
S = SessionKey("acme", "s")
NAME = "acme\ts"


class Place:
    """A namespace of its own, opened as often as a test likes, and its documents as they lie there."""

    def __init__(self, server: MongoDB) -> None:
        self.server, self.url = server, ENGINE.url(server)
        self.namespace = self.url.rpartition("=")[2]

    @asynccontextmanager
    async def opened(self, more: str = "") -> AsyncIterator[Any]:
        backend = await open_backend(self.url + more, clock=SystemClock())
        try:
            yield backend
        finally:
            await backend.close()

    def docs(self, collection: str) -> list[dict[str, Any]]:
        with self.server.connected("n1") as client:
            return list(client["perdure"][f"{self.namespace}.{collection}"].find().sort("_id", 1))


@pytest.fixture
def place(servers: Servers[MongoDB]) -> Place:
    return Place(servers(MongoDB))


async def chain(backend: Any, count: int, session: SessionKey = S, **columns: Any) -> list[Head]:
    """So many commits with keys k1, k2 …; their heads."""
    heads = []
    for _ in range(count):
        (head,) = await backend.heads([session])
        (outcome,) = await backend.append([behind(session, key=f"k{(head.version if head else 0) + 1}", **columns)])
        assert isinstance(outcome, Appended), outcome
        heads.append(outcome.head)
    return heads


async def test_a_long_session_lies_in_pages_and_reads_as_one(place: Place) -> None:
    """After 70 commits four pages are in the log and the rest in the tail; every way of reading sees one chain, all keys are known, also to
    a process that has just come."""

    async with place.opened() as backend:
        heads = await chain(backend, 70)
        await backend.run(backend.driver._archiver.drain())
        (doc,) = place.docs("session")
        assert [entry["v"] for entry in doc["tail"]] == list(range(64, 71))
        assert [[entry["v"] for entry in page["records"]] for page in place.docs("log")] == [
            [*range(1, 16)], [*range(16, 32)], [*range(32, 48)], [*range(48, 64)],
        ]  # fmt: skip
        assert len(place.docs("key")) == 63
    async with place.opened() as backend:
        assert await versions(backend, S) == list(range(1, 71))
        assert [item.head for item in await backend.read(S, after=40, before=67)] == heads[40:66]
        assert [item.head for item in await backend.read(S, before=60, limit=30, reverse=True)] == heads[58:28:-1]
        for at in (None, 70, 63, 15, 1):
            loaded = await backend.load(S, at)
            assert [item.head for item in loaded.records] == heads[:at]
        for version in (60, 64):
            await backend.put_snapshot(S, Snapshot(version, heads[version - 1].hash, b"state"))
        for at, base in ((70, 64), (63, 60), (59, 0)):
            loaded = await backend.load(S, at)
            assert (loaded.snapshot.version if loaded.snapshot else 0) == base
            assert [item.head for item in loaded.records] == heads[base:at]
        for version in (1, 15, 16, 63, 64, 70):
            assert (await backend.find_key(S, f"k{version}")).version == version
            (again,) = await backend.append([behind(S, key=f"k{version}", salt=b"2")])
            assert isinstance(again, Known)
            assert again.version == version
        assert [change.record.head for change in (await backend.feed()).items] == heads


async def test_nobody_meets_a_gap_while_records_move(place: Place) -> None:
    """Readers on other handles see every acknowledged commit, whole chains and all keys, while two writers fill page after page."""

    async def scenario() -> None:
        async with place.opened() as one, place.opened() as two, place.opened() as reader:
            done, last = asyncio.Event(), 0

            async def write(backend: Any, name: str) -> None:
                nonlocal last
                for number in range(80):
                    (outcome,) = await backend.append([behind(S, key=f"{name}{number}", salt=name.encode())])
                    assert isinstance(outcome, Appended), outcome
                    last = max(last, outcome.head.version)

            async def read() -> None:
                while not done.is_set():
                    least = last
                    assert [*range(1, least + 1)] == (await versions(reader, S))[:least]
                    loaded = await reader.load(S)
                    if loaded is not None:
                        assert len(loaded.records) == loaded.row.head.version >= least
                    if least:
                        (found,) = await reader.read(S, after=least - 1, limit=1)
                        assert (await reader.find_key(S, found.key)).version == least
                        (again,) = await two.append([behind(S, key=found.key, salt=b"again")])
                        assert isinstance(again, Known)

            reading = asyncio.create_task(read())
            await asyncio.gather(write(one, "a"), write(two, "b"))
            done.set()
            await reading
            assert await versions(reader, S) == list(range(1, 161))

    await scenario()


async def test_a_key_that_leaves_the_tail_between_look_up_and_write(place: Place) -> None:
    """Another process moves the tail after the key was looked up and before the write goes out: the write is refused, and the key found."""

    async with place.opened() as one, place.opened() as two:
        await chain(one, 20)
        await one.run(one.driver._archiver.drain())
        await two.append([behind(S, key="other")])  # version 21: its sender knows the tail by now
        two.driver._archiver.add = lambda _: None
        look_up = two.driver._old_keys

        async def and_then(attempts: Any) -> Any:
            found = await look_up(attempts)
            two.driver._old_keys = look_up
            await chain(one, 0)
            with place.server.connected("n1") as client:
                sessions = client["perdure"][f"{place.namespace}.session"]
                before = sessions.find_one({"_id": NAME})
                await one.run(one.driver._archiver._move([NAME]))
                assert sessions.find_one({"_id": NAME})["moved"] == 32 > before["moved"]
            return found

        for _ in range(10):
            await two.append([behind(S)])  # up to version 31, which completes a page that nobody has moved yet
        two.driver._old_keys = and_then
        (outcome,) = await two.append([behind(S, key="other", salt=b"2")])
        assert isinstance(outcome, Known)
        assert outcome.version == 21


async def test_large_records_and_long_appends(place: Place) -> None:
    """Records of 20 MiB lie in chunks, an append of 300 records of 8 KiB too, and a snapshot of 10 MiB: all come back as they were."""

    async with place.opened() as backend:
        large = bytes(range(256)) * 80 * 1024
        (outcome,) = await backend.append([behind(S, body=large)])
        assert isinstance(outcome, Appended), outcome

        def many(head: Head | None) -> list[Record]:
            records: list[Record] = []
            for number in range(300):
                records.append(record(S, records[-1].head if records else head, body=b"%04d" % number * 2048))
            return records

        (outcome,) = await backend.append([Append(S, many)])
        assert isinstance(outcome, Appended), outcome
        await backend.run(backend.driver._archiver.drain())
        assert len(place.docs("session")[0]["tail"]) < 16
        assert (await backend.read(S, limit=1))[0].body == large
        assert await versions(backend, S) == list(range(1, 302))
        assert [item.body[:4] for item in await backend.read(S, after=1, before=6)] == [b"0000", b"0001", b"0002", b"0003"]
        state = large[: 10 << 20]
        await backend.put_snapshot(S, Snapshot(301, outcome.head.hash, state))
        loaded = await backend.load(S)
        assert (loaded.snapshot.body == state, loaded.records) == (True, [])
        for _ in range(2):
            (outcome,) = await backend.append([behind(S)])
            await backend.put_snapshot(S, Snapshot(outcome.head.version, outcome.head.hash, b"small"))
        assert len(place.docs("snapshot")) == 2
        assert not [doc for doc in place.docs("chunk") if f"{301:016x}" in doc["_id"] and len(doc["data"]) > 1 << 20]


async def test_truncation_and_purge_leave_nothing_on_the_disk(place: Place) -> None:
    """What is cut off is gone from pages, tail, chunks and snapshots, keys stay; after a purge they are gone too, and the next commits go
    on from the stub into pages of their own."""

    async with place.opened() as backend:
        heads = await chain(backend, 39, body=b"x" * 20_000)
        for version in (10, 35):
            await backend.put_snapshot(S, Snapshot(version, heads[version - 1].hash, b"state"))
        (anchor,) = await chain(backend, 1, kind=Kind.anchor)
        await backend.run(backend.driver._archiver.drain())
        for below in (20, 36):
            await backend.truncate(S, below, (anchor.version, anchor.hash))
            assert await versions(backend, S) == list(range(below, 41))
            kept = [entry["v"] for page in place.docs("log") for entry in page["records"]]
            assert kept + [entry["v"] for entry in place.docs("session")[0]["tail"]] == list(range(below, 41))
            assert len(place.docs("chunk")) == 40 - below
        assert len(place.docs("snapshot")) == 1
        for key in ("k1", "k19", "k34", "k36", "k40"):
            assert isinstance((await backend.append([behind(S, key=key, salt=b"2")]))[0], Known)
        await chain(backend, 12)
        await backend.run(backend.driver._archiver.drain())
        assert await versions(backend, S) == list(range(36, 53))
        await chain(backend, 1, kind=Kind.tombstone, status=Status.deleted)
        await backend.purge(S)
        assert [place.docs(kind) for kind in ("log", "chunk", "snapshot", "key")] == [[], [], [], []]
        assert await versions(backend, S) == [53]
        assert await backend.find_key(S, "k53") is None
        heads = await chain(backend, 30)
        await backend.run(backend.driver._archiver.drain())
        assert await versions(backend, S) == list(range(53, 84))
        assert [item.body for item in await backend.read(S, limit=1)] == [b""]
        assert (await backend.load(S)).records[-1].head == heads[-1]
        assert {doc["v"] for doc in place.docs("key")} == set(range(54, 80))


async def test_a_move_that_is_overtaken_by_a_purge_cleans_up(place: Place) -> None:
    """A session is purged, and goes on for a page, while another process is about to write the pages of its old tail: in the end there is
    nothing of the old, and everything of the new."""

    async with place.opened() as slow, place.opened() as quick:
        slow.driver._archiver.add = lambda _: None
        quick.driver._archiver.add = lambda _: None
        await chain(slow, 17)
        find = slow.driver.connections.find

        async def find_and_wait(name: str, *rest: Any, **more: Any) -> Any:
            found = await find(name, *rest, **more)
            slow.driver.connections.find = find
            await chain(quick, 1, kind=Kind.tombstone, status=Status.deleted)
            await quick.purge(S)
            await chain(quick, 15)
            await quick.run(quick.driver._archiver._move([NAME]))
            return found

        slow.driver.connections.find = find_and_wait
        await slow.run(slow.driver._archiver._move([NAME]))
        assert await versions(quick, S) == list(range(18, 34))
        assert [entry["v"] for page in place.docs("log") for entry in page["records"]] == list(range(18, 32))
        assert {doc["v"] for doc in place.docs("key")} == set(range(19, 32))
        assert await quick.find_key(S, "k1") is None


async def test_a_process_that_dies_while_it_moves_leaves_no_harm(place: Place) -> None:
    """Pages were written and the tail was not cut: readers see each record once, and the next who completes a page cuts it."""

    async with place.opened() as backend:
        update = backend.driver.connections.update

        async def dies(name: str, statements: Any, *, lax: bool = False) -> Any:
            if lax:
                raise Unavailable("dead")
            return await update(name, statements)

        backend.driver.connections.update = dies
        heads = await chain(backend, 31)
        await backend.run(backend.driver._archiver.drain())
        assert backend.driver._archiver.failed is not None
    assert (len(place.docs("log")), len(place.docs("session")[0]["tail"])) == (2, 31)
    async with place.opened() as backend:
        assert await versions(backend, S) == list(range(1, 32))
        assert [item.head for item in await backend.read(S, after=4, limit=3)] == heads[4:7]
        assert [item.head for item in await backend.read(S, before=20, limit=3, reverse=True)] == heads[18:15:-1]
        assert [item.head for item in (await backend.load(S)).records] == heads
        await chain(backend, 17)
        await backend.run(backend.driver._archiver.drain())
        assert [entry["v"] for entry in place.docs("session")[0]["tail"]] == [48]
        assert await versions(backend, S) == list(range(1, 49))


async def test_the_feed_passes_nothing_over(place: Place) -> None:
    """Two readers who note the news at once, one who dies before the marks are taken away, and commits that come in between: every record
    comes, each session's in order."""

    sessions = [SessionKey("acme", f"s{number}") for number in range(6)]
    async with place.opened() as one, place.opened() as two:
        await one.append([behind(session) for session in sessions])
        insert = one.driver.connections.insert

        async def late(name: str, docs: Any) -> Any:
            """Another reads the feed, and commits, between the look at the news and the note."""
            one.driver.connections.insert = insert
            await two.append([behind(session) for session in sessions[:3]])
            await two.feed()
            await two.append([behind(session) for session in sessions[3:]])
            return await insert(name, docs)

        one.driver.connections.insert = late
        first = await one.feed(limit=4)
        seen = list(first.items)
        update = two.driver.connections.update

        async def dies(name: str, statements: Any, *, lax: bool = False) -> Any:
            two.driver.connections.update = update
            raise Unavailable("dead")

        await one.append([behind(session) for session in sessions])
        two.driver.connections.update = dies
        for _ in range(2):
            try:
                await two.feed((await two.feed(limit=1000)).cursor)
            except Unavailable:
                continue
        cursor = first.cursor
        while (page := await one.feed(cursor, 4)).items:
            cursor = page.cursor
            seen += page.items
        for session in sessions:
            found: list[int] = []
            found += [item.record.head.version for item in seen if item.session == session and item.record.head.version not in found]
            assert sorted(set(found)) == [1, 2, 3]
            assert found[: found.index(3) + 1] == sorted(found[: found.index(3) + 1])
        assert not (await two.feed(page.cursor)).items
        for bad in ("x", "1", "1:2", "-1:0:0"):
            with pytest.raises(Invalid):
                await one.feed(bad)


async def test_names_and_keys_that_mean_something_to_mongodb(place: Place) -> None:
    """Dollars, dots, braces, quotes and regular expressions in tenants, ids, keys and tags are letters like others."""

    odd = ["$version", "$$ROOT", "a.b", '{"$gt": ""}', "^.*$", "%s", "\\", "ns.session", "'; drop"]
    async with place.opened() as backend:
        for tenant in odd:
            sessions = [SessionKey(tenant, id) for id in odd]
            for turn in range(2):
                outcomes = await backend.append(
                    [behind(session, key=f"{session.id}{turn}", index=Index({session.id: tenant})) for session in sessions]
                )
                assert {type(outcome) for outcome in outcomes} == {Appended}
            for session in sessions:
                assert (await backend.find_key(session, f"{session.id}1")).version == 2
                assert len((await backend.load(session)).records) == 2
                assert len(await backend.read(session, after=1)) == 1
                await backend.put_snapshot(session, Snapshot(1, (await backend.read(session, limit=1))[0].head.hash, b"state"))
                assert (await backend.load(session)).snapshot.body == b"state"
                assert [row.session for row in (await backend.scan(Query(tenant, prefix=session.id))).items] == [session]
                assert [row.session for row in (await backend.scan(Query(tenant, tags={session.id: tenant}))).items] == [session]


async def test_listing_uses_indexes(place: Place) -> None:
    """By id, tag and status the server looks at the rows that it returns, not at all sessions."""

    async def scenario() -> None:
        async with place.opened() as backend:
            for start in range(0, 400, 100):
                sessions = [SessionKey("acme", f"s{number:03}") for number in range(start, start + 100)]
                await backend.append(
                    [behind(session, index=Index({"team": "ops"} if session.id.endswith("7") else {"team": "dev"})) for session in sessions]
                )
            await backend.append([behind(SessionKey("acme", "s123"), kind=Kind.tombstone, status=Status.deleted)])
            await backend.append([behind(SessionKey("acme", f"t{number}"), index=Index({})) for number in range(3)])
            seen: list[dict[str, Any]] = []
            find = backend.driver.connections.find

            async def noted(name: str, where: Any, fields: Any, **more: Any) -> Any:
                command = {"find": f"{place.namespace}.{name}", "filter": where, "projection": fields, **more}
                with place.server.connected("n1") as client:
                    lenient = CodecOptions[dict[str, Any]](unicode_decode_error_handler="replace")  # The server cuts long bounds anywhere.
                    told = client["perdure"].command({"explain": command, "verbosity": "executionStats"}, codec_options=lenient)
                seen.append(told["executionStats"])
                return await find(name, where, fields, **more)

            backend.driver.connections.find = noted
            for query, count, most in (
                (Query("acme", prefix="s12"), 9, 11),
                (Query("acme", tags={"team": "ops"}), 40, 40),
                (Query("acme", status=int(Status.deleted)), 1, 1),
                (Query("acme", prefix="t"), 3, 3),
            ):
                page = await backend.run(noting(backend, query))
                assert len(page.items) == count
                assert seen[-1]["totalDocsExamined"] <= most

    async def noting(backend: Any, query: Query) -> Any:
        return await backend.driver.scan(query, None, 100)

    await scenario()


async def test_a_stale_writer_after_a_long_absence(place: Place) -> None:
    """A head that has long left the tail is refused with the true one, with a key and without."""

    async with place.opened() as backend:
        heads = await chain(backend, 40)
        for key in (None, "new"):
            (outcome,) = await backend.append([expecting(S, heads[2], key=key)])
            assert outcome.head == heads[-1]
