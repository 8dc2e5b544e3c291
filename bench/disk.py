"""Bytes on disk: real transcripts one message a commit, and what an edit of a 1 MB state writes."""

from __future__ import annotations

import asyncio
import gzip
import os
from pathlib import Path
from typing import Any

import msgspec
from _harness import folder, machine, message, small, table

import perdure
from perdure.model.events import Event

TRANSCRIPTS = Path(__file__).parent.parent.parent / "shared/data/airline.jsonl.gz"


def transcripts() -> dict[str, list[Any]]:
    """Real transcripts where they are there, else some of our own with their sizes."""
    if TRANSCRIPTS.exists():
        with gzip.open(TRANSCRIPTS) as lines:
            found = [msgspec.json.decode(line) for line in lines]
        return {item["session"]: item["messages"] for item in (found[:10] if small() else found)}
    return {f"made-{session}": [message("user", number) for number in range(26)] for session in range(10 if small() else 200)}


async def transcript_bytes(place: Path) -> tuple[int, int]:
    """Bytes of the closed store, and of the messages' JSON."""
    stored = transcripts()
    async with perdure.open(f"sqlite:///{place}/store.db") as store:

        async def session(name: str, messages: list[Any]) -> None:
            for item in messages:
                await store.append(name, Event("message", item))

        await asyncio.gather(*[session(name, messages) for name, messages in stored.items()])
    return (place / "store.db").stat().st_size, sum(len(msgspec.json.encode(item)) for messages in stored.values() for item in messages)


async def edit_bytes(place: Path) -> tuple[int, int, int]:
    """Bytes of records and snapshots after edits of a state of 1 MB, how many bytes were changed, and the state's size."""
    count, changed = (20, 0) if small() else (400, 0)
    async with perdure.open(f"sqlite:///{place}/store.db") as store:
        async with store.edit("s") as draft:
            draft.state["rows"] = {f"row{number}": {"text": os.urandom(90).hex()} for number in range(5_000)}
        size = len(msgspec.json.encode((await store.read("s")).state))
    before = (place / "store.db").stat().st_size
    async with perdure.open(f"sqlite:///{place}/store.db") as store:
        for number in range(count):
            async with store.edit("s") as draft:
                draft.state["rows"][f"row{number % 5_000}"]["text"] = text = os.urandom(90).hex()
                changed += len(text)
    return (place / "store.db").stat().st_size - before, changed, size


def main() -> None:
    """Print both."""
    machine()
    with folder() as place:
        stored, plain = asyncio.run(transcript_bytes(place))
    with folder() as place:
        written, changed, size = asyncio.run(edit_bytes(place))
    table(
        "Bytes",
        [
            ("what", "bytes", "of", "ratio"),
            ("transcripts, a message a commit, store closed", f"{stored:,}", f"their JSON, {plain:,}", f"{stored / plain:.2f}"),
            (f"growth by edits of a state of {size:,}", f"{written:,}", f"the values changed, {changed:,}", f"{written / changed:.2f}"),
        ],
    )


if __name__ == "__main__":
    main()
