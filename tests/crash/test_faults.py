"""A full disk and a failing one, met at every write, truncation and sync: an error that says what is known, never a
wrong acknowledgement."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

import perdure
from perdure import Event
from tests.support.crash.disk import Disk, Fault, broken, full
from tests.support.crash.disk_image import DiskImage, lay_out
from tests.support.crash.recording import Moment, Recording, heads, record
from tests.support.crash.workload import CHECKPOINT, LIFE, REOPENING, Receipts, checkpoint, opening

SHARDS = 6
Acknowledged = set[tuple[str, int, bytes]]


class Witness:
    """Lives a life on a disk with a fault, sends again what failed, and notes what was acknowledged."""

    def __init__(self, path: Path, disk: Disk, recording: Recording) -> None:
        self.path, self.disk, self.recording = path, disk, recording
        self.acknowledged: Acknowledged = set()
        self.errors: list[perdure.Error] = []
        self._seed = 0
        self._store: Any = None

    async def live(self) -> None:
        await self._open()
        for moment in self.recording.moments:
            await self._step(moment)
        self.before_close = len(self.disk.journal)
        await self._store.close()

    async def _open(self) -> None:
        self._seed += 1
        try:
            self._store = await opening(str(self.path), self.disk.name, self._seed)
        except (perdure.Unavailable, perdure.Unknown) as error:
            self.errors.append(error)
            self._store = await opening(str(self.path), self.disk.name, self._seed + 100)

    async def _step(self, moment: Moment) -> None:
        step = moment.step
        if step is REOPENING:
            await self._store.close()
            await self._open()
        elif step is CHECKPOINT:
            with contextlib.suppress(apsw.FullError, apsw.IOError):  # another program's trouble
                checkpoint(str(self.path), self.disk.name, apsw.SQLITE_CHECKPOINT_TRUNCATE)
        try:
            receipts = await step.run(self._store)
        except (perdure.Unavailable, perdure.Unknown) as error:
            self.errors.append(error)
            receipts = await self._send_again(moment, error)
        for session, receipt in receipts.items():
            assert receipt is not None
            assert receipt.durability is perdure.Durability.local
            self.acknowledged.add((session, receipt.version, receipt.hash))

    async def _send_again(self, moment: Moment, error: perdure.Error) -> Receipts:
        step = moment.step
        if not step.repeatable and moment.heads.keys() & await heads(self._store):
            return {}
        receipts = await step.run(self._store)
        if isinstance(error, perdure.Unavailable) and step.alone:  # It said that nothing was written.
            for session, receipt in receipts.items():
                assert receipt is not None
                assert not receipt.duplicate
                assert receipt.version == moment.heads[session].version
        return receipts


def stored(path: Path) -> Acknowledged:
    """Every commit in the file, deleted sessions' too."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        assert connection.pragma("integrity_check") == "ok"
        return set(connection.execute("SELECT session.id, version, hash FROM log JOIN session USING (n)"))
    finally:
        connection.close()


async def check_whole(path: Path, disk: Disk, recording: Recording) -> None:
    """Every session verifies and is where the undisturbed life left it."""
    async with opening(str(path), disk.name, seed=10_000) as store:
        found = await heads(store)
        for session, link in recording.moments[-1].heads.items():
            state = recording.states.get((session, link.version))
            if state is None:
                with pytest.raises(perdure.Deleted):
                    await store.read(session)
            else:
                assert (await store.read(session)).state == state
        assert set(found) == set(recording.moments[-1].heads)
        keys = [commit.key async for commit in store.history("a") if commit.key is not None]
        assert len(keys) == len(set(keys))
        await store.append("a", Event("after"))


async def live_with(fault: Fault, folder: Path, recording: Recording) -> int:
    """One life with one fault; how often it struck."""
    live, found = folder / "live", folder / "found"
    lay_out({}, live)
    with Disk(f"faulty-{folder.name}", fault) as disk:
        witness = Witness(live / "store.db", disk, recording)
        try:
            await witness.live()
            disk.fault = None
            await check_whole(witness.path, disk, recording)
            assert witness.acknowledged <= stored(witness.path)
            image = DiskImage()
            for entry in disk.journal[: witness.before_close]:
                image.feed(entry)
            lay_out(image.after_power_loss(fault.number), found)
            assert witness.acknowledged <= stored(found / "store.db")
        except BaseException as failure:
            failure.add_note(f"{fault} on {disk.calls[fault.number : fault.number + 1]}, met as {witness.errors!r}")
            raise
        return disk.refused


@pytest.mark.parametrize("error", [full, broken])
@pytest.mark.parametrize("shard", range(SHARDS))
async def test_a_fault_at_every_call(shard: int, error: Callable[[], apsw.Error], tmp_path: Path) -> None:
    """One refused call, wherever it falls: `Unavailable` wrote nothing, `Unknown` may have, both can be sent again, and nothing
    acknowledged is lost, not even to a power loss behind a failed sync."""
    (tmp_path / "plain").mkdir()
    recording = await record(tmp_path / "plain" / "store.db", f"plain-{tmp_path.name}", LIFE)
    number = shard
    while await live_with(Fault(number, error), tmp_path, recording):
        number += SHARDS
    assert number > 150
