"""A worker that holds a session and works on it: `python -m tests.support.backends.lease_worker URL OWNER WAIT OFFSET`.

Prints what it does, a line each: `held TOKEN`, `wrote VERSION`, `unknown`, `fenced`, `refused` (the lease was not to be had).
"""

from __future__ import annotations

import asyncio
import sys
import time

import perdure
from perdure import Event
from perdure.clock import SystemClock
from perdure.errors import Fenced, Held, Unavailable, Unknown

TTL = 3.0
"""Seconds; 10 where the engine does not notify."""


class OffClock(SystemClock):
    """The machine's clock, so many seconds off."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.now = lambda: time.time_ns() + int(offset * 1e9)  # type: ignore[method-assign]


def say(*words: object) -> None:
    print(*words, flush=True)


async def work(url: str, owner: str, wait: float, offset: float) -> None:
    """Hold the session `s` and write to it until it is lost, or the process is killed."""
    async with perdure.open(url, clock=OffClock(offset)) as store:
        ttl = TTL if store.capabilities.notification else 10.0
        say("ready")
        try:
            async with store.lease("s", owner=owner, ttl=ttl, wait=wait) as lease:
                say("held", lease.token)
                while True:
                    try:
                        event = Event("work", {"owner": owner, "token": lease.token})
                        receipt = await store.append("s", event, lease=lease)
                        say("wrote", receipt.version)
                    except (Unknown, Unavailable):
                        say("unknown")
                    await asyncio.sleep(0.02)
        except Fenced:
            say("fenced")
        except Held:
            say("refused")


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))
