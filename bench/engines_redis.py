"""Turns a second of 64 sessions at once on Valkey: Perdure, and a bare redis-py client that groups the same conditional writes in one call.

The server is the tests' own, with `appendfsync always`. A turn is one append of two messages of 400 bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from _harness import alternate, machine, run, small, table, turn
from redis.asyncio import Redis

import perdure
from perdure import Event
from tests.servers.valkey import Valkey

SESSIONS = 64
TURNS = 3 if small() else 300
ROUNDS = 1 if small() else 5
LIBRARY = """#!lua name=bare
redis.register_function('bare_append', function(keys, args)
  local lost = 0
  for at = 1, #args, 4 do
    if (redis.call('HGET', 'bare:heads', args[at]) or '') == args[at + 1] then
      redis.call('HSET', 'bare:heads', args[at], args[at + 2])
      redis.call('RPUSH', 'bare:log:' .. args[at], args[at + 3])
      redis.call('XADD', 'bare:feed', '*', 'n', args[at], 'v', args[at + 2])
    else
      lost = lost + 1
    end
  end
  return lost
end)
"""


async def together(session: Callable[[int, int], Awaitable[None]], turns: int) -> float:
    """Turns a second of all sessions."""
    start = time.perf_counter()
    await asyncio.gather(*[session(number, turns) for number in range(SESSIONS)])
    return SESSIONS * turns / (time.perf_counter() - start)


async def perdure_turns(url: str) -> float:
    """Ours, through the public API."""
    async with perdure.open(url) as store:

        async def session(number: int, turns: int) -> None:
            for count in range(turns):
                await store.append(f"s{number}", *[Event("message", message) for message in turn(count)])

        await together(session, 2)
        return await together(session, TURNS)


class Bare:
    """A client that sends what waits in one call: a head that is compared and set, a record and an entry of a feed for each session."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.waiting: list[tuple[str, str, str, bytes, asyncio.Future[None]]] = []
        self.flushing: asyncio.Task[None] | None = None

    async def append(self, id: str, version: int, messages: list[dict[str, str]]) -> None:
        """Store one turn after the version expected."""
        done = asyncio.get_running_loop().create_future()
        self.waiting.append((id, str(version) if version else "", str(version + 1), msgspec.json.encode(messages), done))
        if self.flushing is None:
            self.flushing = asyncio.create_task(self.flush())
        await done

    async def flush(self) -> None:
        """Send what waits until nothing does."""
        while self.waiting:
            batch, self.waiting = self.waiting, []
            lost = await self.client.fcall("bare_append", 0, *[word for *words, _ in batch for word in words])
            assert lost == 0
            for *_, future in batch:
                future.set_result(None)
        self.flushing = None


async def bare_turns(url: str) -> float:
    """The bare client."""
    async with Redis.from_url(url) as client:
        await client.function_load(LIBRARY)
        bare, done = Bare(client), [0] * SESSIONS

        async def session(number: int, turns: int) -> None:
            for count in range(turns):
                await bare.append(f"s{number}", done[number], turn(count))
                done[number] += 1

        await together(session, 2)
        return await together(session, TURNS)


SYSTEMS = {"Perdure": perdure_turns, "bare redis-py, grouped": bare_turns}


def main() -> None:
    """Print the table."""
    machine()

    def measured(name: str) -> Callable[[Path], float]:
        def measure(place: Path) -> float:
            server = Valkey(place)
            server.start()
            try:
                return asyncio.run(SYSTEMS[name](server.url))
            finally:
                server.stop()

        return measure

    figures = alternate({name: measured(name) for name in SYSTEMS}, ROUNDS)
    mine = figures["Perdure"]
    rows = [(name, f"{figure:,.0f}", f"{mine / figure:.2f} x") for name, figure in figures.items()]
    table("Valkey, appendfsync always, 64 sessions at once", [("turns/s", "", "Perdure is"), *rows])


if __name__ == "__main__":
    run(main)
