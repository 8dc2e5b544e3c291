"""Agents that contend for the leases of a few sessions: `python -m tests.support.service.lease_agents URL NAME THINKS`.
THINKS is the share of leases whose holder, when it has written, does nothing for up to two ttls.

Each line that is printed is one thing that an agent did, as JSON. `take` names a take: it is the lease's owner, and stands in each event
that is written under it. `began` and `ended` are by the machine's monotonic clock, which all processes share.

    held       a take was answered, with its token and its version
    writing    a write is about to be sent, with its key
    wrote      it was acknowledged, with its version
    confirmed  the engine said that the lease holds
    released   the release was acknowledged
    unsure     a call had no answer; it is sent again, except for a take
    fenced     the agent was told that it holds the lease no more: `do` says at what
    over       the lease's `lost` was set, though nobody called anything
    refused    somebody else has held the session for the whole wait

It ends when its input does, after each agent has let go.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import perdure
from perdure import Event

SESSIONS = ["l0", "l1", "l2"]
AGENTS = 3
TTL = 3.0
WRITES_MAX = 25
"""Most writes in one lease."""
UNANSWERED = (perdure.Unknown, perdure.Unavailable, perdure.Busy)


def say(what: str, take: str, **facts: Any) -> None:
    """Print a line."""
    print(json.dumps({"what": what, "take": take, **facts}), flush=True)


async def until_told(take: str, do: str, call: Callable[[], Awaitable[Any]]) -> Any:
    """What a call gives, sent again until it is answered, and when the last try began and ended. Raises `Fenced`, once it was said."""
    while True:
        began = time.monotonic()
        try:
            found = await call()
        except UNANSWERED as error:
            say("unsure", take, do=do, error=error.code, began=began)
            await asyncio.sleep(0.02)
        except perdure.Fenced:
            say("fenced", take, do=do, began=began, ended=time.monotonic())
            raise
        else:
            return began, time.monotonic(), found


async def write(store: perdure.Store, lease: perdure.Lease, take: str, number: int) -> None:
    """One write, with one key."""
    key = f"{take}/{number}"
    say("writing", take, key=key)
    event = Event("work", {"take": take, "token": lease.token})
    began = time.monotonic()  # Of the first try, which may be the one that was applied.
    _, ended, receipt = await until_told(take, key, lambda: store.append(lease.session, event, key=key, lease=lease))
    say("wrote", take, key=key, version=receipt.version, began=began, ended=ended)


async def work(store: perdure.Store, lease: perdure.Lease, take: str, chance: random.Random, thinks: float) -> None:
    """What a holder does."""
    for number in range(chance.randint(1, WRITES_MAX)):
        await write(store, lease, take, number)
        if chance.random() < 0.2:
            began, ended, _ = await until_told(take, "confirm", lease.confirm)
            say("confirmed", take, began=began, ended=ended)
        await asyncio.sleep(chance.random() * 0.05)
    if chance.random() < thinks:
        with suppress(TimeoutError):
            async with asyncio.timeout(chance.random() * 2 * TTL):
                await lease.lost.wait()
                say("over", take)


async def let_go(lease: perdure.Lease, take: str) -> None:
    """Release it, with a key."""
    began, ended, _ = await until_told(take, "release", lambda: lease.release(key=f"{take}/release"))
    say("released", take, began=began, ended=ended)


async def agent(store: perdure.Store, name: str, thinks: float, over: asyncio.Event) -> None:
    """Takes one lease after another."""
    chance, number = random.Random(name), 0
    while not over.is_set():
        number += 1
        take, session = f"{name}.{number}", chance.choice(SESSIONS)
        began = time.monotonic()
        try:
            async with store.lease(session, owner=take, ttl=TTL, wait=chance.choice([1.0, 30.0])) as lease:
                version = int(lease.grant.partition("-")[0])
                say("held", take, session=session, token=lease.token, version=version, began=began, ended=time.monotonic())
                await work(store, lease, take, chance, thinks)
                await let_go(lease, take)
        except perdure.Held:
            say("refused", take)
        except perdure.Fenced:  # It was said.
            continue
        except UNANSWERED as error:
            say("unsure", take, do="take", error=error.code, began=began)
            await asyncio.sleep(0.02)


async def main(url: str, name: str, thinks: float) -> None:
    """All agents of this process."""
    over = asyncio.Event()
    async with perdure.open(url) as store, asyncio.TaskGroup() as group:
        for number in range(AGENTS):
            group.create_task(agent(store, f"{name}.{number}", thinks, over))
        await asyncio.to_thread(sys.stdin.read)
        over.set()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
