"""Bodies out of line between processes: kills, races, purges and second lives between the body's put and its commit."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event, op
from perdure.errors import Deleted
from perdure.places.place import Place
from tests.support.engine.bodies import LEAST, folder, large, opened, stored, text

KILLED = """
import asyncio, os, random, signal, sys
import perdure
from perdure import Event, op
from perdure.places.place import Place

async def main(url, blobs, when):
    put = Place.put
    async def killed(self, name, data):
        if name.startswith("blobs/") and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        made = await put(self, name, data)
        if name.startswith("blobs/"):
            os.kill(os.getpid(), signal.SIGKILL)
        return made
    async with perdure.open(url, blobs=blobs, blob_bytes=1024) as store:
        Place.put = killed
        text = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=3000))
        await store.append("trip", Event("noted", text, (op.set("/a", text),)), key="k")

asyncio.run(main(*sys.argv[1:]))
"""
WRITER = """
import asyncio, random, sys
import perdure
from perdure import Event, op

async def main(url, blobs, name):
    async with perdure.open(url, blobs=blobs, blob_bytes=1024) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(20):
            text = "".join(random.Random(f"{name}{number}").choices("abcdefghijklmnopqrstuvwxyz0123456789", k=3000))
            if number % 2:
                await store.append("trip", Event("noted", text, (op.set(f"/{name}{number}", text),)))
            else:
                async with store.edit("trip") as draft:
                    draft.state.setdefault("log", []).append([name, number, text])

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_writer_killed_before_its_append(file_url: str, tmp_path: Path, when: str) -> None:
    """A process that is killed before or after its body is put has written nothing; a retry by another one is the first; the purge removes
    what the first one left."""
    async with opened(file_url, tmp_path) as store:
        await store.append("trip", Event("small"))
    killed = subprocess.run([sys.executable, "-c", KILLED, file_url, folder(tmp_path), when], check=False, timeout=60)
    assert killed.returncode == -9
    left = stored(tmp_path)
    assert len(left) == (when == "after")
    async with opened(file_url, tmp_path) as store:
        assert (await store.read("trip")).version == 1
        await store.verify("trip")
        receipt = await store.append("trip", large(), key="k")
        assert (receipt.version, receipt.duplicate) == (2, False)
        assert len(stored(tmp_path)) == len(left) + 1
        await store.delete("trip")
        await store.purge("trip")
    assert not stored(tmp_path)


async def test_two_processes_race(file_url: str, tmp_path: Path) -> None:
    """Two processes that write large commits to one session at once: all are there, each with its own body, and no other body is left."""
    async with opened(file_url, tmp_path) as store:
        await store.append("trip", Event("small"))
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, file_url, folder(tmp_path), name], stdin=-1, stdout=-1, text=True)
            for name in ("a", "b")
        ]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        for writer in writers:
            writer.communicate(timeout=120)
            assert writer.returncode == 0
        view = await store.read("trip")
        assert view.version == 41
        for name in ("a", "b"):
            assert [entry[1] for entry in view.state["log"] if entry[0] == name] == list(range(0, 20, 2))
            assert all(f"{name}{number}" in view.state for number in range(1, 20, 2))
        await store.verify("trip")
        assert len(stored(tmp_path)) == 40


class Paused:
    """A put of a body that waits, after it was made, until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.free, self.names = asyncio.Event(), asyncio.Event(), list[str]()
        put = Place.put

        async def paused(place: Place, name: str, data: bytes) -> bool:
            made = await put(place, name, data)
            self.names.append(name)
            if not self.reached.is_set():
                self.reached.set()
                await self.free.wait()
            return made

        monkeypatch.setattr(Place, "put", paused)


@pytest.mark.parametrize("ops", [True, False])
async def test_a_purge_and_a_second_life_in_between(file_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, ops: bool) -> None:
    """A writer is paused after its body was put; its session is deleted, purged and created again, so the body is gone. The commit, which
    goes to the second life, has its body all the same."""
    async with opened(file_url, tmp_path) as store, opened(file_url, tmp_path) as other:
        await store.append("trip", Event("small"))
        paused = Paused(monkeypatch)
        writing = asyncio.create_task(store.append("trip", large(1, ops=ops)))
        await paused.reached.wait()
        await other.delete("trip")
        await other.purge("trip")
        assert not stored(tmp_path)
        await other.append("trip", large(2), recreate=True)
        paused.free.set()
        receipt = await writing
        assert [name for name in paused.names if name.rpartition("/")[2] not in {each.rpartition("/")[2] for each in stored(tmp_path)}]
        assert receipt.version == 4
        for reader in (store, other):
            await reader.verify("trip")
            texts = [commit.events[0].data["text"] async for commit in reader.history("trip", types={"noted"})]
            assert texts == [text(3_000, 2), text(3_000, 1)]
        assert len(stored(tmp_path)) == 2


async def test_a_late_writer_of_a_dead_life(file_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that is paused while its session is deleted is refused, and takes its body away."""
    async with opened(file_url, tmp_path) as store, opened(file_url, tmp_path) as other:
        await store.append("trip", Event("small"))
        paused = Paused(monkeypatch)
        writing = asyncio.create_task(store.append("trip", large(1)))
        await paused.reached.wait()
        await other.delete("trip")
        paused.free.set()
        with pytest.raises(Deleted):
            await writing
        assert not stored(tmp_path)


