"""Turns a second of 64 sessions at once on Valkey: Perdure, and a bare redis-py client that groups the same conditional writes in one call.

The server is the tests' own, with `appendfsync always`. A turn is one append of two messages of 400 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from _harness import alternate, machine, run, served, small, versus
from _turns import Grouped, perdure_turns
from redis.asyncio import Redis

from tests.servers.valkey import Valkey

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


class Bare(Grouped[tuple[str, str, str, bytes]]):
    """One call of a function: a head that is compared and set, a record and an entry of a feed for each session."""

    def __init__(self, client: Redis) -> None:
        super().__init__()
        self.client = client

    def write(self, id: str, expected: int, body: bytes) -> tuple[str, str, str, bytes]:
        return id, str(expected) if expected else "", str(expected + 1), body

    async def send(self, batch: Sequence[tuple[str, str, str, bytes]]) -> None:
        lost = await self.client.fcall("bare_append", 0, *[word for words in batch for word in words])
        assert lost == 0


async def bare_turns(server: Valkey) -> float:
    """The bare client."""
    async with Redis.from_url(server.url) as client:
        await client.function_load(LIBRARY)
        return await Bare(client).turns(TURNS)


def main() -> None:
    """Print the table."""
    machine()
    systems = {
        "Perdure": served(Valkey, lambda server: perdure_turns(server.url, TURNS)),
        "bare redis-py, grouped": served(Valkey, bare_turns),
    }
    versus("Valkey, appendfsync always, 64 sessions at once", "turns/s", alternate(systems, ROUNDS))


if __name__ == "__main__":
    run(main)
