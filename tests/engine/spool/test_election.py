"""Several stores and processes share a spool: one ships, another takes over when it is gone, and each learns of its receipts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import perdure
import perdure.sync
from perdure import Event, op
from perdure.engine.spool.file import ShipperLock
from tests.engine.spool.conftest import until
from tests.engine.test_forked import in_child
from tests.support.engine.flaky import Flaky

ONE = Event("one", None, (op.add("/n", 1),))

CHILD = """
import sys, time
import perdure.sync
from perdure import Event, op

url, spool, name = sys.argv[1:]
with perdure.sync.open(url, spool=spool) as store:
    print("open", flush=True)
    for number in range(int(sys.stdin.readline())):
        store.enqueue("shared", Event("step", [name, number], (op.add("/n", 1),)), key=f"{name}-{number}")
        print(number, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


def child(url: str, spool: str, name: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, url, spool, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    return process


def say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


async def steps(store: perdure.Store) -> list[Any]:
    return [event.data async for commit in store.history("shared") for event in commit.events]


def test_the_lock_is_one_and_ends_with_its_process(tmp_path: Path) -> None:
    """Nobody takes it twice, in one process or in two; a child that was forked off does not keep it alive when its parent is killed."""
    path = str(tmp_path / "spool.db")
    first, second = ShipperLock(path), ShipperLock(path)
    assert first.take() and not second.take()
    first.release()
    assert second.take()
    second.release()
    holder = (
        "import os, sys, time; from perdure.engine.spool.file import ShipperLock\n"
        "lock = ShipperLock(sys.argv[1]); print(lock.take(), flush=True)\n"
        "child = os.fork()\n"
        "if child: print(child, flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", holder, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "True\n"
        grandchild = int(process.stdout.readline())
        try:
            assert not first.take()
            process.kill()
            process.wait()
            assert first.take()
            first.release()
        finally:
            os.kill(grandchild, signal.SIGKILL)


async def test_two_stores_and_one_shipper(url: str, spool: str) -> None:
    """What both enqueue is shipped by one of them, in order; each gets its receipts; when the one that ships is closed the other does."""
    first = await perdure.open(url, spool=spool)
    second = await perdure.open(url, spool=spool)
    ships, waits = Flaky(first), Flaky(second)
    for number in range(20):
        queued = await (first, second)[number % 2].enqueue("shared", Event("step", number))
    assert (await queued.receipt()).version == 20
    assert ships.appends >= 20  # The first one may be asked to look up what sessions begin with.
    assert waits.appends == 0
    await first.close()
    assert (await (await second.enqueue("shared", Event("step", 20))).receipt()).version == 21
    assert waits.appends == 1
    assert await steps(second) == list(range(21))
    await second.close()


async def test_a_direct_write_waits_for_what_another_process_ships(url: str, spool: str) -> None:
    """The queue of a session counts for all processes with the spool, whoever has enqueued and whoever ships."""
    first = await perdure.open(url, spool=spool)
    async with perdure.open(url, spool=spool) as second:
        flaky = Flaky(first)
        flaky.slow = 0.2
        await first.enqueue("shared", Event("step", "queued"))
        await second.append("shared", Event("step", "direct"))
        assert await steps(second) == ["queued", "direct"]
        flaky.slow = 0
        await first.close()


async def test_another_process_takes_over_from_one_that_was_killed(url: str, spool: str) -> None:
    """Three processes enqueue; those that were first are killed one after another, and the last ships what all of them have acknowledged:
    each process's entries once and in its order."""
    async with perdure.open(url, spool=spool) as mine:
        names = ("a", "b", "c")
    processes = {name: child(url, spool, name) for name in names}
    acknowledged = dict.fromkeys(names, 0)
    try:
        for process in processes.values():
            say(process, "100000")
        for name in names[:2]:
            process = processes[name]
            assert process.stdout is not None
            for _ in range(50):
                acknowledged[name] = int(process.stdout.readline())
            process.kill()
            process.wait()
            acknowledged[name] = max([acknowledged[name], *(int(line) for line in process.stdout if line.endswith("\n"))])
        assert processes["c"].stdout is not None
        for _ in range(50):
            acknowledged["c"] = int(processes["c"].stdout.readline())
        processes["c"].kill()
        acknowledged["c"] = max([acknowledged["c"], *(int(line) for line in processes["c"].stdout if line.endswith("\n"))])
        async with perdure.open(url, spool=spool) as mine:
            assert (await mine.flush(timeout=120)).entries == 0
            found = await steps(mine)
            for name in names:
                numbers = [number for who, number in found if who == name]
                assert numbers == list(range(len(numbers)))
                assert len(numbers) in (acknowledged[name] + 1, acknowledged[name] + 2)
            assert (await mine.read("shared")).state == {"n": len(found)}
            for name in names:
                assert (await mine.queued("shared", f"{name}-0").receipt()).version > 0
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                stream.close()


async def test_a_receipt_in_a_process_that_does_not_ship(url: str, spool: str) -> None:
    """A process asks by key for what another has enqueued and shipped, and for what the spool has forgotten by then."""
    async with perdure.open(url, spool=spool) as mine, perdure.open(url, spool=spool) as other:
        Flaky(mine).slow = 0.1
        queued = await mine.enqueue("shared", ONE)
        receipt = await other.queued("shared", queued.key).receipt()
        assert receipt == await queued.receipt()
        await mine._core.spool._file.write(lambda connection: connection.execute("DELETE FROM outcome"))  # type: ignore[union-attr]
        forgotten = await other.queued("shared", queued.key).receipt()
        assert (forgotten.version, forgotten.hash, forgotten.duplicate) == (receipt.version, receipt.hash, True)


@pytest.mark.filterwarnings("ignore")  # Newer Pythons warn of a fork beside threads, which is what this is about.
def test_a_forked_child_is_closed(url: str, spool: str) -> None:
    """In a child every call of a store with a spool is `Closed` at once, and the parent goes on shipping."""
    with perdure.sync.open(url, spool=spool) as store:
        queued = store.enqueue("s", ONE)
        queued.receipt()
        ways: list[Any] = [
            lambda: store.enqueue("s", ONE),
            queued.receipt,
            lambda: store.queued("s", "k"),
            lambda: store.flush(timeout=1),
            lambda: store.append("s", ONE),
            store.close,
        ]
        assert [in_child(way) for way in ways] == ["closed"] * len(ways)
        assert store.enqueue("s", ONE).receipt(timeout=60).version == 2


async def test_retry_and_drop_reach_the_shipper(url: str, spool: str) -> None:
    """What `perdure spool` changes in the file is taken up by the process that ships: parked entries follow in their order."""
    async with perdure.open(url, spool=spool) as store:
        await store.append("s", Event("begun", None, (op.set("/seat", "taken"),)))
        test = Event("booked", None, (op.test("/seat", "free"), op.set("/seat", "mine")))
        bad, later = await store.enqueue("s", test, key="bad"), await store.enqueue("s", Event("later"), key="later")
        with pytest.raises(perdure.Conflict):
            await bad.receipt()
        async with perdure.open(url) as other:
            await other.append("s", Event("freed", None, (op.set("/seat", "free"),)))
        run = [sys.executable, "-m", "perdure", "spool"]
        subprocess.run([*run, "retry", spool, "--key", "bad"], check=True, capture_output=True)
        assert (await bad.receipt(timeout=60)).version == 3
        assert (await later.receipt(timeout=60)).version == 4
        await store.enqueue("s", test, key="worse")
        await store.enqueue("s", Event("dropped"), key="dropped")
        kept = await store.enqueue("s", Event("kept"))

        async def refused() -> bool:
            return (await store.flush(timeout=0)).failed == 1

        await until(refused)
        subprocess.run([*run, "drop", spool, "--key", "dropped"], check=True, capture_output=True)
        subprocess.run([*run, "drop", spool, "--key", "worse"], check=True, capture_output=True)
        assert (await kept.receipt(timeout=60)).version == 5
        with pytest.raises(perdure.NotFound, match="was dropped"):
            await store.queued("s", "dropped").receipt()
