"""Real agent transcripts, message by message: killed in mid-write, resumed, and read back equal from both ends and by range."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event

SOURCE = Path(__file__).parents[3] / "shared/data/airline.jsonl.gz"
KILLED = 40

pytestmark = pytest.mark.skipif(
    not SOURCE.exists(), reason="the transcripts are not part of the repository: ../shared/data/airline.jsonl.gz"
)

WRITER = """
import gzip, json, sys
import perdure.sync
from perdure import Event

url, source, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with gzip.open(source) as lines, perdure.sync.open(url) as store:
    for line in list(lines)[:count]:
        item = json.loads(line)
        for number, message in enumerate(item["messages"]):
            store.append(item["session"], Event("message", message), key=f"m{number}")
            print("stored", flush=True)
"""


def transcripts() -> dict[str, list[Any]]:
    with gzip.open(SOURCE) as lines:
        return {item["session"]: item["messages"] for item in map(json.loads, lines)}


async def messages(store: perdure.Store, session: str, **options: Any) -> list[Any]:
    return [event.data async for commit in store.history(session, **options) for event in commit.events]


async def test_all_transcripts_read_back_equal(tmp_path: Path) -> None:
    """200 sessions written at once are read back equal forwards, backwards, by range and by type, after a reopening."""
    stored = transcripts()
    url = f"sqlite:///{tmp_path}/store.db"

    async def write() -> None:
        async with perdure.open(url) as store:

            async def session(name: str) -> None:
                for item in stored[name]:
                    await store.append(name, Event("message", item))

            await asyncio.gather(*[session(name) for name in stored])

    async def read() -> None:
        async with perdure.open(url) as store:
            assert [info.session async for info in store.list()] == sorted(stored)
            for name, expected in stored.items():
                assert await messages(store, name) == expected
                assert await messages(store, name, newest_first=True) == expected[::-1]
                assert await messages(store, name, after=2, before=6) == expected[2:5]
                assert await messages(store, name, types=["message"], newest_first=True, limit=3) == expected[:-4:-1]
                assert (await store.verify(name)).commits == len(expected)

    await write()
    await read()


def kill_after(command: list[str], lines: int) -> int:
    """Run the writer, kill it when it has acknowledged so many messages, and return how many it had in the end."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        early = [process.stdout.readline() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        return sum(line == "stored\n" for line in [*early, *process.stdout])


async def test_a_writer_killed_in_mid_transcript_goes_on(tmp_path: Path) -> None:
    """Killed again and again, a writer leaves what it acknowledged and at most one message more; one that sends everything anew with its
    keys leaves each message exactly once, in order, from both ends and by range."""
    url = f"sqlite:///{tmp_path}/store.db"
    wanted = dict(list(transcripts().items())[:KILLED])
    command = [sys.executable, "-c", WRITER, url, str(SOURCE), str(KILLED)]

    async def stored() -> list[Any]:
        async with perdure.open(url) as store:
            found = []
            for name in wanted:
                try:
                    found += await messages(store, name)
                except perdure.NotFound:
                    break
                await store.verify(name)
            return found

    everything = [item for session in wanted.values() for item in session]
    before = 0
    for lines in (60, 300, 700):
        acknowledged = kill_after(command, lines)
        found = await stored()
        assert found == everything[: len(found)]
        assert acknowledged <= len(found) <= max(before, acknowledged + 1)
        before = len(found)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    async with perdure.open(url) as store:
        for name, expected in wanted.items():
            assert await messages(store, name) == expected
            assert await messages(store, name, newest_first=True) == expected[::-1]
            assert await messages(store, name, after=3, before=9) == expected[3:8]
            assert (await store.verify(name)).commits == len(expected)
