"""Whether a turn costs more in a long session, or among many: turn 100,000 against turn 10, a million sessions against a thousand."""

from __future__ import annotations

import asyncio
import random
import resource
import statistics
import time

from _harness import folder, machine, small, table, turn

import perdure
from perdure.model.events import Event

LONG = 1_000 if small() else 100_000
MANY = 2_000 if small() else 1_000_000
FEW = 200 if small() else 1_000
SAMPLE = 20 if small() else 2_000
GROUP = 64


def events(number: int) -> list[Event]:
    """One turn."""
    return [Event("message", item) for item in turn(number)]


async def lone(store: perdure.Store, session: str, count: int) -> float:
    """The median of `count` turns, in microseconds."""
    times = []
    for number in range(count):
        start = time.perf_counter()
        await store.append(session, *events(number))
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


async def together(store: perdure.Store, names: list[str]) -> tuple[float, float]:
    """Microseconds a turn of random sessions, 64 at once: by the clock, and of processor time in all threads."""
    start, spent = time.perf_counter(), time.process_time()
    for place in range(0, len(names), GROUP):
        await asyncio.gather(*[store.append(name, *events(place)) for name in names[place : place + GROUP]])
    return (time.perf_counter() - start) / len(names) * 1e6, (time.process_time() - spent) / len(names) * 1e6


async def fill(store: perdure.Store, first: int, last: int) -> None:
    """Start sessions, 1,024 at once."""
    for start in range(first, last, 1_024):
        await asyncio.gather(*[store.append(f"s{number:07d}", Event("started")) for number in range(start, min(start + 1_024, last))])


async def run() -> list[tuple[str, ...]]:
    """The rows of the table."""
    chance = random.Random(1)
    with folder() as place:
        async with perdure.open(f"sqlite:///{place}/long.db") as store:
            await lone(store, "warm", 200)
            short = await lone(store, "long", 200)
            for _ in range(LONG // 256):
                await asyncio.gather(*[store.append("long", *events(1)) for _ in range(256)])
            long = await lone(store, "long", 200)
    with folder() as place:
        async with perdure.open(f"sqlite:///{place}/many.db") as store:
            await fill(store, 0, FEW)
            names = [f"s{chance.randrange(FEW):07d}" for _ in range(SAMPLE)]
            await together(store, names)
            (few, few_spent), few_alone = await together(store, names), await lone(store, names[0], 200)
            await fill(store, FEW, MANY // 2)
            half = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            await fill(store, max(FEW, MANY // 2), MANY)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - half
            names = [f"s{chance.randrange(MANY):07d}" for _ in range(SAMPLE)]
            await together(store, names)
            names = [f"s{chance.randrange(MANY):07d}" for _ in range(SAMPLE)]
            (many, many_spent), many_alone = await together(store, names), await lone(store, names[0], 200)
    return [
        ("work", "µs", "against", "µs", "ratio"),
        (f"turn {LONG:,} of a session", f"{long:.0f}", "turn 10", f"{short:.0f}", f"{long / short:.2f}"),
        (f"64 turns among {MANY:,} sessions, each", f"{many:.1f}", f"among {FEW:,}", f"{few:.1f}", f"{many / few:.2f}"),
        ("the same in processor time", f"{many_spent:.1f}", f"among {FEW:,}", f"{few_spent:.1f}", f"{many_spent / few_spent:.2f}"),
        (f"one turn among {MANY:,} sessions", f"{many_alone:.0f}", f"among {FEW:,}", f"{few_alone:.0f}", f"{many_alone / few_alone:.2f}"),
        (f"peak memory, second {MANY // 2:,} sessions, KiB more", f"{grown:,}", "", "", ""),
    ]


def main() -> None:
    """Print the table."""
    machine()
    table("Scale", asyncio.run(run()))


if __name__ == "__main__":
    main()
