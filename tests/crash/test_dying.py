"""The process dies at a call and another goes on with the same file: what the second one acknowledges survives a power loss too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event
from tests.crash.test_faults import Acknowledged, stored
from tests.support.crash.disk import Disk, Fault, broken
from tests.support.crash.disk_image import DiskImage, lay_out
from tests.support.crash.recording import Moment, Recording, record
from tests.support.crash.workload import CHECKPOINT, LIFE, REOPENING, Receipts, opening

SHARDS = 4
FAILURES = (perdure.Unavailable, perdure.Unknown, perdure.Invalid)
"""What a call on a dead disk may say; `Invalid` is that the file cannot be opened."""
STEPS = tuple(step for step in LIFE if step not in (CHECKPOINT, REOPENING))


def add(acknowledged: Acknowledged, receipts: Receipts) -> None:
    for session, receipt in receipts.items():
        assert receipt is not None
        acknowledged.add((session, receipt.version, receipt.hash))


async def live_until_death(store: Any, recording: Recording, acknowledged: Acknowledged) -> Moment | None:
    """The step on which the disk died; none if it outlived them."""
    for moment in recording.moments:
        try:
            add(acknowledged, await moment.step.run(store))
        except FAILURES:
            return moment
    return None


async def check_dead(store: Any, version: int) -> None:
    """Nothing is acknowledged any more; a read is right or refused."""
    for session in ("a", "new"):
        with pytest.raises(FAILURES):
            await store.append(session, Event("late"))
    with pytest.raises(FAILURES):
        async with store.edit("new") as draft:
            draft.state["late"] = True
    try:
        view = await store.read("a")
    except (*FAILURES, perdure.NotFound):
        return
    assert view.version >= version


async def die_and_go_on(number: int, folder: Path, recording: Recording) -> bool:
    """Die at the call of this number; whether it came to that."""
    path = folder / "live" / "store.db"
    lay_out({}, path.parent)
    acknowledged: Acknowledged = set()
    with Disk(f"dying-{folder.name}", Fault(number, broken, lasting=True)) as disk:
        died: Moment | None = None
        try:
            store = await opening(str(path), disk.name)
        except FAILURES:
            pass
        else:
            died = await live_until_death(store, recording, acknowledged)
            if died is not None:
                await check_dead(store, max((version for session, version, _ in acknowledged if session == "a"), default=0))
            await store.close()
        disk.dead, disk.fault = False, None
        async with opening(str(path), disk.name, seed=2) as store:
            if died is not None and died.step.repeatable:
                add(acknowledged, await died.step.run(store))
            else:
                add(acknowledged, {"a": await store.append("a", Event("second life"), key="second life")})
            image = DiskImage()
            for entry in disk.journal:
                image.feed(entry)
            for seed in range(3):
                lay_out(image.after_power_loss(number * 10 + seed), folder / "found")
                assert acknowledged <= stored(folder / "found" / "store.db"), f"{disk.calls[number : number + 1]} {number}, seed {seed}"
            for session in {session for session, _, _ in acknowledged}:
                await store.verify(session)
        assert acknowledged <= stored(path)
        return bool(disk.refused)


@pytest.mark.parametrize("shard", range(SHARDS))
async def test_death_at_every_call(shard: int, tmp_path: Path) -> None:
    """From any call on the disk refuses everything: nothing more is acknowledged and the store closes. A second process sends the lost call
    again, and its receipt holds even if what it found had never been synced."""
    (tmp_path / "plain").mkdir()
    recording = await record(tmp_path / "plain" / "store.db", f"plain-{tmp_path.name}", STEPS)
    number = shard
    while await die_and_go_on(number, tmp_path, recording):
        number += SHARDS
    assert number > 100
