"""Bad places: URLs, files, folders and disks that cannot hold a store are refused by name, left as they are, and work once mended."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

import perdure
from perdure import Event, op
from perdure.backends.spi import SCHEMA_VERSION
from perdure.backends.sqlite.schema import APPLICATION_ID

MALFORMED = [
    "", "nothing", "memory", "memory://", "memory:x", "sqlite:", "sqlite:/", "sqlite://", "sqlite:///", "sqlite://a.db", "sqlite:a.db",
    "sqlite:///a.db#x", "sqlite:///:memory:", "sqlite:///a.db?colour=red", "sqlite:///a.db?readers=0", "sqlite:///a.db?readers=many",
    "sqlite:///a.db?busy_timeout=-1", "sqlite:///a.db?busy_timeout=nan", "sqlite:///a.db?busy_timeout=1e300", "sqlite:///a.db?cache_kib=1",
    "sqlite:///a.db?vfs=nowhere", "sqlite:///a%00.db", "sqlite:////tmp/\ud800.db", 7, b"memory:", ["memory:"],
]  # fmt: skip
UNKNOWN = ["oracle://host/db", "nosuch:", "SQLITE:///a.db", "://", ":", "http//x:y", "é:x"]


async def open_and_close(url: Any, **options: Any) -> None:
    async with perdure.open(url, **options):
        pass


async def fill(url: str) -> None:
    async with perdure.open(url) as store:
        for number in range(24):
            await store.append(f"s{number % 3}", Event("step", {"n": number}, (op.append("/log", [number]),)), key=f"k{number}", actor="me")
        await store.configure("s1", tags={"team": "ops"})
        await store.fork("s0", at=2, id="fork")


async def one_more(url: str) -> int:
    async with perdure.open(url) as store:
        return (await store.append("s0", Event("more"))).version


async def see(url: str) -> dict[str, Any]:
    """Every session of a store with its history and states, verified; listed sessions too, though what lists them is not the truth."""
    async with perdure.open(url) as store:
        infos = [info async for info in store.list()]
        names = {info.session for info in infos} | {"s0", "s1", "s2", "fork"}
        found: dict[str, Any] = {}
        for name in sorted(names, key=str):
            view = await store.read(name)
            history = [commit async for commit in store.history(name)]
            await store.verify(name)
            found[name] = (view.version, view.hash, view.state, history)
        return found


@pytest.mark.parametrize("url", MALFORMED, ids=ascii)
async def test_malformed_urls(url: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL that says nothing useful is `Invalid`, shows how to write one, and makes no file."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(perdure.Invalid) as caught:
        await open_and_close(url)
    assert "memory:" in str(caught.value) or "sqlite:" in str(caught.value) or "vfs" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


async def test_a_relative_path_is_settled_when_the_store_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may change its folder after: connections made later reach the same file."""
    (first := tmp_path / "first").mkdir()
    (second := tmp_path / "second").mkdir()
    monkeypatch.chdir(first)
    async with perdure.open("sqlite:///agents.db?readers=8") as store:
        monkeypatch.chdir(second)
        await store.append("s", Event("a", 1))
        assert {view.version for view in await asyncio.gather(*[store.read("s") for _ in range(64)])} == {1}
    assert (first / "agents.db").exists()
    assert list(second.iterdir()) == []


@pytest.mark.parametrize("url", UNKNOWN, ids=ascii)
async def test_unknown_schemes(url: str) -> None:
    """A scheme that no engine serves is `Invalid` and the message names those there are."""
    with pytest.raises(perdure.Invalid, match=r"etcd, .*memory, .*sqlite"):
        await open_and_close(url)


async def test_a_password_is_not_repeated() -> None:
    """A URL with credentials is refused without showing them."""
    with pytest.raises(perdure.Invalid) as caught:
        await open_and_close("nosuch://user:hunter2@host/db")
    assert "hunter2" not in str(caught.value)


