"""Bodies out of line: what is read and written with them is what it is without."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import perdure
import perdure.sync
from perdure import Event, op
from perdure.errors import Conflict, Corrupt, Invalid, NotFound, Unauthorized, Unavailable, Unsupported
from perdure.places.place import Place
from tests.servers.fixture import Servers
from tests.servers.seaweedfs import SeaweedFS
from tests.support.engine.bodies import LEAST, folder, large, opened, stored, text


async def fill(store: perdure.Store) -> None:
    """A session of large and small commits, with and without operations, a fork that is merged, and snapshots."""
    for number in range(6):
        await store.append("trip", large(number, ops=number % 2 == 0, type=f"type{number}"), key=f"key-{number}")
        await store.append("trip", Event("small", number, (op.add("/count", 1),)))
    async with store.edit("trip") as draft:
        draft.state["list"] = [text(900, number) for number in range(4)]
    await store.fork("trip", at=9, id="fork")
    async with store.edit("fork") as draft:
        draft.state["forked"] = text(2_000, 99)
    await store.merge("fork", into="trip")
    await store.configure("trip", tags={"team": "ops"})


async def seen(store: perdure.Store) -> dict[str, Any]:
    """All that a reader sees, but what differs from run to run."""
    found: dict[str, Any] = {}
    for session in ("trip", "fork"):
        view = await store.read(session)
        found[session] = view.state, dict(view.tags), view.version
        events = [event async for commit in store.history(session) for event in commit.to_dict()["events"]]
        found[f"{session} commits"] = [event for event in events if event["type"] not in ("forked", "merged")]  # They name hashes.
        found[f"{session} back"] = [commit.version async for commit in store.history(session, newest_first=True)]
        found[f"{session} past"] = [(await store.read(session, at=version)).state for version in range(1, view.version + 1)]
        found[f"{session} proof"] = (await store.verify(session)).commits
    return found


async def test_what_is_read_is_what_it_is_without(url: str, tmp_path: Path) -> None:
    """States, commits, pasts, forks and merges are those of a store that has all bodies inline; the next process reads the same."""
    async with perdure.open("memory:", snapshot_bytes_min=8_000) as plain:
        await fill(plain)
        expected = await seen(plain)
    async with opened(url, tmp_path, snapshot_bytes_min=8_000) as store:
        await fill(store)
        assert await seen(store) == expected
        names = stored(tmp_path)
        assert len(names) == 9
        assert all(name.startswith(("blobs/default/trip/", "blobs/default/fork/")) for name in names)
    if url != "memory:":
        async with opened(url, tmp_path) as store:
            assert await seen(store) == expected


async def test_only_larger_bodies_go_out(url: str, tmp_path: Path) -> None:
    """A body of the limit stays in the record; one byte more goes out. What is compared is the body as it is stored, compressed."""
    async with opened(url, tmp_path) as store:
        codec = store._core.codec
        for size in range(LEAST - 60, LEAST + 1_200, 7):
            event = Event("x", text(size, size))
            before = len(stored(tmp_path))
            await store.append("trip", event)
            assert (len(stored(tmp_path)) > before) == (len(codec.encode_events((event,))) > LEAST)
        await store.append("repeats", Event("x", "la " * 50_000))
        assert not [name for name in stored(tmp_path) if "/repeats/" in name]


async def test_without_the_place_it_says_what_it_needs(file_url: str, tmp_path: Path) -> None:
    """A store that is opened without `blobs=` reads what lies in its records, and names the option where a body lies elsewhere."""
    async with opened(file_url, tmp_path) as store:
        await store.append("trip", large())
        await store.append("talk", large(ops=False), Event("said", "hi"))
        await store.append("small", Event("x", 1, (op.set("/a", 1),)))
    async with perdure.open(file_url) as store:
        assert (await store.read("small")).state == {"a": 1}
        assert (await store.read("talk")).state == {}
        for needs in (store.read("trip"), store.verify("trip"), store.verify("talk")):
            with pytest.raises(Unsupported, match="blobs="):
                await needs
        for options in ({}, {"newest_first": True}, {"types": {"said"}}):
            with pytest.raises(Unsupported, match="blobs="):
                [commit async for commit in store.history("talk", **options)]
        with pytest.raises(Unsupported, match="blobs="):
            async with store.edit("trip") as draft:
                draft.state["a"] = 1
        assert not [commit async for commit in store.history("talk", types={"other"})]
        await store.append("trip", Event("small"))
        await store.delete("trip")
        with pytest.raises(Unsupported, match="blobs="):
            await store.purge("trip")
    async with opened(file_url, tmp_path) as store:
        await store.purge("trip")
        assert not [name for name in stored(tmp_path) if "/trip/" in name]


async def test_what_is_not_needed_is_not_fetched(file_url: str, tmp_path: Path) -> None:
    """Bodies without operations are not fetched to fold, nor those without a wanted type to list it, nor any to look for a time, a fork
    or a purge."""
    async with opened(file_url, tmp_path, upcasters={"old": lambda event: Event("new", event.data)}) as store:
        for number in range(4):
            await store.append("trip", large(number, ops=False, type=f"type{number}"))
        await store.append("trip", large(4, type="change"))
        await store.append("trip", large(5, ops=False, type="old"))
    async with opened(file_url, tmp_path, upcasters={"old": lambda event: Event("new", event.data)}) as store:
        fetched: list[str] = []
        place: Any = store._core.bodies._place
        get_many = place.get_many

        async def counted(names: list[str]) -> Any:
            fetched.extend(names)
            return await get_many(names)

        place.get_many = counted
        assert set((await store.read("trip")).state) == {"n4"}
        assert len(fetched) == 1
        fetched.clear()
        assert [commit.version async for commit in store.history("trip", types={"type2"})] == [3]
        assert [commit.version async for commit in store.history("trip", types=["type2"], newest_first=True)] == [3]
        assert len(fetched) == 4, "the type and the one that is upcast, twice"
        fetched.clear()
        assert [commit.version async for commit in store.history("trip", types={"new"})] == [6]
        assert len(fetched) == 1
        fetched.clear()
        (first,) = [commit async for commit in store.history("trip", limit=1)]
        fetched.clear()
        await store.read("trip", at=first.time)
        await store.fork("trip", at=2, id="fork")
        assert not [name for name in fetched if "-type" in name]
        assert len(fetched) <= 1
        fetched.clear()
        await store.delete("fork")
        await store.purge("fork")
        await store.delete("trip")
        await store.purge("trip")
        assert not fetched
    assert not stored(tmp_path)


async def test_a_missing_body_is_named(file_url: str, tmp_path: Path) -> None:
    """A body that is gone, and one with another byte, is `Corrupt` naming the object, its place and the version; others are read."""
    async with opened(file_url, tmp_path) as store:
        for number in range(3):
            await store.append("trip", large(number, ops=False))
        await store.append("other", large())
    names = [name for name in stored(tmp_path) if "/trip/" in name]
    first, second, _ = sorted(names, key=lambda name: (tmp_path / "place" / name).stat().st_mtime_ns)
    (tmp_path / "place" / first).unlink()
    damaged = tmp_path / "place" / second
    damaged.write_bytes(b"\x00" + damaged.read_bytes()[1:])
    async with opened(file_url, tmp_path) as store:
        for after, name, how in ((0, first, "missing"), (1, second, "damaged")):
            with pytest.raises(Corrupt, match=how) as refused:
                [commit async for commit in store.history("trip", after=after)]
            assert name in str(refused.value)
            assert f"version {after + 1}" in str(refused.value)
            assert str(tmp_path) in str(refused.value)
        with pytest.raises(Corrupt, match="missing"):
            await store.verify("trip")
        assert [commit.version async for commit in store.history("trip", after=2)] == [3]
        await store.verify("other")
        damaged.write_bytes(damaged.read_bytes() + b"more")
        with pytest.raises(Corrupt, match="damaged"):
            [commit async for commit in store.history("trip", after=1)]


async def test_a_watcher_gets_them(url: str, tmp_path: Path) -> None:
    """A watcher gets the events of bodies out of line, those that are there and those to come."""
    async with opened(url, tmp_path) as store:
        await store.append("trip", large(0))

        async def watched() -> list[Any]:
            async with aclosing(store.watch("trip", types={"noted"})) as commits:  # type: ignore[type-var]
                return [(await anext(commits)).events[0].data["text"] for _ in range(3)]

        watching = asyncio.create_task(watched())
        for number in (1, 2):
            await store.append("trip", large(number, ops=number == 1))
        assert await watching == [text(3_000, number) for number in range(3)]


def test_the_blocking_api(url: str, tmp_path: Path) -> None:
    """The blocking API writes, reads, forks, verifies and purges bodies out of line."""
    with perdure.sync.open(url, blobs=folder(tmp_path), blob_bytes=LEAST) as store:
        for number in range(20):
            store.append("trip", large(number))
        assert len(stored(tmp_path)) == 20
        fork = store.fork("trip", at=10)
        assert set(store.read(fork).state) == {f"n{number}" for number in range(10)}
        assert [commit.events[0].data["text"] for commit in store.history("trip", types={"noted"})] == [
            text(3_000, number) for number in range(20)
        ]
        store.verify("trip")
        for session in (fork, "trip"):
            store.delete(session)
            store.purge(session)
        assert not stored(tmp_path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"blobs": "nowhere"}, "blobs is the URL of a place"),
        ({"blobs": "postgresql://u:hunter2@h/d"}, "blobs is no place for objects"),
        ({"blobs": "file:///proc/nowhere"}, "proc"),
        ({"blobs": "s3://bucket?option=1"}, "no option"),
        ({"blob_bytes": 100_000}, "pass blobs= too"),
        ({"blobs": "file:///tmp", "blob_bytes": 10}, "blob_bytes must be at least 1,024"),
        ({"blobs": "file:///tmp", "blob_bytes": "64k"}, "blob_bytes must be a whole number"),
        ({"blobs": 7}, "blobs is the URL of a place"),
    ],
)
async def test_bad_places(file_url: str, tmp_path: Path, options: dict[str, Any], says: str) -> None:
    """A place that is none, or cannot be written, is said when the store is opened; nothing is made."""
    with pytest.raises((Invalid, Unavailable, NotFound), match=says) as refused:
        async with perdure.open(file_url, **options):
            pass
    assert "hunter2" not in str(refused.value)
    assert not [*tmp_path.iterdir()]


async def test_a_place_belongs_to_one_store(file_url: str, tmp_path: Path) -> None:
    """A second store is refused where another store's bodies are: its purge would remove them."""
    async with opened(file_url, tmp_path) as store:
        await store.append("trip", large())
    with pytest.raises(Invalid, match="another store"):
        async with opened(file_url.replace("store.db", "other.db"), tmp_path):
            pass
    async with opened(file_url, tmp_path, create=False) as store:
        await store.verify("trip")


