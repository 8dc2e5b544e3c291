"""The archive: how small real transcripts become, and how fast they go there and come back."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
from _harness import disk_bytes, folder, message, small, table
from disk import transcripts

import perdure
from perdure.codec import pack
from perdure.codec.codec import Codec
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.model.record import Record


def opened(place: Path) -> perdure.Opening:
    """A store with an archive beside it."""
    return perdure.open(f"sqlite:///{place}/store.db", archive=f"file://{place.resolve()}/archive")


async def archived_bytes(place: Path) -> tuple[int, int, int, int]:
    """Bytes of all segments, of the messages' JSON, of the commits' JSON as `perdure log` prints it, and of the store before."""
    plain = commits = segments = 0
    stored = transcripts()
    async with opened(place) as store:

        async def session(name: str, messages: list[Any]) -> None:
            for item in messages:
                await store.append(name, Event("message", item))

        await asyncio.gather(*[session(name, messages) for name, messages in stored.items()])
        live = disk_bytes(place)
        for name, messages in stored.items():
            plain += sum(len(msgspec.json.encode(item)) for item in messages)
            commits += sum([len(msgspec.json.encode(commit.to_dict())) + 1 async for commit in store.history(name)])
            segments += (await store.archive(name)).segment_bytes
    return segments, plain, commits, live


def pack_speed() -> tuple[float, float]:
    """MB of JSON a second of processor time, into a segment and out of it, with every record checked. One large session."""
    codec, session, records = Codec(), SessionKey("default", "s"), list[Record]()
    plain, head = 0, None
    for number, item in enumerate(item for messages in transcripts().values() for item in messages):
        plain += len(msgspec.json.encode(item))
        records.append(codec.propose(session, (Event("message", item),), id=number.to_bytes(16, "big")).finish(head, number))
        head = records[-1].head
    start = time.process_time()
    out = bytearray()
    writer = pack.PackWriter(out.extend)
    writer.begin(session)
    for record in records:
        writer.add(record)
    writer.finish()
    between = time.process_time()
    data = bytes(out)
    (packed,) = pack.check_pack(data).sessions
    count = sum(len(pack.read_records(session, frame, data[frame.start : frame.end])) for frame in packed.frames)
    assert count == len(records)
    return plain / (between - start) / 1e6, plain / (time.process_time() - between) / 1e6


async def archive_speed(place: Path) -> tuple[float, float]:
    """MB of JSON a second, from `archive` to its return and from `restore` and a whole history: fsync, read back and proof included."""
    size, count = 0, 500 if small() else 20_000
    async with opened(place) as store:
        for start in range(0, count, 50):
            items = [message("user", number) for number in range(start, start + 50)]
            size += sum(len(msgspec.json.encode(item)) for item in items)
            await store.append("s", *[Event("message", item) for item in items])
        start_at = time.perf_counter()
        await store.archive("s")
        archived = time.perf_counter()
        await store.restore("s")
        seen = [commit.version async for commit in store.history("s")]
        assert len(seen) > count / 50
        return size / (archived - start_at) / 1e6, size / (time.perf_counter() - archived) / 1e6


def archive() -> None:
    """Print what the archive does."""
    with folder() as place:
        segments, plain, commits, live = asyncio.run(archived_bytes(place))
    with folder() as place:
        there, back = asyncio.run(archive_speed(place))
    into, out = pack_speed()
    table(
        "Archived transcripts, a segment a session, a message a commit",
        [
            ("segments' bytes", "of", "ratio"),
            (f"{segments:,}", f"the messages' JSON, {plain:,}", f"{segments / plain:.3f}"),
            (f"{segments:,}", f"the commits' JSON, {commits:,}", f"{segments / commits:.3f}"),
            (f"{segments:,}", f"the live store, {live:,}", f"{segments / live:.3f}"),
        ],
    )
    table(
        "Speed, MB of JSON a second",
        [
            ("what", "MB/s"),
            ("into a segment, processor time", f"{into:.0f}"),
            ("out of a segment, processor time", f"{out:.0f}"),
            ("archive, 50 messages a commit", f"{there:.0f}"),
            ("restore and whole history", f"{back:.0f}"),
        ],
    )
