"""The power fails after every write, truncation and sync: what was acknowledged is there, whole, and what was under
way can be sent again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import perdure
from perdure import Event, op
from tests.support.crash.disk_image import DiskImage, lay_out
from tests.support.crash.recording import Heads, Moment, Recording, heads, record
from tests.support.crash.workload import LIFE, SESSIONS, opening

SHARDS = 4
SEEDS = 2
"""What is left of the unsynced is chosen this often at each call, by seeds that follow from the call's number."""


@pytest.mark.parametrize("shard", range(SHARDS))
async def test_power_loss_at_every_call(shard: int, tmp_path: Path) -> None:
    """At every call, whatever the disk dropped or tore: acknowledged commits with their hashes, at most the one under way besides."""

    async def run() -> int:
        live, found = tmp_path / "live", tmp_path / "found"
        live.mkdir()
        recording = await record(live / "store.db", f"recorded-{shard}", LIFE)
        image, seen, checked = DiskImage(), set(), 0
        for position, entry in enumerate(recording.journal, 1):
            image.feed(entry)
            if position % SHARDS != shard:
                continue
            for seed in range(SEEDS):
                contents = image.after_power_loss(position * 100 + seed)
                identity = hashlib.sha256(repr((position >= recording.opened, at(recording, position)[2], contents)).encode()).digest()
                if identity in seen:
                    continue
                seen.add(identity)
                lay_out(contents, found)
                try:
                    await check(recording, position, found / "store.db")
                except BaseException as error:
                    error.add_note(
                        f"power lost after call {position} of {len(recording.journal)} ({entry[:4]}), seed {position * 100 + seed}"
                    )
                    raise
                checked += 1
        return checked

    assert await run() > 50


def at(recording: Recording, position: int) -> tuple[Moment | None, Moment | None, int]:
    """The last step acknowledged at this length of the journal, the one under way, and a number that tells such places apart."""
    last: Moment | None = None
    number = 0
    for moment in recording.moments:
        if moment.begin >= position:
            break
        if moment.end > position:
            return last, moment, 2 * number + 1
        last, number = moment, number + 1
    return last, None, 2 * number


async def check(recording: Recording, position: int, path: Path) -> None:
    """Open what is left and hold it against the recording."""
    last, under_way, _ = at(recording, position)
    least: Heads = last.heads if last else {}
    most: Heads = under_way.heads if under_way else least
    async with opening(str(path), seed=1_000_000 + position) as store:
        if position >= recording.opened:
            assert store.id == recording.store_id
        found = await heads(store)
        for session in SESSIONS:
            check_head(recording, session, found, least, most)
        for session, link in found.items():
            await check_content(recording, store, session, link.version)
        live = sorted(session for session, link in found.items() if (session, link.version) in recording.states)
        assert [info.session async for info in store.list()] == live
        await send_again(recording, store, last, under_way)
        if position >= recording.opened:
            await store.append("after", Event("after", None, (op.add("/n", 1),)))
        await heads(store)


def check_head(recording: Recording, session: str, found: Heads, least: Heads, most: Heads) -> None:
    if session not in found:
        assert session not in least, f"{session} is lost"
        return
    version, hash = found[session]
    assert session in most, f"{session} came from nowhere"
    assert version >= (least[session].version if session in least else 1), f"{session} lost acknowledged commits"
    assert version <= most[session].version, f"{session} has more than was sent"
    assert recording.hashes[session, version] == hash


async def check_content(recording: Recording, store: perdure.Store, session: str, version: int) -> None:
    """Every commit has the hash that it had, and the state is the one of that version; a deleted session stays deleted."""
    if (session, version) not in recording.states:
        with pytest.raises(perdure.Deleted):
            await store.read(session)
        return
    view = await store.read(session)
    assert (view.version, view.state) == (version, recording.states[session, version])
    chain = [(commit.version, commit.hash) async for commit in store.history(session, include_deleted=True)]
    assert [number for number, _ in chain] == list(range(1, version + 1))
    assert all(recording.hashes[session, number] == hash for number, hash in chain if (session, number) in recording.hashes)


async def send_again(recording: Recording, store: perdure.Store, last: Moment | None, under_way: Moment | None) -> None:
    """The caller's retry: of what was under way, twice, and of what was acknowledged last: it happens once."""
    if last is not None and last.step.keyed:
        for session, receipt in (await last.step.run(store)).items():
            first = last.receipts[session]
            assert receipt is not None and first is not None and receipt.duplicate
            assert (receipt.version, receipt.hash) == (first.version, first.hash)
    if under_way is None or not under_way.step.repeatable:
        return
    receipts = await under_way.step.run(store)
    for session, receipt in (await under_way.step.run(store)).items():
        first = receipts[session]
        assert receipt is not None and first is not None
        assert not under_way.step.keyed or (receipt.duplicate and (receipt.version, receipt.hash) == (first.version, first.hash))
    for session, link in under_way.heads.items():
        state = recording.states.get((session, link.version))
        if state is not None:
            assert (await store.read(session)).state == state
        else:
            with pytest.raises(perdure.Deleted):
                await store.read(session)


async def test_buffered_commits_can_be_lost_but_never_torn(tmp_path: Path) -> None:
    """Written with less durability on request, the newest commits may be lost to a power loss, and the harness sees that; what is left
    of each session is a whole beginning of it."""

    async def run() -> int:
        live, found = tmp_path / "live", tmp_path / "found"
        live.mkdir()
        recording = await record(live / "store.db", "buffered", LIFE, durability="buffered")
        image, lost = DiskImage(), 0
        for position, entry in enumerate(recording.journal, 1):
            image.feed(entry)
            last, _, _ = at(recording, position)
            if position < recording.opened or position % 3:
                continue
            lay_out(image.after_power_loss(position), found)
            async with opening(str(found / "store.db"), seed=1_000) as store:
                for session, link in (await heads(store)).items():
                    assert recording.hashes[session, link.version] == link.hash
                    lost += last is not None and session in last.heads and link.version < last.heads[session].version
        return lost

    assert await run() > 0
