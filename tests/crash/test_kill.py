"""kill -9 at any moment: every acknowledged commit is there, the chain verifies, and at most the one on its way is there besides."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import perdure
from perdure import Event, op

WRITER = """
import asyncio, sys
import perdure
from perdure import Event, op

async def main(url):
    async with perdure.open(url) as store:
        async def session(name):
            for number in range(1_000_000):
                if number % 3 == 2:
                    async with store.edit(name) as draft:
                        draft.state.setdefault("items", []).append(number)
                        draft.add("/count", 1)
                    receipt = draft.receipt
                else:
                    receipt = await store.append(name, Event("step", {"n": number}, (op.add("/count", 1),)), key=f"k{number}")
                print(name, receipt.version, receipt.hash.hex(), number, flush=True)
        await asyncio.gather(*[session(f"s{number}") for number in range(4)])

asyncio.run(main(sys.argv[1]))
"""


def kill_after(url: str, seconds: float) -> list[tuple[str, int, str, int]]:
    """Run the writer, kill it some time after every session has a commit, and return what it had acknowledged: session, version, hash,
    step."""
    with subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while len({line.split()[0] for line in lines}) < 4:
            lines.append(process.stdout.readline())
            assert lines[-1], "The writer ended by itself."
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        lines += process.stdout
    return [(name, int(version), hash, int(step)) for line in lines if line.endswith("\n") for name, version, hash, step in [line.split()]]


async def test_nothing_acknowledged_is_lost_to_kill_9(tmp_path: Path) -> None:
    """After each of several kills at seeded moments all acknowledged commits are found with their hashes, in a chain that verifies."""
    url = f"sqlite:///{tmp_path}/store.db"
    moments = random.Random(20_26)
    acknowledged: dict[str, dict[int, str]] = {f"s{number}": {} for number in range(4)}

    async def check() -> None:
        async with perdure.open(url) as store:
            for name, expected in acknowledged.items():
                found = {commit.version: commit.hash.hex() async for commit in store.history(name)}
                assert expected.items() <= found.items()
                assert sorted(found) == list(range(1, len(found) + 1))
                assert len(found) <= max(expected) + 1
                proof = await store.verify(name)
                assert proof.commits == len(found)
                acknowledged[name] = found

    for _ in range(6):
        for name, version, hash, _step in kill_after(url, moments.uniform(0.05, 0.4)):
            acknowledged[name][version] = hash
        await check()


async def test_a_retry_after_kill_9_applies_once(tmp_path: Path) -> None:
    """Whether or not the killed writer's last keyed append had arrived, sending it again leaves exactly one."""
    url = f"sqlite:///{tmp_path}/store.db"
    acknowledged = kill_after(url, 0.3)
    last = max(step for name, _, _, step in acknowledged if name == "s0" and step % 3 != 2)
    async with perdure.open(url) as store:
        for step in (last, last + 1 if (last + 1) % 3 != 2 else last + 2):
            receipt = await store.append("s0", Event("step", {"n": step}, (op.add("/count", 1),)), key=f"k{step}")
            again = await store.append("s0", Event("step", {"n": step}, (op.add("/count", 1),)), key=f"k{step}")
            assert again.duplicate
            assert (again.version, again.hash) == (receipt.version, receipt.hash)
        steps = [event.data["n"] async for commit in store.history("s0") for event in commit.events if event.type == "step"]
        assert len(steps) == len(set(steps))
