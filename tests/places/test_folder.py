"""A folder as a place: crashes between the steps of a write, several processes, rights."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perdure.clock import SystemClock
from perdure.errors import Closed, Error, Invalid, NotFound, Unavailable
from perdure.places.opening import open_place
from perdure.places.place import Place

WRITER = """
import asyncio, os, signal, sys
from perdure.backends.objects import folder
from perdure.clock import SystemClock
from perdure.places.opening import open_place

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

async def main(url, step):
    place = await open_place(url, clock=SystemClock(), option="blobs")
    if step == "link":
        folder._linked = die
    elif step == "sync":
        sync = folder._sync
        link = folder._linked
        def linked(partial, path):
            made = link(partial, path)
            folder._sync = die
            return made
        folder._linked = linked
    await place.put("blobs/trip", b"the whole body" * 10_000)
    die()

asyncio.run(main(*sys.argv[1:]))
"""
RACER = """
import asyncio, sys
from perdure.clock import SystemClock
from perdure.places.opening import open_place

async def main(url, mark):
    place = await open_place(url, clock=SystemClock(), option="blobs")
    print("ready", flush=True)
    sys.stdin.readline()
    print(sum([await place.put(f"race/{number}", mark.encode() * 5_000) for number in range(100)]))
    await place.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def opened(path: Path, *, create: bool = True) -> Place:
    return await open_place(f"file://{path}", clock=SystemClock(), option="blobs", create=create)


@pytest.mark.parametrize("step", ["link", "sync", "done"])
async def test_a_writer_killed_between_its_steps(tmp_path: Path, step: str) -> None:
    """An object whose writer was killed is there whole, or not there at all; then the same put makes it."""
    killed = subprocess.run([sys.executable, "-c", WRITER, f"file://{tmp_path}", step], check=False, timeout=60)
    assert killed.returncode == -9
    place = await opened(tmp_path)
    whole = b"the whole body" * 10_000
    assert await place.get("blobs/trip") == (None if step == "link" else whole)
    assert await place.list("blobs") == ([] if step == "link" else ["blobs/trip"])
    assert await place.put("blobs/trip", whole) == (step == "link")
    assert await place.get("blobs/trip") == whole
    await place.close()


async def test_what_a_dead_writer_left_is_removed(tmp_path: Path) -> None:
    """A file that was never finished is listed by nobody, and removed an hour later."""
    place = await opened(tmp_path)
    await place.put("a/1", b"x")
    left = [tmp_path / "a" / f".partial-{number}" for number in range(2)]
    for path in left:
        path.write_bytes(b"half")
    os.utime(left[0], (time.time() - 7200,) * 2)
    assert await place.list("a") == ["a/1"]
    assert [path.exists() for path in left] == [False, True]
    await place.close()


async def test_two_processes_put_the_same_names(tmp_path: Path) -> None:
    """Of two processes that put the same names at once one makes each of them, and none is mixed of both."""
    writers = [
        subprocess.Popen([sys.executable, "-c", RACER, f"file://{tmp_path}", mark], stdin=-1, stdout=-1, text=True) for mark in ("a", "b")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    made = [int(writer.communicate(timeout=120)[0]) for writer in writers]
    assert sum(made) == 100
    place = await opened(tmp_path)
    for number in range(100):
        assert await place.get(f"race/{number}") in (b"a" * 5_000, b"b" * 5_000)
    await place.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
async def test_a_folder_without_rights(tmp_path: Path) -> None:
    """A folder that cannot be written is said when it is opened."""
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(Invalid, match="check its rights"):
            await opened(tmp_path / "below")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("where", ["file", "/proc/nowhere"])
async def test_a_folder_that_cannot_be_written(tmp_path: Path, where: str) -> None:
    """A file in the folder's place, and a file system that takes no files, are said when the place is opened."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises((Invalid, Unavailable)):
        await opened(tmp_path / where)


async def test_nothing_is_made_without_create(tmp_path: Path) -> None:
    """A folder that is missing is `NotFound` and stays missing; one that is there is read, and nothing is written to it."""
    with pytest.raises(NotFound):
        await opened(tmp_path / "missing", create=False)
    assert not (tmp_path / "missing").exists()
    place = await opened(tmp_path, create=False)
    assert await place.get("a/1") is None
    assert not [*tmp_path.iterdir()]
    await place.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
async def test_a_forked_child_is_refused(tmp_path: Path) -> None:
    """A place that was opened before a fork is `Closed` in the child."""
    place = await opened(tmp_path)
    child = os.fork()
    if not child:
        code = 1
        try:
            work = place.put("a/1", b"x")
            work.send(None)
        except Closed:
            code = 0
        except BaseException:  # noqa: BLE001 - the code says it
            code = 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    await place.close()


async def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file cannot be written whole, none is there, and the error says that."""
    place = await opened(tmp_path)

    def full(path: Path, data: bytes) -> None:
        path.write_bytes(data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("perdure.backends.objects.folder._write_synced", full)
    with pytest.raises(Unavailable, match="No space left"):
        await place.put("a/1", b"data")
    monkeypatch.undo()
    assert [*(tmp_path / "a").iterdir()] == []
    assert await place.put("a/1", b"data")
    await place.close()


async def test_a_put_whose_folder_was_not_synced_is_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outcome that is not known the object is read: the put counts as made where its bytes are there."""
    place = await opened(tmp_path)
    await place.put("a/0", b"")
    sync, failures = __import__("perdure.backends.objects.folder", fromlist=["x"])._sync, [OSError(5, "Input/output error")]

    def fail_once(folder: Path) -> None:
        if failures:
            raise failures.pop()
        sync(folder)

    monkeypatch.setattr("perdure.backends.objects.folder._sync", fail_once)
    assert await place.put("a/1", b"data")
    failures += [OSError(5, "Input/output error")] * 50
    with pytest.raises(Error) as refused:
        await place.put("a/2", b"data")
    assert refused.value.retryable
    await place.close()


async def test_many_at_once(tmp_path: Path) -> None:
    """Objects that are put into new folders at once are all there."""
    place = await opened(tmp_path)
    assert all(await asyncio.gather(*[place.put(f"{number % 5}/{number}/x", b"%d" % number) for number in range(50)]))
    assert len(await place.list("0")) == 10
    await place.close()