async def test_a_missing_extra_names_the_line_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is registered, but whose driver is not installed, is `Unsupported` with the `pip install` line."""
    info = tmp_path / "perdure_toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: perdure-toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[perdure.backends]\ntoy = perdure_toy:open\n")
    (tmp_path / "perdure_toy.py").write_text("import a_driver_that_nobody_has_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(perdure.Unsupported, match=r"pip install '\.\[toy\]'") as caught:
        await open_and_close("toy://host")
    assert "a_driver_that_nobody_has_installed" in str(caught.value)
    with pytest.raises(perdure.Invalid, match=r"memory, .*sqlite, toy"):
        await open_and_close("nosuch:")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "yaml"}, "format"),
        ({"cache_bytes": -1}, "cache_bytes"),
        ({"cache_bytes": "much"}, "cache_bytes"),
        ({"attempts": 0}, "attempts"),
        ({"colour": "red"}, "colour"),
        ({"durability": "disk"}, "durability"),
        ({"tenant": ""}, "tenant"),
        ({"upcasters": {"": str}}, "type"),
        ({"upcasters": {"x": "not a function"}}, "upcaster"),
    ],
)
async def test_bad_settings(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    """A setting that does not exist or cannot be is `Invalid` by its name, and no file is made."""
    with pytest.raises(perdure.Invalid, match=words):
        await open_and_close(f"sqlite:///{tmp_path}/store.db", **options)
    assert list(tmp_path.iterdir()) == []


async def test_a_missing_folder(tmp_path: Path) -> None:
    """A file in a folder that is not there is refused with the folder's name; the folder is not made; made, it serves."""
    url = f"sqlite:///{tmp_path}/none/store.db"
    with pytest.raises(perdure.Invalid, match="none does not exist: create it first"):
        await open_and_close(url)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "none").mkdir()
    await fill(url)


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A URL that names a folder is refused."""
    with pytest.raises(perdure.Invalid, match="cannot be opened"):
        await open_and_close(f"sqlite:///{tmp_path}")


@pytest.mark.parametrize(
    "content", [b"hello\n", b"hello, I am a text file.\n" * 500, bytes(range(256)) * 40, b"SQLite format 3\0" + b"\1" * 4_080]
)
async def test_a_file_that_is_no_database(content: bytes, tmp_path: Path) -> None:
    """Any other file is refused and keeps every byte."""
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(perdure.Error, match=r"notes\.txt"):
        await open_and_close(f"sqlite:///{path}")
    assert path.read_bytes() == content


async def test_a_database_of_something_else(tmp_path: Path) -> None:
    """Another program's SQLite file is refused and keeps its content and its journal mode."""
    path = tmp_path / "other.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE people (name); INSERT INTO people VALUES ('Ada'); PRAGMA user_version = 1")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(perdure.Invalid, match="something else"):
        await open_and_close(f"sqlite:///{path}")
    connection = apsw.Connection(str(path))
    assert connection.execute("SELECT name FROM people").get == "Ada"
    connection.close()
    assert path.read_bytes() == before


async def test_a_newer_schema(tmp_path: Path) -> None:
    """A file that a later version of the library made is `Unsupported`, says to upgrade, and stays as it is."""
    url = f"sqlite:///{tmp_path}/store.db"
    await fill(url)
    connection = apsw.Connection(f"{tmp_path}/store.db")
    assert connection.pragma("application_id") == APPLICATION_ID
    connection.pragma("user_version", SCHEMA_VERSION + 1)
    connection.execute("UPDATE store SET value = ? WHERE name = 'min_writer'", (str(SCHEMA_VERSION + 1),))
    connection.close()
    with pytest.raises(perdure.Unsupported, match="upgrade perdure"):
        await open_and_close(url)
    connection = apsw.Connection(f"{tmp_path}/store.db")
    connection.pragma("user_version", SCHEMA_VERSION)
    connection.execute("UPDATE store SET value = ? WHERE name = 'min_writer'", (str(SCHEMA_VERSION),))
    connection.close()
    assert (await see(url))["s0"][0] > 8


