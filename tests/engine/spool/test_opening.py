"""Opening a spool: what cannot be used is said at `open`, and no secret of the store's URL gets into the file."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

import perdure
from perdure import Event
from tests.support.engine.flaky import Flaky


async def test_a_spool_of_another_store(tmp_path: Path, spool: str) -> None:
    """It is refused with both ids, unchanged, and the store that it belongs to opens it again."""
    async with perdure.open(f"sqlite:///{tmp_path}/one.db", spool=spool) as store:
        mine = store.id
    with pytest.raises(perdure.Invalid, match=f"belongs to the store {mine}"):
        await perdure.open(f"sqlite:///{tmp_path}/two.db", spool=spool)
    async with perdure.open(f"sqlite:///{tmp_path}/one.db", spool=spool) as store:
        assert (await (await store.enqueue("s", Event("x"))).receipt()).version == 1


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///{}/missing/spool.db", "does not exist"),
        ("sqlite:///{}", "cannot be opened|cannot be used"),
        ("memory:", "no SQLite URL"),
        ("spool.db", "no SQLite URL"),
        ("postgresql://ana:geheim@db/x", "no SQLite URL"),
        (7, "must be a URL"),
        ("sqlite:///{}/store.db", "no spool: choose another file"),
        ("sqlite:///{}/other.db", "no spool: choose another file"),
    ],
)
async def test_what_is_no_spool(tmp_path: Path, url: object, words: str) -> None:
    """A URL or a file that cannot be a spool is refused, the store is closed again, and nothing of the URL's login is shown."""
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE t (a)").connection.close()
    place = url.format(tmp_path) if isinstance(url, str) else url
    with pytest.raises(perdure.Invalid, match=words) as error:
        await perdure.open(f"sqlite:///{tmp_path}/store.db", spool=place)  # type: ignore[arg-type]
    assert "geheim" not in str(error.value)
    async with perdure.open(f"sqlite:///{tmp_path}/store.db") as store:
        await store.append("s", Event("x"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_spool_that_cannot_be_written(tmp_path: Path, spool: str) -> None:
    """A file, or a folder, without the right to write is refused at `open`."""
    async with perdure.open(f"sqlite:///{tmp_path}/store.db", spool=spool):
        pass
    (tmp_path / "spool.db").chmod(0o400)
    with pytest.raises(perdure.Invalid, match="cannot be written"):
        await perdure.open(f"sqlite:///{tmp_path}/store.db", spool=spool)


@pytest.mark.parametrize("damage", ["garbage", "page", "cut"])
async def test_a_damaged_spool(tmp_path: Path, spool: str, damage: str) -> None:
    """A file whose bytes were changed or cut off is `Corrupt` at `open`."""
    url, file = f"sqlite:///{tmp_path}/store.db", tmp_path / "spool.db"
    store = await perdure.open(url, spool=spool)
    Flaky(store).away = True
    for number in range(200):
        await store.enqueue("s", Event("x", f"{number} " * 40))
    await store.close()
    data = bytearray(file.read_bytes())
    if damage == "garbage":
        data[:4096] = os.urandom(4096)
    elif damage == "page":
        data[-4096 * 5 : -4096 * 4] = bytes(4096)
    else:
        del data[-4096 * 5 :]
    file.write_bytes(data)
    with pytest.raises(perdure.Corrupt, match=r"spool\.db"):
        await perdure.open(url, spool=spool)


async def test_an_entry_that_was_changed_is_not_shipped(tmp_path: Path, spool: str) -> None:
    """A changed byte in an entry, which SQLite does not see, makes it fail as `Corrupt`; it is never shipped, and can be dropped."""
    url = f"sqlite:///{tmp_path}/store.db"
    store = await perdure.open(url, spool=spool)
    Flaky(store).away = True
    queued = await store.enqueue("s", Event("x", "original"))
    await store.close()
    with sqlite3.connect(tmp_path / "spool.db") as connection:
        connection.execute("UPDATE entry SET body = CAST(replace(CAST(body AS TEXT), 'original', 'changed!') AS BLOB)")
    connection.close()
    async with perdure.open(url, spool=spool) as store:
        with pytest.raises(perdure.Corrupt, match="not what was written"):
            await store.queued("s", queued.key).receipt()
        with pytest.raises(perdure.NotFound):
            await store.read("s")


async def test_create_false_makes_no_spool(tmp_path: Path, spool: str) -> None:
    """`create=False` opens a spool that is there, and makes none."""
    url = f"sqlite:///{tmp_path}/store.db"
    async with perdure.open(url):
        pass
    with pytest.raises(perdure.NotFound):
        await perdure.open(url, spool=spool, create=False)
    assert not (tmp_path / "spool.db").exists()
    async with perdure.open(url, spool=spool):
        pass
    async with perdure.open(url, spool=spool, create=False) as store:
        await (await store.enqueue("s", Event("x"))).receipt()


async def test_a_file_that_goes_away(tmp_path: Path, spool: str) -> None:
    """A spool that was removed while it is open takes nothing more: nothing is acknowledged that no later process would find."""
    async with perdure.open("memory:", spool=spool) as store:
        await (await store.enqueue("s", Event("x"))).receipt()
        for file in tmp_path.glob("spool.db*"):
            file.unlink()
        with pytest.raises(perdure.Unavailable, match="removed, moved or replaced"):
            await store.enqueue("s", Event("y"))
    assert [file.name for file in tmp_path.glob("spool.db") if file.stat().st_size] == []


async def test_no_secret_is_stored(tmp_path: Path, spool: str, caplog: pytest.LogCaptureFixture) -> None:
    """What the store refuses with the URL's password in its message stands in the file, in errors and in the log without it."""
    store = await perdure.open(f"sqlite:///{tmp_path}/store.db", spool=spool)
    sender = store._core.spool._shipper._sender  # type: ignore[union-attr]
    sender._secrets = type(sender._secrets)("postgresql://ana:geheim-7@db/agents")
    flaky = Flaky(store)
    flaky.refusing = perdure.Corrupt("the server ana:geheim-7@db says no")
    queued = await store.enqueue("s", Event("x"))
    with pytest.raises(perdure.Corrupt) as error:
        await queued.receipt()
    flaky.refusing = perdure.Unauthorized("the server ana:geheim-7@db says no")
    await store.enqueue("t", Event("x"))
    while "does not take" not in caplog.text:
        await store.flush(timeout=0.05)
    await store.close()
    shown = str(error.value) + caplog.text + "".join(file.read_bytes().decode("latin-1") for file in tmp_path.glob("spool.db*"))
    assert "says no" in shown and "geheim" not in shown
