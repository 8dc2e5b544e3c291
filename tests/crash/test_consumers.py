"""kill -9 of a consumer at any moment, while others write: nothing is lost, and effects with keys happen once and in order."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import perdure
from perdure import Event, ops
from perdure.engine.store import system_store

CONSUMER = """
import asyncio, sys
import perdure
from perdure import Event, ops

async def main(url):
    async with perdure.open(url) as store:
        effects = store.for_tenant("effects")

        async def index(changes):
            for change in changes:
                event = Event("did", {"session": change.session, "version": change.commit.version})
                receipt = await effects.append(f"of {change.session}", event, key=change.key("indexer"))
                print(change.session, change.commit.version, int(receipt.duplicate), flush=True)

        await ops.consume(store, "indexer", index, batch=7, ttl=3)

asyncio.run(main(sys.argv[1]))
"""


def kill_after(url: str, seconds: float) -> list[tuple[str, int, bool]]:
    """Run the consumer, kill it some time after its first effect, and return its effects: session, version, whether it was there before."""
    with subprocess.Popen([sys.executable, "-c", CONSUMER, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        assert lines[0], "The consumer ended by itself."
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        lines += process.stdout
    return [(name, int(version), bool(int(again))) for line in lines if line.endswith("\n") for name, version, again in [line.split()]]


async def test_effects_happen_once_through_kills(tmp_path: Path) -> None:
    """A consumer that is killed with -9 again and again, at seeded moments, goes on after its last checkpoint. In the end every commit had
    its effect, once and in order, though some commits were handled twice. The last one is followed after its `ttl`, without help."""
    url = f"sqlite:///{tmp_path}/store.db"
    moments = random.Random(20_26)
    written = {f"s{number}": 0 for number in range(4)}
    again = 0
    async with perdure.open(url) as store:
        for _ in range(8):
            with suppress(perdure.NotFound):
                await system_store(store).break_lease("consumer/indexer")  # The lease of a dead run need not be waited for here.
            for _ in range(60):
                for session in written:
                    written[session] = (await store.append(session, Event("n"))).version
            again += sum(duplicate for _, _, duplicate in kill_after(url, moments.uniform(0.0, 0.15)))
        effects = store.for_tenant("effects")

        async def index(changes: list[perdure.Change]) -> None:
            for change in changes:
                event = Event("did", {"session": change.session, "version": change.commit.version})
                await effects.append(f"of {change.session}", event, key=change.key("indexer"))

        await ops.consume(store, "indexer", index, follow=False)
        for session, version in written.items():
            found = [commit.events[0].data["version"] async for commit in effects.history(f"of {session}")]
            assert found == list(range(1, version + 1))
        (info,) = await ops.consumers(store)
        assert (info.handled, info.waiting) == (sum(written.values()), 0)
    assert again > 0, "No kill came between an effect and its checkpoint: the test has shown nothing."
