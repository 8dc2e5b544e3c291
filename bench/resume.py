"""Coming back: a cold open and the state of a session of 10,000 edits, against decoding one file; and what the import costs."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import msgspec
from _harness import folder, machine, small, table

import perdure

EDITS = 300 if small() else 10_000
ROUNDS = 3 if small() else 15


async def make(url: str, size: int) -> bytes:
    """A session of many edits whose state has about `size` bytes; the state's JSON."""
    keys = size // 200
    async with perdure.open(url) as store:
        for number in range(EDITS):
            async with store.edit("s") as draft:
                draft.state.setdefault("rows", {})[f"row{number % keys}"] = {"n": number, "text": os.urandom(80).hex()}
        return msgspec.json.encode((await store.read("s")).state)


async def resume(url: str) -> float:
    """Seconds from nothing to the state."""
    start = time.perf_counter()
    store = await perdure.open(url)
    (await store.read("s")).state  # noqa: B018 - the access decodes
    taken = time.perf_counter() - start
    await store.close()
    return taken


def decode(path: Path) -> float:
    """Seconds to read and decode one file."""
    start = time.perf_counter()
    msgspec.json.decode(path.read_bytes())
    return time.perf_counter() - start


def start_up(code: str) -> float:
    """Seconds of a fresh interpreter that runs this."""
    start = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # as installed: compiled once
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return time.perf_counter() - start


def main() -> None:
    """Print both tables."""
    machine()
    rows: list[tuple[str, ...]] = [("state", "resume ms", "one file ms", "ratio")]
    for size in (200_000, 1_000_000):
        with folder() as place:
            url, path = f"sqlite:///{place}/store.db", place / "state.json"
            path.write_bytes(asyncio.run(make(url, size)))
            ours, file = [], []
            for _ in range(ROUNDS):
                ours.append(asyncio.run(resume(url)))
                file.append(decode(path))
            mine, theirs = statistics.median(ours) * 1e3, statistics.median(file) * 1e3
            rows.append((f"{path.stat().st_size:,} bytes", f"{mine:.2f}", f"{theirs:.2f}", f"{mine / theirs:.1f}"))
    table(f"Resume after {EDITS:,} edits", rows)
    plain, ours = [], []
    for _ in range(ROUNDS):
        plain.append(start_up("import asyncio, sqlite3"))
        ours.append(start_up("import perdure"))
    more = (statistics.median(ours) - statistics.median(plain)) * 1e3
    table("Import", [("import perdure costs more than asyncio and sqlite3 by", "ms"), ("", f"{more:.0f}")])


if __name__ == "__main__":
    main()