async def test_a_purge_paused_over_a_second_life(file_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A purge is paused after the rows went; the session is created again with a body. The purge that goes on leaves that body."""
    async with opened(file_url, tmp_path) as store, opened(file_url, tmp_path) as other:
        await store.append("trip", large(1))
        await store.delete("trip")
        reached, free = asyncio.Event(), asyncio.Event()
        listing = Place.list

        async def paused(place: Place, *arguments: Any) -> Any:
            reached.set()
            await free.wait()
            return await listing(place, *arguments)

        monkeypatch.setattr(Place, "list", paused)
        purging = asyncio.create_task(store.purge("trip"))
        await reached.wait()
        await other.append("trip", large(2), recreate=True)
        free.set()
        await purging
        assert len(stored(tmp_path)) == 1
        await other.verify("trip")
        assert set((await other.read("trip")).state) == {"n2"}


async def test_a_purge_that_was_cut_short(file_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A purge whose place went away after the rows were removed is done again, and then nothing is left."""
    async with opened(file_url, tmp_path) as store:
        for number in range(3):
            await store.append("trip", large(number))
        await store.delete("trip")

        async def away(*_: object) -> None:
            raise perdure.Unavailable("The place is away.")

        with monkeypatch.context() as patch:
            patch.setattr(Place, "delete_many", away)
            with pytest.raises(perdure.Unavailable):
                await store.purge("trip")
        assert len(stored(tmp_path)) == 3
        await store.purge("trip")
        assert not stored(tmp_path)


async def test_a_reader_that_meets_a_purge(file_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that has the records when its session is purged is answered `Deleted`: nothing is damaged."""
    async with opened(file_url, tmp_path) as store, opened(file_url, tmp_path) as other:
        await store.append("trip", large())
        reached, free = asyncio.Event(), asyncio.Event()
        get_many = Place.get_many

        async def paused(place: Place, names: Any) -> Any:
            reached.set()
            await free.wait()
            return await get_many(place, names)

        with monkeypatch.context() as patch:
            patch.setattr(Place, "get_many", paused)
            reading = asyncio.create_task(other.read("trip"))
            await reached.wait()
        await store.delete("trip")
        await store.purge("trip")
        free.set()
        with pytest.raises(Deleted):
            await reading


async def test_what_a_rebase_leaves_is_removed(file_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit that loses a race is encoded again; the body of the try that lost is removed."""
    async with opened(file_url, tmp_path) as store, opened(file_url, tmp_path) as other:
        await store.append("trip", Event("x", None, (op.set("/log", ["first"]),)))
        await store.read("trip")
        paused = Paused(monkeypatch)

        async def edit() -> None:
            async with store.edit("trip") as draft:
                draft.state["log"].insert(1, text(3_000))

        editing = asyncio.create_task(edit())
        await paused.reached.wait()
        async with other.edit("trip") as draft:
            draft.state["log"].insert(0, "other")
        paused.free.set()
        await editing
        assert (await other.read("trip")).state["log"] == ["other", "first", text(3_000)]
        assert len({*paused.names}) == 2
        assert len(stored(tmp_path)) == 1
        await other.verify("trip")


@pytest.mark.parametrize("step", range(12))
async def test_a_cancelled_write(file_url: str, tmp_path: Path, step: int) -> None:
    """A call that is cancelled at any of its first steps leaves a session that verifies; a retry with its key is applied once."""
    async with opened(file_url, tmp_path) as store:
        await store.append("trip", Event("small"))
        writing = asyncio.ensure_future(store.append("trip", large(), key="k"))
        for _ in range(step):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await store.append("trip", large(), key="k")
        assert (await store.read("trip")).version == 2
        await store.verify("trip")
        await store.delete("trip")
        await store.purge("trip")
    assert not stored(tmp_path)


def test_least_is_the_limit_of_the_children() -> None:
    """The programs above use the same limit as the tests."""
    assert f"blob_bytes={LEAST}" in KILLED.replace("1024", str(LEAST))
    assert LEAST == 1024
