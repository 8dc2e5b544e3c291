"""kill -9 at every step of enqueueing and shipping: what was acknowledged is shipped by the next process, once and in order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event, op

SCENARIO = """
import asyncio, os, signal, sys, threading
import perdure
from perdure import Event, op
from perdure.engine.spool import file as spool_file

FOLDER, OPS = sys.argv[1], sys.argv[2] == "ops"
SESSIONS, ENTRIES = 2, 4


class Steps:
    def __init__(self, last):
        self.last, self.count, self.lock = last, 0, threading.Lock()

    def __call__(self):
        with self.lock:
            self.count += 1
            if self.count == self.last:
                os.kill(os.getpid(), signal.SIGKILL)


def instrument(step):
    # Before each transaction of the spool, after its statements, and after its commit.
    write, commit = spool_file._Writer.write, spool_file._Writer._commit

    def counted_commit(writer):
        step()
        commit(writer)
        step()

    def counted_write(writer, steps):
        step()
        return write(writer, steps)

    spool_file._Writer.write, spool_file._Writer._commit = counted_write, counted_commit


async def scenario(place, step):
    acknowledged = os.open(f"{place}/acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    async with perdure.open(f"sqlite:///{place}/store.db", spool=f"sqlite:///{place}/spool.db") as store:
        backend = store._core.backend
        append, heads = backend.append, backend.heads

        async def counted_append(appends):
            step()
            outcomes = await append(appends)
            step()
            return outcomes

        async def counted_heads(sessions):
            step()
            return await heads(sessions)

        backend.append, backend.heads = counted_append, counted_heads
        for number in range(ENTRIES):
            for session in range(SESSIONS):
                event = Event("step", number, (op.add("/n", 1),) if OPS else ())
                await store.enqueue(f"s{session}", event, key=f"k{number}" if number % 2 else None)
                os.write(acknowledged, f"s{session} {number}\\n".encode())
        assert (await store.flush()).entries == 0
    os.close(acknowledged)


for last in range(1, 1000):
    place = f"{FOLDER}/{last}"
    os.mkdir(place)
    child = os.fork()
    if not child:
        signal.alarm(120)
        step = Steps(last)
        instrument(step)
        asyncio.run(scenario(place, step))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status == 0:
        break
    assert status == signal.SIGKILL, status
print(last)
"""
LEAST_STEPS = 30
"""Fewer steps would mean that the scenario ends before it ships."""


async def steps_of(store: perdure.Store, session: str) -> list[Any]:
    try:
        return [event.data async for commit in store.history(session) for event in commit.events]
    except perdure.NotFound:
        return []


@pytest.mark.timeout(280)
@pytest.mark.parametrize("kind", ["ops", "events"])
async def test_kill_at_every_step(kind: str, tmp_path: Path) -> None:
    """After a kill at any step the next process ships all that was acknowledged: each entry once, in order, and at most one besides."""
    done = subprocess.run([sys.executable, "-c", SCENARIO, str(tmp_path), kind], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    count = int(done.stdout)
    assert count > LEAST_STEPS
    for last in range(1, count + 1):
        place = tmp_path / str(last)
        file = place / "acknowledged"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        async with perdure.open(f"sqlite:///{place}/store.db", spool=f"sqlite:///{place}/spool.db") as store:
            assert (await store.flush()).entries == 0, last
            for session in ("s0", "s1"):
                acknowledged = [int(number) for name, number in lines if name == session]
                found = await steps_of(store, session)
                assert found == list(range(len(found))), (last, session)
                assert len(acknowledged) <= len(found) <= len(acknowledged) + 1, (last, session)
                if found and kind == "ops":
                    assert (await store.read(session)).state == {"n": len(found)}
                if len(found) > 1:
                    repeated = Event("step", 1, (op.add("/n", 1),) if kind == "ops" else ())
                    assert (await (await store.enqueue(session, repeated, key="k1")).receipt()).version == 2
                    assert await steps_of(store, session) == found