async def test_tenants_do_not_meet(url: str, tmp_path: Path) -> None:
    """Sessions of one name and two tenants have bodies of their own; the purge of one leaves the other's."""
    async with opened(url, tmp_path) as store:
        other = store.for_tenant("Default")
        await store.append("trip", large(1))
        await other.append("trip", large(2))
        await store.append("trip/below", large(3))
        await store.delete("trip")
        await store.purge("trip")
        assert len(stored(tmp_path)) == 2
        await other.verify("trip")
        await store.verify("trip/below")


async def test_a_fork_reads_its_parents(file_url: str, tmp_path: Path) -> None:
    """A fork reads the bodies of its parent, which cannot be purged while it does; a merge carries what the fork has out of line."""
    async with opened(file_url, tmp_path) as store:
        for number in range(3):
            await store.append("trip", large(number))
        await store.fork("trip", at=2, id="fork")
        await store.append("fork", large(7))
    async with opened(file_url, tmp_path) as store:
        assert set((await store.read("fork")).state) == {"n0", "n1", "n7"}
        await store.verify("fork")
        receipt = await store.merge("fork", into="trip")
        assert receipt is not None
        assert set((await store.read("trip")).state) == {"n0", "n1", "n2", "n7"}
        await store.delete("trip")
        with pytest.raises(Invalid, match="forks"):
            await store.purge("trip")
        await store.verify("fork")
        await store.delete("fork")
        await store.purge("fork")
        await store.purge("trip")
    assert not stored(tmp_path)


