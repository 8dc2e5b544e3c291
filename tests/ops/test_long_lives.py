"""Real transcripts as agents that live for months, in a second or a minute, while those who work for them are killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import apsw
import psycopg
import pytest

import perdure
from tests.servers.fixture import Servers
from tests.servers.postgresql import PostgreSQL
from tests.support.backends.engines import Engine
from tests.support.ops.long_lives import Life, agents, all_at_once
from tests.support.ops.simulated_clock import SimulatedClock
from tests.support.ops.transcripts import transcripts


async def lives(url: Callable[[str], str], count: int, place: Path, size: Callable[[str], int], *, running: bool = False, seed: int) -> str:
    """The months of so many agents, and what is to be said of them. `url` and `size` are those of a store, by its name."""
    clock, started = SimulatedClock(running=running), time.perf_counter()
    team = agents(transcripts(count), seed)
    async with perdure.open(url("live"), clock=clock, archive=f"file://{place}/archive") as store:
        life = Life(store, clock, team, seed, killing=0.5)
        await life.live()
        await life.judge()
    async with perdure.open(url("all"), clock=clock) as store:
        await all_at_once(store, [agent for agent in team if agent.kind != "expires"])
    archive = sum(file.stat().st_size for file in (place / "archive").rglob("*") if file.is_file() and "segments" in file.parts)
    left, whole = size(url("live")), size(url("all"))
    done = [each for agent in team for each in agent.done]
    for what in ("archived", "restored", "compacted", "woken"):
        assert done.count(what) > 0, what
    assert life.machine.kills > 0
    assert left < whole
    days = (clock.time - min(agent.visits[0][0] for agent in team)).days
    counts = ", ".join(f"{done.count(what)} {what}" for what in ("archived", "restored", "compacted", "woken"))
    purged = sum(agent.purged for agent in team)
    messages = sum(len(agent.messages) for agent in team)
    return (
        f"{count} agents, {messages} messages, {days} days, {life.machine.kills} kills: {counts}, {purged} purged;"
        f" engine {left:,} bytes, all of it {whole:,}, archive {archive:,}; {time.perf_counter() - started:.0f} s"
    )


def sqlite_bytes(url: str) -> int:
    """A file without what is free in it."""
    path = url.removeprefix("sqlite:///")
    connection = apsw.Connection(path)
    connection.execute("VACUUM")
    connection.close()
    return Path(path).stat().st_size


def postgresql_bytes(url: str) -> int:
    """The tables and indexes of a namespace without what is free in them."""
    address, namespace = url.split("?namespace=")
    with psycopg.connect(address, autocommit=True) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (namespace,)).fetchall()
        names = [f"{namespace}.{name}" for (name,) in tables]
        for name in names:
            connection.execute(f"VACUUM FULL {name}")
        return sum(connection.execute("SELECT pg_total_relation_size(%s::regclass)", (name,)).fetchone()[0] for name in names)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
async def test_twenty_agents_live_for_months(tmp_path: Path, seed: int) -> None:
    """On SQLite: no message is lost or doubled; archived, woken, expired and purged when the policies say so; the engine's bytes shrink."""
    print(await lives(lambda name: f"sqlite:///{tmp_path}/{name}.db", 20, tmp_path, sqlite_bytes, seed=seed))


@pytest.mark.slow("200 agents: minutes")
@pytest.mark.timeout(3_000)
async def test_two_hundred_agents_live_for_months(tmp_path: Path) -> None:
    """The same with as many as there are transcripts."""
    print(await lives(lambda name: f"sqlite:///{tmp_path}/{name}.db", 200, tmp_path, sqlite_bytes, seed=3))


@pytest.mark.slow("200 agents: minutes")
@pytest.mark.timeout(3_000)
async def test_two_hundred_agents_on_postgresql(tmp_path: Path, servers: Servers[PostgreSQL]) -> None:
    """The same on PostgreSQL."""
    server = await asyncio.to_thread(servers, PostgreSQL)
    names = {name: f"t{uuid4().hex[:12]}" for name in ("live", "all")}
    engine = Engine("postgresql", PostgreSQL)
    print(await lives(lambda name: engine.url(server, names[name]), 200, tmp_path, postgresql_bytes, running=True, seed=3))
