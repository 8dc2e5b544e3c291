"""Upgrades of golden stores: from schema 1 to 2, with handles that are open meanwhile, killed at each step and run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import psycopg
import pytest

import perdure
from perdure import Event
from perdure.backends.common import schema, upgrade
from perdure.backends.conformance import behind
from perdure.backends.registry import open_backend
from perdure.backends.spi import NEVER, SCHEMA_VERSION, Index, Query, Snapshot
from perdure.clock import SystemClock
from perdure.model.ids import SessionKey
from tests.backends.test_golden_stores import EXPECTED, everything_goes_on, load, reads_as_ever, told
from tests.servers.fixture import Servers
from tests.servers.process import Server
from tests.support.backends.scenarios import opened
from tests.support.golden import expectation, places
from tests.support.golden.content import ACME
from tests.support.golden.places import Dump, Place
from tests.support.golden.stores import GOLDEN, Golden

__all__ = ["Servers", "load"]

KILLS = ("before the lock", "after the lock", "progress", "before the end", "after the end")
PLAN, NEW = SessionKey(ACME, "plan"), SessionKey(ACME, "made on schema 2")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(perdure.__file__).parents[1])}
Load = Callable[[Golden], tuple[Place, Dump]]

on_every_engine = pytest.mark.parametrize("golden", GOLDEN, ids=str)
in_tables = pytest.mark.parametrize("golden", [golden for golden in GOLDEN if golden.name in ("sqlite", "postgresql")], ids=str)
at_once = pytest.mark.parametrize("golden", [golden for golden in GOLDEN if golden.name in ("sqlite", "postgresql", "etcd")], ids=str)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed upgrade's lock is taken over soon, and writers read the store's header again soon; the command waits as ever."""
    monkeypatch.setitem(upgrade.upgrade.__kwdefaults__, "lock_seconds", 0.3)
    monkeypatch.setattr(schema, "MIN_WRITER_SECONDS", 0.3)


def silent(_what: str, _done: int, _total: int) -> None:
    """Progress that nobody looks at."""


def run_command(*words: str) -> dict[str, Any]:
    """What a `perdure` command prints."""
    ran = subprocess.run(
        [sys.executable, "-m", "perdure", *words], check=False, capture_output=True, text=True, timeout=120, env=ENVIRONMENT
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


async def upgraded(url: str) -> None:
    """Upgrade the store, and see that it has schema 2 now."""
    async with opened(url) as backend:
        await backend.migrate(1, silent)
    async with opened(url) as backend:
        assert backend.schema == SCHEMA_VERSION
        assert "due" in backend.capabilities.scan_orders


@on_every_engine
async def test_schema_1_names_the_command_for_what_it_lacks(golden: Golden, load: Load) -> None:
    """What needs schema 2 is `Unsupported` and names `perdure upgrade`; removals change nothing; nothing was written."""
    place, dump = load(golden)
    async with opened(place.url) as backend:
        assert backend.schema == 1
        assert backend.capabilities.scan_orders == ("id",)
        loaded = await backend.load(PLAN)
        assert (loaded.row.due_at, loaded.row.control, loaded.row.size_bytes) == (None, b"", 0)
        for index in (Index(due_at=5), Index(control=b"x"), Index(size_bytes=7)):
            (outcome,) = await backend.append([behind(PLAN, index=index)])
            assert isinstance(outcome, perdure.Unsupported)
            assert "perdure upgrade" in str(outcome)
        with pytest.raises(perdure.Unsupported, match="perdure upgrade"):
            await backend.change_index(loaded.row, Index(due_at=5))
        with pytest.raises(perdure.Unsupported, match="perdure upgrade"):
            await backend.put_snapshot(PLAN, Snapshot(1, b"", b""), size_bytes=5)
        for query in (Query(None, order="due"), Query(ACME, due_before=7)):
            with pytest.raises(perdure.Unsupported):
                await backend.scan(query)
    assert places.encoded(place.dump()) == places.encoded(dump)


@on_every_engine
async def test_an_upgraded_store_reads_the_same_and_goes_on(golden: Golden, load: Load) -> None:
    """After `perdure upgrade` everything reads as ever, old sessions take cells, and every public call works."""
    place, _ = load(golden)
    told = run_command("upgrade", "--json", place.url)
    assert (told["was"], told["schema"], told["upgraded"]) == (1, SCHEMA_VERSION, True)
    assert run_command("upgrade", "--json", place.url)["upgraded"] is False
    async with perdure.open(place.url, create=False) as store:
        await reads_as_ever(store)
    await cells_of_old_sessions(place.url)
    await everything_goes_on(place.url)


async def cells_of_old_sessions(url: str) -> None:
    """A session of schema 1 becomes due by a change of its row, as a new one does; then neither is."""
    due = Query(None, order="due")
    async with perdure.open(url, tenant=ACME) as store:
        await store.append(NEW.id, Event("note"))
    async with opened(url) as backend:
        before = (await backend.load(PLAN)).row
        assert (before.due_at, before.control, before.size_bytes) == (None, b"", 0)
        assert await backend.change_index(before, Index(due_at=70, control=b"policy", size_bytes=9))
        assert await backend.change_index((await backend.load(NEW)).row, Index(due_at=60))
        rows = (await backend.scan(due)).items
        assert [(row.session, row.due_at, row.control, row.size_bytes) for row in rows] == [(NEW, 60, b"", 0), (PLAN, 70, b"policy", 9)]
        assert rows[1].tags == before.tags
        for row in rows:
            assert await backend.change_index(row, Index(due_at=NEVER, control=b"", size_bytes=0))
        assert (await backend.scan(due)).items == []
        assert (await backend.load(PLAN)).row == before


@on_every_engine
async def test_a_handle_of_schema_1_writes_nothing_after_the_upgrade(golden: Golden, load: Load) -> None:
    """A store that is open while it is upgraded is read on, and says of each write that it must be opened again."""
    place, _ = load(golden)
    async with opened(place.url) as old:
        loaded = await old.load(PLAN)
        head = loaded.row.head
        await upgraded(place.url)
        for write in (
            appended(old, PLAN),
            appended(old, NEW),
            old.put_snapshot(PLAN, Snapshot(head.version, head.hash, b"state")),
            old.truncate(PLAN, 2, (head.version, head.hash)),
            old.purge(SessionKey(ACME, "deleted")),
        ):
            with pytest.raises(perdure.Unsupported, match="open it again"):
                await write
        assert await old.heads([PLAN, NEW]) == [head, None]
        assert (await old.load(PLAN)) == loaded
        assert await old.read(SessionKey(ACME, "deleted"))
        await old.migrate(1, silent)  # It was done already.
    async with perdure.open(place.url, tenant=ACME) as store:
        assert (await store.append("plan", Event("after"))).version == head.version + 1


@on_every_engine
@pytest.mark.parametrize(
    "kill",
    [kill if kill == "progress" else pytest.param(kill, marks=pytest.mark.slow("one point is enough for each landing")) for kill in KILLS],
)
async def test_a_killed_upgrade_is_run_again(golden: Golden, kill: str, load: Load) -> None:
    """Killed at any step, the store reads the same; the next upgrade finishes it."""
    place, _ = load(golden)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, place.url, kill],
        check=False, capture_output=True, text=True, timeout=60, env=ENVIRONMENT,
    )  # fmt: skip
    assert killed.returncode in (0, -signal.SIGKILL), killed.stderr
    await reads_as_before(place.url)
    await upgraded(place.url)
    await reads_as_before(place.url)
    await cells_of_old_sessions(place.url)


