"""Turns a second of 64 sessions at once on a folder and on the clouds' stand-ins, how many appends share a put, and bare conditional puts.

A turn is one append of two messages of 400 bytes. The bare client puts the same bytes, as many turns in an object as there are sessions
in a shard.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
from _harness import alternate, folder, machine, run, small, table, turn

import perdure
from perdure import Event
from perdure.backends.objects import az, gs, s3
from perdure.backends.objects.bucket import Bucket
from perdure.backends.objects.cloud import Cloud, cloud_address
from perdure.backends.objects.driver import SHARDS
from perdure.backends.objects.folder import Folder
from perdure.clock import SystemClock
from tests.servers.azurite import Azurite
from tests.servers.fake_gcs import FakeGCS
from tests.servers.process import Server
from tests.servers.seaweedfs import SeaweedFS

SESSIONS = 64
TURNS = 3 if small() else 60
ROUNDS = 1 if small() else 5

shared: dict[str, float] = {}
"""Appends a put, by engine; the last round's."""


async def perdure_turns(name: str, url: str) -> float:
    """Ours, through the public API."""
    async with perdure.open(url) as store:
        driver: Any = store._core.backend.driver  # type: ignore[attr-defined]

        async def session(number: int, turns: int) -> None:
            for count in range(turns):
                await store.append(f"s{number}", *[Event("message", message) for message in turn(count)])

        await asyncio.gather(*[session(number, 1) for number in range(SESSIONS)])
        puts = sum(shard.puts for shard in driver.shards)
        start = time.perf_counter()
        await asyncio.gather(*[session(number, TURNS) for number in range(SESSIONS)])
        taken = time.perf_counter() - start
        shared[name] = SESSIONS * TURNS / (sum(shard.puts for shard in driver.shards) - puts)
        return SESSIONS * TURNS / taken


async def bare_turns(bucket: Bucket) -> float:
    """Conditional puts of the same bytes, as many at once as there are shards."""
    bodies = [msgspec.json.encode(turn(number)) for number in range(SESSIONS // SHARDS)]

    async def shard(number: int) -> None:
        for count in range(TURNS):
            assert await bucket.create(f"bare/{number}/{count:016d}", b"".join(bodies))

    start = time.perf_counter()
    await asyncio.gather(*[shard(number) for number in range(SHARDS)])
    return SESSIONS * TURNS / (time.perf_counter() - start)


CLOUDS: dict[str, tuple[type[Server], Any]] = {"SeaweedFS": (SeaweedFS, s3), "fake-gcs": (FakeGCS, gs), "Azurite": (Azurite, az)}
rounds = iter(range(1_000))


def report(name: str, systems: dict[str, Any]) -> None:
    """Measure and print one place."""
    figures = alternate(systems, ROUNDS)
    mine = figures["Perdure"]
    rows = [(system, f"{figure:,.0f}", f"{mine / figure:.2f} x") for system, figure in figures.items()]
    table(f"{name}, 64 sessions at once, {shared[name]:.0f} appends a put", [("turns/s", "", "Perdure is"), *rows])


def measure_cloud(name: str, kind: type[Server], module: Any) -> None:
    """One cloud's stand-in."""
    with folder() as place:
        server = kind(place.absolute() / "server")
        server.start()
        try:

            def bare() -> Bucket:
                address = cloud_address(f"{server.url}&namespace=bare{next(rounds)}", module.OPTIONS)
                return Cloud(address, module.service, module.asked, SystemClock())

            report(
                name,
                {
                    "Perdure": lambda _: asyncio.run(perdure_turns(name, f"{server.url}&namespace=n{next(rounds)}")),
                    "bare puts": lambda _: asyncio.run(bare_turns(bare())),
                },
            )
        finally:
            server.stop()


def main() -> None:
    """Print a table for each place."""
    machine()
    report(
        "folder",
        {
            "Perdure": lambda where: asyncio.run(perdure_turns("folder", f"file://{where.absolute()}/store")),
            "bare puts": lambda where: asyncio.run(bare_turns(Folder(where.absolute() / "bare"))),
        },
    )
    for name, (kind, module) in CLOUDS.items():
        measure_cloud(name, kind, module)


if __name__ == "__main__":
    run(main)
