"""A place for objects, the same on a folder and on real servers of each kind of cloud."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from perdure.clock import SystemClock
from perdure.concurrency.replies import run_blocking
from perdure.errors import Closed, Invalid, Unauthorized, Unavailable, Unsupported
from perdure.places.names import object_name
from perdure.places.opening import open_place
from perdure.places.place import Place
from tests.servers.azurite import Azurite
from tests.servers.fake_gcs import FakeGCS
from tests.servers.fixture import Servers
from tests.servers.process import HOST, Server, free_port
from tests.servers.seaweedfs import SeaweedFS
from tests.support.backends.engines import Engine

CLOUDS = [Engine("s3", SeaweedFS), Engine("gs", FakeGCS), Engine("az", Azurite)]
KINDS = [None, *CLOUDS]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "file" if kind is None else repr(kind))
Url = Callable[[Engine | None], str]


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Url:
    """The URL of a place of each kind that nothing else uses."""

    def made(kind: Engine | None) -> str:
        if kind is None:
            return f"file://{tmp_path}/place"
        servers: Servers[Server] = request.getfixturevalue("servers")
        address, _, options = kind.url(servers(kind.server)).partition("?")
        kept = "&".join(option for option in options.split("&") if not option.startswith(("namespace=", "shards=")))
        return f"{address.rstrip('/')}/{uuid4().hex}?{kept}"

    return made


async def opened(url: str) -> Place:
    return await open_place(url, clock=SystemClock(), option="blobs")


@kinds
async def test_an_object_is_made_once(url: Url, kind: Engine | None) -> None:
    """Of many that put one name at once exactly one makes it, and what it put is what stays."""
    place = await opened(url(kind))
    name = object_name("blobs", "acme", "trip")
    made = await asyncio.gather(*[place.put(name, b"%d" % number) for number in range(8)])
    assert sum(made) == 1
    assert await place.get(name) == b"%d" % made.index(True)
    assert not await place.put(name, b"other")
    assert await place.get(name) == b"%d" % made.index(True)
    names = [object_name("blobs", f"{number}") for number in range(40)]
    assert all(await asyncio.gather(*[place.put(each, each.encode()) for each in names]))
    assert await place.get_many([*names, "missing"]) == [*[each.encode() for each in names], None]
    await place.delete_many([*names[1:], "missing"])
    assert await place.get_many(names) == [names[0].encode(), *[None] * 39]
    await place.delete(name)
    await place.delete(name)
    assert await place.get(name) is None
    assert await place.put(name, b"again")
    await place.close()


@kinds
async def test_a_part_is_read_as_a_slice(url: Url, kind: Engine | None) -> None:
    """A range gives what a slice of the bytes gives: at the ends, beyond them, and of nothing."""
    place = await opened(url(kind))
    data = bytes(range(100))
    await place.put("a/data", data)
    await place.put("a/empty", b"")
    for start, end in [(0, None), (0, 100), (0, 1), (10, 20), (99, None), (99, 500), (100, None), (100, 200), (500, 600), (0, 0), (20, 20)]:
        assert await place.get("a/data", start, end) == data[start:end], (start, end)
        assert await place.get("a/missing", start, end) is None
    assert await place.get("a/empty") == b""
    assert await place.get("a/empty", 0, 10) == b""
    assert [await place.size(name) for name in ("a/data", "a/empty", "a/missing")] == [100, 0, None]
    await place.close()


@kinds
async def test_names_are_listed_by_page(url: Url, kind: Engine | None) -> None:
    """Pages give every name below a folder once, sorted as whole names, and none of a folder whose name begins alike."""
    place = await opened(url(kind))
    names = ["a/b", "a/b-c/1", "a/b.x/1", "a/b0", "a/c/1/2/3", "a/c/1/4", "ab/1", "b"]
    for name in names:
        await place.put(name, b"x")
    below = sorted(name for name in names if name.startswith("a/"))
    for limit in (1, 2, 100):
        found, after = [], ""
        while page := await place.list("a", after, limit):
            assert len(page) <= limit
            found += page
            after = page[-1]
        assert found == below
    assert await place.list("nowhere") == []
    await place.close()


@kinds
async def test_nothing_of_the_check_is_left(url: Url, kind: Engine | None) -> None:
    """Opening a place proves that it can be written and leaves no object there."""
    place = await opened(url(kind))
    assert await place.list("check") == []
    await place.close()
    with pytest.raises(Closed):
        await place.get("a")
    await place.close()


@kinds
def test_blocking_code_uses_the_same_place(url: Url, kind: Engine | None) -> None:
    """Every call works in a thread that has no event loop."""
    where = url(kind)

    async def visit() -> None:
        place = await open_place(where, clock=SystemClock(), option="blobs")
        assert await place.put("a/1", b"data")
        assert await place.get("a/1", 1, 3) == b"at"
        assert await place.list("a") == ["a/1"]
        await place.delete("a/1")
        await place.close()

    run_blocking(visit())


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("memory:", "no place for objects"),
        ("sqlite:///x.db", "no place for objects"),
        ("postgresql://user:hunter2@host/db", "no place for objects"),
        ("file:", "names no folder"),
        ("file://host/folder", "names no folder"),
        ("file:///folder?shards=2", "no option"),
        ("s3://bucket?namespace=x", "no option 'namespace'"),
        ("s3:///prefix", "names no host"),
        ("folder", "is the URL of a place"),
        (b"file:///x", "is the URL of a place"),
        (None, "is the URL of a place"),
    ],
)
async def test_bad_urls(bad: str, says: str) -> None:
    """A URL that is no place's says what it should read, and no secret."""
    with pytest.raises(Invalid, match=says) as refused:
        await opened(bad)
    assert "hunter2" not in str(refused.value)


async def test_a_server_that_is_away_is_unavailable() -> None:
    """A bucket whose server does not answer is said when it is opened, without the secret."""
    with pytest.raises(Unavailable) as refused:
        await opened(f"s3://key:hunter2@bucket/?endpoint=http://{HOST}:{free_port()}&timeout=2")
    assert "hunter2" not in str(refused.value)


async def test_rights(servers: Servers[SeaweedFS]) -> None:
    """A login that may read only, and one with a wrong secret, are `Unauthorized` when the place is opened; to read is enough without
    `create`."""
    where = servers(SeaweedFS).url
    with pytest.raises(Unauthorized):
        await opened(where.replace("test:secret@", "reader:secret@"))
    with pytest.raises(Unauthorized) as refused:
        await opened(where.replace("test:secret@", "test:hunter2@"))
    assert "hunter2" not in str(refused.value)
    place = await open_place(where.replace("test:secret@", "reader:secret@"), clock=SystemClock(), option="blobs", create=False)
    await place.close()


async def test_a_bucket_that_is_missing(servers: Servers[FakeGCS]) -> None:
    """A bucket that does not exist is said when the place is opened."""
    with pytest.raises(Invalid, match="nowhere/ does not exist"):
        await opened(servers(FakeGCS).url.replace("gs://test", "gs://nowhere"))


async def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the client library of clouds the message names what installs it."""
    import sys

    for module in [name for name in sys.modules if name.startswith("perdure.backends.objects.")]:
        if module.rpartition(".")[2] in ("cloud", "s3"):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(Unsupported, match="objects"):
        await opened("s3://bucket")
