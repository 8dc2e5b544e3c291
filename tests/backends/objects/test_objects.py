"""Object stores: what is their own beside the shared suites, in a folder; `test_clouds` has the clouds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event
from perdure.backends.conformance import expecting
from perdure.backends.objects import shard as shards
from perdure.backends.objects.folder import Folder
from perdure.backends.spi import Appended, Refused
from perdure.errors import Corrupt, Invalid, Unauthorized, Unavailable, Unknown, Unsupported
from perdure.model.ids import SessionKey
from tests.servers.seaweedfs import SeaweedFS
from tests.support.backends.engines import Engine
from tests.support.backends.scenarios import engine, visit

ENGINE = Engine("seaweedfs", SeaweedFS)
WRITER = """
import asyncio, sys, perdure

async def main():
    async with perdure.open(sys.argv[1]) as store:
        number = 0
        while True:
            number += 1
            await store.append("s", perdure.Event("n", number))
            print(number, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store?shards=1"


def found(place: Path, pattern: str) -> list[Path]:
    """The files below a folder that fit, sorted."""
    return sorted(path for path in place.rglob(pattern) if path.is_file())


def segments(place: Path) -> list[Path]:
    """The files of the log, oldest first."""
    return found(place, "log/*/*")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each kind of request was made."""
    calls: Counter[str] = Counter()
    for name in ("create", "get", "put", "list"):
        original = getattr(Folder, name)

        async def counting(self: Folder, *args: Any, original: Any = original, name: str = name, **kwargs: Any) -> Any:
            calls[name] += 1
            return await original(self, *args, **kwargs)

        monkeypatch.setattr(Folder, name, counting)
    return calls


async def test_a_put_holds_many_sessions_commits_and_a_warm_read_is_one_request(url: str, counted: Counter[str]) -> None:
    """64 sessions at once on one shard: at least 20 appends a put; a read of a session in memory asks for one object."""

    async with perdure.open(url) as store:

        async def turns(number: int) -> None:
            for turn in range(20):
                await store.append(f"s{number}", Event("turn", turn))

        await turns(0)
        before = counted["create"]
        await asyncio.gather(*[turns(number) for number in range(1, 65)])
        assert 64 * 20 / (counted["create"] - before) >= 20
        await store.read("s1")
        await store.read("s1")
        counted.clear()
        assert (await store.read("s1")).version == 20
        assert counted == {"get": 1}


async def test_writers_of_several_processes_share_a_shard(url: str, tmp_path: Path) -> None:
    """Two handles append to one shard at once: numbers without a gap, every commit once, one order for all."""

    one, two = await perdure.open(url), await perdure.open(url)
    await asyncio.gather(*[store.append(f"s{n % 3}", Event("n", n)) for n in range(60) for store in (one, two)])
    for name in ("s0", "s1", "s2"):
        mine = [commit.hash async for commit in one.history(name)]
        assert mine == [commit.hash async for commit in two.history(name)]
        assert len(mine) == 40
        await one.verify(name)
    assert [int(path.name) for path in segments(tmp_path)] == list(range(1, len(segments(tmp_path)) + 1))
    await one.close()
    await two.close()


async def test_a_killed_writer_loses_nothing_acknowledged(url: str) -> None:
    """Kill -9 in mid-write, again and again: every acknowledged commit is there, at most one more, and the chain verifies."""
    acknowledged = 0
    for round_ in range(4):
        with subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(10 + 7 * round_)]
            writer.kill()
            lines += writer.stdout.read().splitlines(keepends=True)
        acknowledged += len([line for line in lines if line.endswith("\n")])

        async def look(least: int = acknowledged, most: int = acknowledged + round_ + 1) -> None:
            async with perdure.open(url) as store:
                assert least <= (await store.verify("s")).commits <= most

        await look()


@pytest.mark.parametrize("landed", ["before", "never", "late"])
async def test_a_put_without_an_answer_is_settled(landed: str, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The number is read back, and the identical bytes are put again while it is free: one commit, whatever became of the first put."""
    original = Folder.create
    late: list[tuple[str, bytes]] = []
    failing = False

    async def create(self: Folder, name: str, data: bytes) -> bool:
        nonlocal failing
        if failing and name.startswith("log/"):
            failing = False
            if landed == "before":
                await original(self, name, data)
            late.append((name, data))
            raise Unknown("No answer came.")
        return await original(self, name, data)

    async def scenario() -> None:
        nonlocal failing
        backend = await engine(url)
        monkeypatch.setattr(Folder, "create", create)
        failing = True
        (outcome,) = await backend.append([expecting(SessionKey("acme", "s"), None, key="k")])
        assert isinstance(outcome, Appended)
        if landed == "late":
            assert not await original(backend.driver._bucket, *late[0])
        assert len(await backend.read(SessionKey("acme", "s"))) == 1
        await backend.close()

    await scenario()
    assert len(segments(tmp_path)) == 1


async def test_another_ones_segment_in_the_way_is_told_from_mine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to a put was lost, and another process took the number: the append is judged on what that one wrote."""
    original = Folder.create
    session = SessionKey("acme", "s")

    one, two = await engine(url), await engine(url)

    async def create(self: Folder, name: str, data: bytes) -> bool:
        monkeypatch.setattr(Folder, "create", original)
        (first,) = await two.append([expecting(session, None)])
        assert isinstance(first, Appended)
        raise Unknown("No answer came.")

    monkeypatch.setattr(Folder, "create", create)
    (outcome,) = await one.append([expecting(session, None)])
    assert isinstance(outcome, Refused)
    assert outcome.head is not None
    assert outcome.head.version == 1
    for backend in (one, two):
        assert len(await backend.read(session)) == 1
        await backend.close()


async def test_a_read_sees_what_was_acknowledged_while_a_put_was_under_way(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """My put has its number; another process puts the next one and is answered; then I am asked to read, before my own answer came."""
    original = Folder.create
    mine, theirs = SessionKey("acme", "mine"), SessionKey("acme", "theirs")

    one, two = await engine(url), await engine(url)
    await one.heads([mine])
    arrived, go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def create(self: Folder, name: str, data: bytes) -> bool:
        monkeypatch.setattr(Folder, "create", original)
        made = await original(self, name, data)
        loop.call_soon_threadsafe(arrived.set)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(go.wait(), loop))
        return made

    monkeypatch.setattr(Folder, "create", create)
    writing = asyncio.create_task(one.append([expecting(mine, None)]))
    await arrived.wait()
    (other,) = await two.append([expecting(theirs, None)])
    assert isinstance(other, Appended)
    reading = asyncio.create_task(one.heads([theirs]))
    await asyncio.sleep(0.1)
    go.set()
    assert await reading == [other.head]
    await writing
    await one.close()
    await two.close()


async def test_a_look_that_failed_is_nobodys_answer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two reads wait while a third looks; the look that the first of them makes fails: the second looks for itself."""
    original = Folder.get
    session = SessionKey("acme", "s")

    async def scenario() -> None:
        one, two = await engine(url), await engine(url)
        await one.heads([session])
        looks = 0

        async def get(self: Folder, name: str) -> bytes | None:
            nonlocal looks
            looks += 1
            if looks == 2:
                raise Unavailable("The store is away.")
            data = await original(self, name)
            await asyncio.sleep(0.3)
            return data

        monkeypatch.setattr(Folder, "get", get)
        third = asyncio.create_task(one.heads([session]))
        await asyncio.sleep(0.1)
        (other,) = await two.append([expecting(session, None)])
        answers = await asyncio.gather(one.heads([session]), one.heads([session]), return_exceptions=True)
        assert await third == [None]
        assert isinstance(answers[0], Unavailable)
        assert answers[1] == [other.head]
        await one.close()
        await two.close()

    await scenario()


async def test_a_put_whose_answer_was_lost_and_rights_are_gone_is_unknown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The put landed, its answer did not, and the store then refuses to be read: nobody knows, so nobody says that nothing was written."""
    original, reading = Folder.create, Folder.get
    session = SessionKey("acme", "s")

    async def create(self: Folder, name: str, data: bytes) -> bool:
        await original(self, name, data)
        raise Unknown("No answer came.")

    async def get(self: Folder, name: str) -> bytes | None:
        raise Unauthorized("The right was taken away.")

    backend = await engine(url + "&timeout=0.5")
    await backend.heads([session])
    monkeypatch.setattr(Folder, "create", create)
    monkeypatch.setattr(Folder, "get", get)
    with contextlib.suppress(Unknown):
        (outcome,) = await backend.append([expecting(session, None)])
        assert isinstance(outcome, Unknown), outcome
    monkeypatch.setattr(Folder, "get", reading)
    assert len(await backend.read(session)) == 1
    await backend.close()


async def test_a_name_tag_that_cannot_be_read_yet_is_not_written_over(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another process makes the store at this moment: `open` says to try again, and leaves nothing behind."""

    async def refused(self: Folder, name: str, data: bytes) -> bool:
        return False

    with monkeypatch.context() as racing:
        racing.setattr(Folder, "create", refused)
        with pytest.raises(Unavailable, match="open the store again"):
            await visit(url)
    assert not found(tmp_path, "*")
    await visit(url)


async def test_a_commit_stands_though_its_temporary_file_cannot_be_removed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows the link cannot undo it: the append is told as stored. Such files are removed when they are an hour old."""

    def refuse(self: Path, *, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    async with perdure.open(url) as store:
        with monkeypatch.context() as stubborn:
            stubborn.setattr(Path, "unlink", refuse)
            assert (await store.append("s", Event("x"))).version == 1
    folder = Path(url.partition("://")[2].partition("?")[0]) / "perdure" / "log" / "0000"
    (left,) = folder.glob(".partial-*")
    os.utime(left, (1, 1))
    await _read(url)
    assert not left.exists()


async def _read(url: str) -> None:
    async with perdure.open(url) as store:
        await store.read("s")


@pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
async def test_a_damaged_segment_is_corrupt(harm: str, url: str, tmp_path: Path) -> None:
    """A segment with a flipped bit, cut short, or gone from the middle is `Corrupt` by its name, never wrong data."""

    async with perdure.open(url) as store:
        for number in range(5):
            await store.append("s", Event("n", number))
    victim = segments(tmp_path)[2]
    data = victim.read_bytes()
    if harm == "gone":
        victim.unlink()
    else:
        victim.write_bytes(data[:-10] if harm == "cut" else data[:60] + bytes([data[60] ^ 1]) + data[61:])
    async with perdure.open(url) as store:
        with pytest.raises(Corrupt, match="log/0000/0000000000000003"):
            await store.read("s")


async def test_checkpoints_spare_reading_the_log_and_are_done_without(
    url: str, tmp_path: Path, counted: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cold open reads the newest checkpoint and what came behind it; a damaged one is passed over, with the same result."""
    monkeypatch.setattr(shards, "CHECKPOINT_BYTES_MIN", 4_000)

    async def rows() -> list[tuple[str, int]]:
        async with perdure.open(url) as store:
            return [(info.session, info.version) async for info in store.list()]

    async with perdure.open(url) as store:
        for number in range(60):
            await store.append(f"s{number % 7}", Event("n", {"number": number, "text": "x" * 100}), key=f"k{number}")
    kept = found(tmp_path, "index/*/*")
    assert 1 <= len(kept) <= 2
    counted.clear()
    whole = await rows()
    assert len(whole) == 7
    assert counted["get"] < 40
    for path in kept:
        path.write_bytes(path.read_bytes()[:-1])
    assert await rows() == whole
    async with perdure.open(url) as store:
        assert (await store.append("s3", Event("n", {"number": 58, "text": "x" * 100}), key="k58")).version == whole[3][1] + 1
        assert (await store.append("s3", Event("n", {"number": 3, "text": "x" * 100}), key="k3")).duplicate


async def test_a_purged_session_leaves_no_byte_of_its_content(url: str, tmp_path: Path) -> None:
    """After purge no object holds what the session said, what its keys and tags were; its neighbours in the same segments are whole."""

    async with perdure.open(url) as store:
        for number in range(4):
            await asyncio.gather(
                store.append("secret", Event("said", "word-of-the-secret"), key=f"key-of-the-secret-{number}"),
                store.append("plain", Event("said", "word-of-the-other")),
            )
        await store.configure("secret", tags={"team": "tag-of-the-secret"})
        await store.delete("secret")
    backend = await engine(url)
    await backend.purge(SessionKey("default", "secret"))
    await backend.close()
    held = b"".join([path.read_bytes() for path in found(tmp_path, "*")])
    assert b"of-the-secret" not in held
    assert held.count(b"word-of-the-other") == 4
    async with perdure.open(url) as store:
        assert (await store.verify("plain")).commits == 4
        with pytest.raises(perdure.Deleted):
            await store.append("secret", Event("said", "late"))


async def test_a_place_that_ignores_conditions_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`open` tries to make an object whose name is taken; where that succeeds, commits would be lost without a word."""

    async def careless(self: Folder, name: str, data: bytes) -> bool:
        await self.put(name, data)
        return True

    monkeypatch.setattr(Folder, "create", careless)
    with pytest.raises(Unsupported, match="ignores conditions"):
        await visit(url)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("file://relative/path", "names no folder"),
        ("file:///", "names no folder"),
        ("file:///tmp/x?shards=0", "whole number from 1 to 256"),
        ("file:///tmp/x?colour=red", "no option 'colour'"),
    ],
)
async def test_bad_urls(bad: str, says: str) -> None:
    """A URL that cannot be meant says what it should read."""
    with pytest.raises(Invalid, match=says):
        await visit(bad)


async def test_the_number_of_shards_is_for_good(tmp_path: Path) -> None:
    """Another number would look for sessions in the wrong log: it is refused. Without one, the store's own is taken."""
    await visit(f"file://{tmp_path}/store?shards=3")
    await visit(f"file://{tmp_path}/store")
    with pytest.raises(Invalid, match="has 3 shards for good, not 4"):
        await visit(f"file://{tmp_path}/store?shards=4")


async def test_a_name_tag_of_something_else(tmp_path: Path) -> None:
    """A store whose tag cannot be read is `Corrupt`; one of a newer schema is `Unsupported`, unless it says that this version may write."""
    url, tag = f"file://{tmp_path}/store", tmp_path / "store" / "perdure" / "perdure.json"
    await visit(url)
    tag.write_text("{}")
    with pytest.raises(Corrupt, match="not written by Perdure"):
        await visit(url)
    for later in ('{"perdure": 3, "id": "x", "shards": 1}', '{"perdure": 3, "id": "x", "shards": 1, "min_writer": 3}'):
        tag.write_text(later)
        with pytest.raises(Unsupported, match="upgrade perdure"):
            await visit(url)
    tag.write_text('{"perdure": 3, "id": "x", "shards": 1, "min_writer": 2}')
    async with perdure.open(url) as store:
        await store.append("s", Event("x"))


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A file where the folder should be is told by its name."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(Invalid, match="is not what its name says"):
        await visit(f"file://{tmp_path}/file")


async def test_what_lies_beside_the_segments_is_left_alone(url: str, tmp_path: Path) -> None:
    """Half-written files of a process that died are no objects, and nothing reads or counts them."""

    async with perdure.open(url) as store:
        await store.append("s", Event("x"))
    (segments(tmp_path)[0].parent / ".partial-dead").write_bytes(b"half")
    async with perdure.open(url) as store:
        assert (await store.append("s", Event("y"))).version == 2
    with contextlib.suppress(FileNotFoundError):
        assert (segments(tmp_path)[0].parent / ".partial-dead").read_bytes() == b"half"