async def test_truncated_files(tmp_path: Path) -> None:
    """Cut anywhere, a file is an error of ours or, where nothing that is read was cut, reads as before."""
    await fill(f"sqlite:///{tmp_path}/store.db")
    whole = await see(f"sqlite:///{tmp_path}/store.db")
    data = (tmp_path / "store.db").read_bytes()
    found = 0
    for size in sorted({1, 15, 16, 99, 100, 4_095, 4_096, *range(512, len(data), 2_560)}):
        (tmp_path / "cut.db").write_bytes(data[:size])
        try:
            assert await see(f"sqlite:///{tmp_path}/cut.db") == whole
        except perdure.Error:
            found += 1
        for path in tmp_path.glob("cut.db*"):
            path.unlink()
    assert found > 10


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1, 6, 14])
async def test_bit_flipped_files(seed: int, tmp_path: Path) -> None:
    """One flipped bit anywhere in a file is an error of ours, or changes nothing that is shown: never other data, never a foreign error."""
    await fill(f"sqlite:///{tmp_path}/store.db")
    whole = await see(f"sqlite:///{tmp_path}/store.db")
    data = (tmp_path / "store.db").read_bytes()
    chance = random.Random(seed)
    used = [place for place, byte in enumerate(data) if byte]
    found = 0
    for _ in range(150):
        place, bit = chance.choice(used), chance.randrange(8)
        damaged = bytearray(data)
        damaged[place] ^= 1 << bit
        (tmp_path / "flipped.db").write_bytes(damaged)
        try:
            seen = await see(f"sqlite:///{tmp_path}/flipped.db")
            assert seen == whole, (place, bit)
        except perdure.Error:
            found += 1
        for path in tmp_path.glob("flipped.db*"):
            path.unlink()
    assert found > 30


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach: pytest's own belongs to the user who runs it."""
    folder = Path(tempfile.mkdtemp(prefix="perdure-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the superuser's rights, whom no permission binds."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has no users to change to")
    if os.geteuid():
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_a_read_only_file() -> None:
    """A file that may only be read is read; a write is refused with what to check, and goes through once the rights are there."""

    async def scenario(path: Path) -> None:
        async with perdure.open(f"sqlite:///{path}") as store:
            assert (await store.read("s0")).version == 9
            with pytest.raises(perdure.Invalid, match=r"cannot be written.*rights of the file"):
                await store.append("s0", Event("more"))
            assert (await store.read("s0")).version == 9

    with open_folder() as folder:
        path = folder / "store.db"
        await fill(f"sqlite:///{path}")
        folder.chmod(0o777)
        path.chmod(0o444)
        with as_nobody():
            await scenario(path)
        path.chmod(0o644)
        assert await one_more(f"sqlite:///{path}") == 10


async def test_a_read_only_folder() -> None:
    """In a folder that may not be written no store is made, and one that is there is refused or read, but never half written."""
    with open_folder() as folder:
        path = folder / "store.db"
        await fill(f"sqlite:///{path}")
        before = path.read_bytes()
        folder.chmod(0o555)
        path.chmod(0o644)
        with as_nobody():
            with pytest.raises(perdure.Invalid, match=r"rights|may it be written"):
                await open_and_close(f"sqlite:///{folder}/new.db")
            with pytest.raises(perdure.Invalid, match=r"rights|may it be written"):
                await fill(f"sqlite:///{path}")
        assert path.read_bytes() == before
        folder.chmod(0o755)
        assert await one_more(f"sqlite:///{path}") == 10


FULL = """
import asyncio, random, resource, sys
import perdure
from perdure import Event

def step(number):
    return Event("step", {"n": number, "noise": random.Random(number).randbytes(20_000).hex()})

async def main(url):
    async with perdure.open(url) as store:
        stored, unknown = [], []
        await store.append("s", Event("begun"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        for number in range(100):
            try:
                await store.append("s", step(number), key=f"k{number}")
            except (perdure.Unavailable, perdure.Unknown) as error:
                assert error.retryable
                assert "store.db" in str(error), error
                unknown.append(number)
                if len(unknown) == 3:
                    break
            else:
                stored.append(number)
        assert stored and len(unknown) == 3, (stored, unknown)
        assert (await store.read("s")).version >= 1 + len(stored)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        for number in unknown:
            await store.append("s", step(number), key=f"k{number}")
        numbers = [event.data["n"] async for commit in store.history("s", types=["step"]) for event in commit.events]
        assert sorted(numbers) == sorted(stored + unknown), numbers
        await store.verify("s")
        print("sound", len(numbers))

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a limit on the size of files is a POSIX thing")
def test_a_full_disk(tmp_path: Path) -> None:
    """When the file can grow no more, appends are refused as retryable; nothing acknowledged is lost; with room the same store goes on."""
    url = f"sqlite:///{tmp_path}/store.db"
    run = subprocess.run([sys.executable, "-c", FULL, url], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("sound")


FORKED = """
import asyncio, os, sys, warnings
import perdure
from perdure import Event
warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of every fork with threads: that is what is tested.

async def refused(store):
    for call in (store.append("s", Event("child")), store.read("s"), store.delete("s"), store.verify("s")):
        try:
            await call
        except perdure.Closed as error:
            assert "fork" in str(error), error
        else:
            raise AssertionError(call)
    try:
        store.edit("s")
    except perdure.Closed:
        pass
    else:
        raise AssertionError("edit")

async def own(url):
    async with perdure.open(url) as store:
        return await store.append("s", Event("child's own"))

def main(url):
    loop = asyncio.new_event_loop()
    store = loop.run_until_complete(perdure.open(url)._open())
    loop.run_until_complete(store.append("s", Event("parent")))
    child = os.fork()
    if not child:
        status = 1
        try:
            asyncio.run(refused(store))
            if not url.startswith("memory"):
                assert asyncio.run(own(url)).version == 2
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    receipt = loop.run_until_complete(store.append("s", Event("parent")))
    assert receipt.version == (2 if url.startswith("memory") else 3), receipt
    loop.run_until_complete(store.verify("s"))
    loop.run_until_complete(store.close())
    loop.close()
    print("sound")

main(sys.argv[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_store_after_fork(url: str) -> None:
    """In a forked child the parent's store is `Closed` and says to open one of its own, which works; the parent's goes on."""
    run = subprocess.run([sys.executable, "-c", FORKED, url], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "sound\n"
