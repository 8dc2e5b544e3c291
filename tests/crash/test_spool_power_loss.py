"""The power fails after every write, truncation and sync of a spool: what was acknowledged is in the file, whole and in order."""

from __future__ import annotations

from pathlib import Path

import pytest

import perdure
from perdure import Event, op
from perdure.concurrency.replies import run_blocking
from perdure.engine.spool import entries
from perdure.engine.spool.file import SpoolFile
from tests.support.crash.disk import Disk, Entry, Fault, broken, full
from tests.support.crash.disk_image import DiskImage, lay_out
from tests.support.engine.flaky import Flaky

ENTRIES = 24
SEEDS = 2
"""What is left of the unsynced is chosen this often at each call."""


async def live(path: Path, name: str, *, away: bool) -> tuple[list[Entry], list[int], int]:
    """Enqueue, with the store away or there; the journal, its length at each acknowledgement, and when the store was open."""
    with Disk(name) as disk:
        async with perdure.open("memory:", spool=f"sqlite:///{path}?vfs={name}") as store:
            Flaky(store).away = away
            opened = len(disk.journal)
            acknowledged = []
            for number in range(ENTRIES):
                await store.enqueue(f"s{number % 3}", Event("step", number, (op.add("/n", 1),)), key=f"k{number}")
                acknowledged.append(len(disk.journal))
            await store.flush(timeout=0 if away else 60)
        return list(disk.journal), acknowledged, opened


def kept(path: Path) -> list[int]:
    """The numbers of the entries that a spool has, or has the outcome of, in order."""
    file = SpoolFile(f"sqlite:///{path}")
    try:
        run_blocking(file.open(None, create=False))
        found = [(entry.n, entry.key) for entry in run_blocking(file.read(lambda connection: entries.page(connection, 0, 1000)))]
        assert all(entry.sound for entry in run_blocking(file.read(lambda connection: entries.page(connection, 0, 1000))))
        found += run_blocking(file.read(lambda connection: connection.execute("SELECT n, key FROM outcome").fetchall()))
    finally:
        file.end()
    return [int(key[1:]) for _, key in sorted(found)]


@pytest.mark.parametrize("away", [True, False], ids=["away", "shipping"])
async def test_power_loss_at_every_call(away: bool, tmp_path: Path) -> None:
    """At every call, whatever the disk dropped or tore: all that was acknowledged is there, at most what was under way besides."""
    (tmp_path / "live").mkdir()
    journal, acknowledged, opened = await live(tmp_path / "live" / "spool.db", f"spool-{away}", away=away)
    image, checked = DiskImage(), 0
    for position, entry in enumerate(journal, 1):
        image.feed(entry)
        if position < opened:
            continue
        least = sum(end <= position for end in acknowledged)
        for seed in range(SEEDS):
            lay_out(image.after_power_loss(position * 100 + seed), tmp_path / "found")
            found = kept(tmp_path / "found" / "spool.db")
            assert found == list(range(len(found))), (position, seed)
            assert least <= len(found) <= least + 1, (position, seed, least)
            checked += 1
    assert checked > 100


@pytest.mark.parametrize("error", [full, broken], ids=["full", "broken"])
async def test_a_fault_at_every_call(error: object, tmp_path: Path) -> None:
    """A disk that is full or fails, at any one call: the enqueue that met it is refused, or acknowledged and there; the next ones go on."""
    number, met = 0, True
    while met:
        folder = tmp_path / str(number)
        folder.mkdir()
        with Disk(f"fault-{folder.name}-{getattr(error, '__name__', '')}") as disk:
            async with perdure.open("memory:", spool=f"sqlite:///{folder}/spool.db?vfs={disk.name}") as store:
                Flaky(store).away = True
                disk.fault = Fault(len(disk.calls) + number, error)  # type: ignore[arg-type]
                acknowledged = []
                for step in range(4):
                    try:
                        await store.enqueue("s", Event("step", step), key=f"k{step}")
                    except (perdure.Unavailable, perdure.Unknown, perdure.Corrupt, perdure.Invalid):
                        continue
                    acknowledged.append(step)
                met = bool(disk.refused)
                assert len(acknowledged) >= 3
        found = kept(folder / "spool.db")
        assert found == sorted(found) and set(acknowledged) <= set(found)
        number += 1
    assert number > 10
