"""Workers that claim sessions which are due: `python -m tests.support.service.pool_workers URL NAME`.

Each line that is printed is one thing that a worker did, as JSON, as in `lease_agents`; `take` is WORKER SESSION.

    doing     a session was handed out
    wrote     its result was acknowledged, with its version
    unsure    a call had no answer
    fenced    the worker was told that it holds the session no more

It ends when its input does.
"""

from __future__ import annotations

import asyncio
import random
import sys

import perdure
from perdure import Event
from tests.support.service.lease_agents import TTL, UNANSWERED, say, until_told

PREFIX = "job-"
WORKERS = 2
RESULT = "result"
"""The type of the event that a piece of work ends in, and the key of its commit."""


async def do(store: perdure.Store, lease: perdure.Lease, name: str, chance: random.Random) -> None:
    """One piece of work: some steps, and a result."""
    take = f"{name} {lease.session}"
    say("doing", take, session=lease.session)
    for _ in range(3):
        await until_told(take, "step", lambda: store.append(lease.session, Event("step", {"by": name}), lease=lease))
        await asyncio.sleep(chance.random() * 0.1)
    began, ended, receipt = await until_told(
        take, RESULT, lambda: store.append(lease.session, Event(RESULT, {"of": lease.session}), key=RESULT, lease=lease)
    )
    say("wrote", take, session=lease.session, version=receipt.version, began=began, ended=ended)


async def worker(store: perdure.Store, name: str, over: asyncio.Event) -> None:
    """Claims, until it is over."""
    chance = random.Random(name)
    while not over.is_set():
        try:
            async for lease in store.claim(owner=name, prefix=PREFIX, ttl=TTL, limit=3):
                await do(store, lease, name, chance)
        except perdure.Fenced:  # It was said.
            continue
        except UNANSWERED as error:
            say("unsure", name, do="claim", error=error.code)
        await asyncio.sleep(0.05)


async def main(url: str, name: str) -> None:
    """All workers of this process."""
    over = asyncio.Event()
    async with perdure.open(url) as store, asyncio.TaskGroup() as group:
        for number in range(WORKERS):
            group.create_task(worker(store, f"{name}.{number}", over))
        await asyncio.to_thread(sys.stdin.read)
        over.set()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