async def test_a_place_that_is_away(file_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the place does not answer, a large commit is `Unavailable` and nothing is written; small ones go on; later it is written."""

    async def away(*_: object) -> bool:
        raise Unavailable("The place is away.")

    async with opened(file_url, tmp_path) as store:
        await store.append("trip", Event("small"))
        with monkeypatch.context() as patch:
            patch.setattr(Place, "put", away)
            with pytest.raises(Unavailable, match="away"):
                await store.append("trip", large(), key="k")
            with pytest.raises(Unavailable, match="away"):
                async with store.edit("trip") as draft:
                    draft.state["text"] = text(3_000)
            await store.append("trip", Event("small"))
        assert (await store.read("trip")).version == 2
        assert not stored(tmp_path)
        assert (await store.append("trip", large(), key="k")).version == 3
        with monkeypatch.context() as patch:
            patch.setattr(Place, "get_many", away)
            with pytest.raises(Unavailable, match="away"):
                [commit async for commit in store.history("trip")]
            assert len([commit async for commit in store.history("trip", types={"small"})]) == 2
        await store.verify("trip")


async def test_a_retry_stores_nothing_new(url: str, tmp_path: Path) -> None:
    """A call that repeats a key gets the first receipt, and leaves no second body."""
    async with opened(url, tmp_path) as store:
        first = await store.append("trip", large(), key="k")
        again = await store.append("trip", large(), key="k")
        assert (again.version, again.id, again.duplicate) == (first.version, first.id, True)
        assert len(stored(tmp_path)) == 1
        with pytest.raises(perdure.KeyReused):
            await store.append("trip", large(1), key="k")
        assert len(stored(tmp_path)) == 1
        await store.verify("trip")


async def test_refused_bodies_are_removed(url: str, tmp_path: Path) -> None:
    """What was stored for a commit that its session refuses is removed again: a conflict, a dead session, one that exists."""
    async with opened(url, tmp_path) as store:
        await store.append("trip", large(), large(1))
        names = stored(tmp_path)
        for options in ({"expect": 0}, {"expect": 1, "on_conflict": "raise"}):
            if "on_conflict" in options:
                await store.append("trip", Event("small"))
            with pytest.raises((Conflict, perdure.AlreadyExists)):
                await store.append("trip", large(2, ops=False), **options)
            assert stored(tmp_path) == names
        await store.delete("trip")
        with pytest.raises(perdure.Deleted):
            await store.append("trip", large(3, ops=False))
        assert stored(tmp_path) == names


@pytest.mark.parametrize("level", ["buffered", "local", "quorum"])
async def test_a_receipt_names_what_the_place_survives(file_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    """A commit whose body lies elsewhere is as durable as the weaker of engine and place, in a retry's receipt too; a level above the
    place's is refused, at `open` and in a call."""
    from perdure import Durability

    made = Place.__init__

    def weaker(place: Place, bucket: Any, _: Durability, secrets: Any) -> None:
        made(place, bucket, Durability[level], secrets)

    monkeypatch.setattr(Place, "__init__", weaker)
    expected = min(Durability[level], Durability.local)
    async with opened(file_url, tmp_path) as store:
        for _ in range(2):
            assert (await store.append("trip", large(), key="k")).durability is expected
        assert (await store.append("trip", Event("small"))).durability is Durability.local
        if level == "buffered":
            with pytest.raises(Unsupported, match="place of large bodies"):
                await store.append("trip", large(), durability="local")
    if level == "buffered":
        with pytest.raises(Unsupported, match="place of large bodies"):
            async with opened(file_url, tmp_path, durability="local"):
                pass


async def test_large_bodies_in_an_object_store(servers: Servers[SeaweedFS], file_url: str, tmp_path: Path) -> None:
    """On a real object store the same holds: written, read by another process's store, verified, forked, purged; a lost right is said."""
    where = servers(SeaweedFS).url.replace("/?", f"/{uuid4().hex}?")
    async with perdure.open(file_url, blobs=where, blob_bytes=LEAST) as store:
        await fill(store)
        expected = await seen(store)
    async with perdure.open(file_url, blobs=where, blob_bytes=LEAST) as store:
        assert await seen(store) == expected
        place: Any = store._core.bodies._place
        assert len(await place.list("blobs")) == 9
    reader = where.replace("test:secret@", "reader:secret@")
    with pytest.raises(Unauthorized):
        async with perdure.open(file_url, blobs=reader):
            pass
    async with perdure.open(file_url, blobs=reader, blob_bytes=LEAST, create=False) as store:
        assert await seen(store) == expected
        version = (await store.read("trip")).version
        with pytest.raises(Unauthorized):
            await store.append("trip", large(50))
        assert (await store.read("trip")).version == version
    async with perdure.open(file_url, blobs=where, blob_bytes=LEAST) as store:
        for session in ("fork", "trip"):
            await store.delete(session)
            await store.purge(session)
        place = store._core.bodies._place
        assert await place.list("blobs") == []