async def appended(backend: Any, session: SessionKey) -> None:
    """An append, whose outcome is raised."""
    (outcome,) = await backend.append([behind(session)])
    if isinstance(outcome, BaseException):
        raise outcome


KILLED = """
import asyncio, os, signal, sys
from perdure.backends.common import schema, upgrade
from perdure.backends.registry import open_backend
from perdure.clock import SystemClock

url, kill = sys.argv[1:]

def die(place):
    if kill == place:
        os.kill(os.getpid(), signal.SIGKILL)

class Headers:
    def __init__(self, headers, name):
        self.headers, self.name = headers, name

    async def read(self):
        return await self.headers.read()

    async def swap(self, old, new):
        die(f"before the {self.name}")
        swapped = await self.headers.swap(old, new)
        die(f"after the {self.name}")
        return swapped

lock, finish = upgrade._lock, upgrade._finish
upgrade._lock = lambda headers, *rest: lock(Headers(headers, "lock"), *rest)
upgrade._finish = lambda headers, *rest: finish(Headers(headers, "end"), *rest)

async def main():
    backend = await open_backend(url, clock=SystemClock())
    await backend.migrate(1, lambda what, done, total: die("progress"))
    await backend.close()

asyncio.run(main())
"""
"""A process that upgrades a store and kills itself at a point on the way, if it comes there: one transaction has fewer."""


async def reads_as_before(url: str) -> None:
    """Some sessions read as ever."""
    async with perdure.open(url, tenant=ACME, create=False) as store:
        for name in ("plan", "reborn", "purged", "truncated"):
            assert told(await expectation.session(store, name)) == EXPECTED["sessions"][ACME][name], name
        found: dict[str, Any] = told(await expectation.lists(store))
        assert found == EXPECTED["lists"][ACME]


@at_once
async def test_several_upgrades_at_once(golden: Golden, load: Load) -> None:
    """Of several that start together each ends with an upgraded store, or says that another is at work."""
    place, _ = load(golden)
    command = [sys.executable, "-m", "perdure", "upgrade", place.url, "--json"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) for _ in range(3)]
    for one in running:
        _, said = one.communicate(timeout=120)
        assert one.returncode == 0 or "busy" in said, said
    assert any(not one.returncode for one in running)
    assert run_command("upgrade", "--json", place.url)["schema"] == SCHEMA_VERSION
    await reads_as_before(place.url)


@in_tables
async def test_a_new_store_has_what_an_upgraded_one_has(golden: Golden, load: Load, servers: Servers[Server], tmp_path: Path) -> None:
    """Whether it was made by this version or upgraded to it, a store's tables are the same."""
    fresh = golden.place(servers(golden.server) if golden.server else None, tmp_path / "fresh")
    (tmp_path / "fresh").mkdir(exist_ok=True)
    await (await open_backend(fresh.url, clock=SystemClock())).close()
    place, _ = load(golden)
    await upgraded(place.url)
    assert tables(fresh.url) == tables(place.url)


def tables(url: str) -> list[Any]:
    """The columns of a store's tables, and its indexes."""
    if url.startswith("sqlite:"):
        connection = apsw.Connection(url.removeprefix("sqlite:///"))
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")]
        columns = [(name, *column[1:]) for name in names for column in connection.execute(f"PRAGMA table_info({name})")]
        indexes = connection.execute("SELECT sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL ORDER BY 1").fetchall()
        return [sorted(columns, key=str), indexes]
    server, _, namespace = url.partition("?namespace=")
    with psycopg.connect(server) as admin:
        columns_of = "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
        found = admin.execute(f"{columns_of} WHERE table_schema = %s ORDER BY 1, 2", [namespace]).fetchall()  # type: ignore[arg-type, unused-ignore]
        indexes = admin.execute("SELECT indexdef FROM pg_indexes WHERE schemaname = %s ORDER BY 1", [namespace]).fetchall()
        return [found, [definition.replace(namespace, "") for (definition,) in indexes]]
