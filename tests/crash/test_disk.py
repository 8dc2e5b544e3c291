"""The watched disk catches what it is made to catch, on bare SQLite: a lost commit where syncs are off, none where they are on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from tests.support.crash.disk import Disk, Entry, Fault, broken, full
from tests.support.crash.disk_image import DiskImage, lay_out

ROWS = 12
SEEDS = range(6)


def write_rows(path: Path, vfs: str, synchronous: str, done: Callable[[], None]) -> None:
    """One transaction a row; a checkpoint on the way. `done` is called when a row is acknowledged."""
    connection = apsw.Connection(str(path), vfs=vfs)
    try:
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", synchronous)
        connection.execute("CREATE TABLE row (n INTEGER PRIMARY KEY, filler BLOB)")
        for number in range(ROWS):
            connection.execute("INSERT INTO row VALUES (?, zeroblob(900))", (number,))
            done()
            if number == ROWS // 2:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    finally:
        connection.close()


def rows_lost(folder: Path, synchronous: str) -> int:
    """Over every crash point and seed: how many times an acknowledged row is missing or the file is damaged."""
    live, found = folder / "live", folder / "found"
    live.mkdir()
    moments: list[int] = []
    with Disk(f"bare-{synchronous}") as disk:
        write_rows(live / "rows.db", disk.name, synchronous, lambda: moments.append(len(disk.journal)))
    lost = 0
    image = DiskImage()
    for position, entry in enumerate(disk.journal, 1):
        image.feed(entry)
        acknowledged = sum(moment <= position for moment in moments)
        for seed in SEEDS:
            lay_out(image.after_power_loss(seed * 10_000 + position), found)
            lost += not rows_are_whole(found / "rows.db", acknowledged)
    return lost


def rows_are_whole(path: Path, acknowledged: int) -> bool:
    connection = apsw.Connection(str(path))
    try:
        if connection.pragma("integrity_check") != "ok":
            return False
        if not connection.execute("SELECT count(*) FROM sqlite_schema").get:
            return not acknowledged
        return acknowledged <= connection.execute("SELECT count(*) FROM row").get <= acknowledged + 1
    except apsw.CorruptError:
        return False
    finally:
        connection.close()


def test_a_lost_commit_is_caught(tmp_path: Path) -> None:
    """With synchronous=OFF a power loss takes acknowledged rows, and the harness sees it."""
    assert rows_lost(tmp_path, "off") > 0


def test_the_newest_commits_are_lost_without_a_sync_a_commit(tmp_path: Path) -> None:
    """With synchronous=NORMAL the log is synced at checkpoints only, and the harness sees the loss."""
    assert rows_lost(tmp_path, "normal") > 0


def test_synced_commits_survive(tmp_path: Path) -> None:
    """With synchronous=FULL no power loss, at any call and any seed, takes an acknowledged row."""
    assert rows_lost(tmp_path, "full") == 0


@pytest.mark.parametrize(("error", "expected"), [(full, apsw.FullError), (broken, apsw.IOError)])
def test_every_call_can_be_refused(error: Callable[[], apsw.Error], expected: type[apsw.Error], tmp_path: Path) -> None:
    """A refusal at any write, sync or truncation reaches the caller, unless it falls on the checkpoint of the closing."""
    with Disk("counted") as disk:
        write_rows(tmp_path / "counted.db", disk.name, "full", lambda: None)
        calls = len(disk.calls)
        before_close = max(index for index, entry in enumerate(disk.journal) if entry.name.endswith("-wal") and entry.kind == "write")
        safe = sum(entry.kind in ("write", "truncate", "sync") for entry in disk.journal[:before_close])
    raised = 0
    for number in range(calls):
        path = tmp_path / f"{number}.db"
        done: list[str] = []
        with Disk("refusing", Fault(number, error)) as disk:
            try:
                write_rows(path, disk.name, "full", lambda rows=done: rows.append("row"))
            except expected:
                raised += 1
            assert disk.refused == 1
        assert rows_are_whole(path, len(done))
    assert raised >= safe


def test_a_dead_disk_stays_dead(tmp_path: Path) -> None:
    """From a lasting fault on nothing is read or written any more."""
    with Disk("dying", Fault(20, broken, lasting=True)) as disk:
        with pytest.raises(apsw.IOError):
            write_rows(tmp_path / "rows.db", disk.name, "full", lambda: None)
        assert len(disk.calls) == 21
        with pytest.raises((apsw.IOError, apsw.CantOpenError)):
            apsw.Connection(str(tmp_path / "rows.db"), vfs=disk.name).execute("SELECT * FROM row")


def test_torn_writes_keep_whole_sectors() -> None:
    """A torn write leaves each sector new or old, and somewhere among the seeds both in one write."""
    image = DiskImage()
    for entry in (
        Entry("create", 1, "f"),
        Entry("write", 1, "f", 0, b"a" * 2048),
        Entry("sync", 1, "f"),
        Entry("sync folder", 0, ""),
        Entry("write", 1, "f", 256, b"b" * 1536),
    ):
        image.feed(entry)
    mixed = 0
    for seed in range(50):
        content = image.after_power_loss(seed)["f"]
        assert content[:256] == b"a" * 256
        assert content[1792:] == b"a" * 256
        assert all(len(set(content[start:stop])) == 1 for start, stop in ((256, 512), (512, 1024), (1024, 1536), (1536, 1792)))
        mixed += len(set(content[256:1792])) == 2
    assert mixed


def test_what_a_failed_sync_left_is_never_vouched_for() -> None:
    """A later sync does not save what was pending when a sync failed, and an old doubtful write never covers a newer sure one."""
    image = DiskImage()
    for entry in (
        Entry("create", 1, "f"),
        Entry("sync folder", 0, ""),
        Entry("write", 1, "f", 0, b"old"),
        Entry("sync failed", 1, "f"),
        Entry("write", 1, "f", 3, b"new"),
        Entry("sync", 1, "f"),
    ):
        image.feed(entry)
    assert {image.after_power_loss(seed)["f"] for seed in range(20)} == {b"\0\0\0new", b"oldnew"}
