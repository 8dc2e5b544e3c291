"""Stores of schema 1: what they do, what they refuse, how they are upgraded, and what becomes of those who have them open."""

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
from perdure.backends.conformance import behind
from perdure.backends.registry import open_backend
from perdure.backends.spi import NEVER, SCHEMA_VERSION, Appended, Index, Query
from perdure.clock import SystemClock
from perdure.model.ids import SessionKey
from tests.servers.fixture import Servers
from tests.servers.process import Server
from tests.support.backends.scenarios import opened
from tests.support.golden import places
from tests.support.golden.content import ACME
from tests.support.golden.expectation import observed
from tests.support.golden.stores import GOLDEN, Golden

SCHEMA_1 = places.FOLDER / "schema1"
EXPECTED: dict[str, Any] = json.loads((SCHEMA_1 / "expected.json").read_text())
UPGRADED = ("sqlite", "postgresql", "mongodb")
"""The engines that have schema 2."""
PLAN = SessionKey(ACME, "plan")
KILLED = """
import asyncio, os, signal, sys
from perdure.backends.registry import open_backend
from perdure.clock import SystemClock

async def main(url, steps):
    left = [int(steps)]

    def progress(what, done, total):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    backend = await open_backend(url, clock=SystemClock(), create=False)
    await backend.migrate(1, progress)
    await backend.close()

asyncio.run(main(*sys.argv[1:]))
"""
"""An upgrade that is killed when it says for the n-th time how far it is."""

on_each = pytest.mark.parametrize("golden", [golden for golden in GOLDEN if golden.name in UPGRADED], ids=str)
AT_LENGTH = pytest.mark.slow("each step of an upgrade of MongoDB takes seconds: the lock has to stand still for a while")
at_length_on_each = pytest.mark.parametrize(
    "golden",
    [pytest.param(golden, marks=[AT_LENGTH] if golden.name == "mongodb" else []) for golden in GOLDEN if golden.name in UPGRADED],
    ids=str,
)
Load = Callable[[Golden], str]


@pytest.fixture
def load(servers: Servers[Server], tmp_path: Path) -> Load:
    """`load(golden)` puts a golden store of schema 1 in a fresh place: its URL."""

    def loaded(golden: Golden) -> str:
        place = golden.place(servers(golden.server) if golden.server else None, tmp_path)
        place.load(places.kept(golden.file(SCHEMA_1)))
        return place.url

    return loaded


def perdure_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program."""
    return python("-m", "perdure", *arguments)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with this very library. One that does not end says where it hangs."""
    environment = os.environ | {"PYTHONPATH": str(Path(perdure.__file__).parents[1])}
    command = [sys.executable, "-X", "faulthandler", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as running:
        try:
            said, errors = running.communicate(timeout=100)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGABRT)
            raise AssertionError(running.communicate()[1]) from None
    return subprocess.CompletedProcess(command, running.returncode, said, errors)


def upgraded(url: str) -> dict[str, Any]:
    """What `perdure upgrade` says."""
    ran = perdure_command("upgrade", url, "--json")
    assert ran.returncode == 0, ran.stderr
    row: dict[str, Any] = json.loads(ran.stdout)
    return row


async def reads_as_ever(url: str) -> None:
    """Everything that schema 1 stored reads as it did."""
    async with perdure.open(url, create=False) as store:
        found = json.loads(json.dumps(await observed(store)))
    for tenant, sessions in EXPECTED["sessions"].items():
        for name, session in sessions.items():
            assert found["sessions"][tenant][name] == session, (tenant, name)
    assert found == EXPECTED


@on_each
async def test_schema_1_works_and_names_the_command(golden: Golden, load: Load) -> None:
    """Appends, tags and removals go on; what has no place there is `Unsupported`, names the command and writes nothing."""
    url = load(golden)
    async with opened(url) as backend:
        assert backend.schema == 1
        assert backend.capabilities.scan_orders == ("id",)
        row = (await backend.load(PLAN)).row
        assert (row.due_at, row.control, row.size_bytes) == (None, b"", 0)
        for index in (Index(due_at=5), Index(control=b"x"), Index(size_bytes=7)):
            (outcome,) = await backend.append([behind(PLAN, index=index)])
            assert isinstance(outcome, perdure.Unsupported), outcome
            assert "perdure upgrade" in str(outcome)
        for call in (
            backend.scan(Query(None, order="due")),
            backend.scan(Query(ACME, due_before=7)),
            backend.change_index(row, Index(due_at=NEVER)),
        ):
            with pytest.raises(perdure.Unsupported):
                await call
        assert await backend.heads([PLAN]) == [row.head]
    async with perdure.open(url, tenant=ACME) as store:
        await store.configure("plan", tags={"team": "new"})
        await store.append("plan", Event("more"), key="schema 1")
        await store.append("young", Event("more"))
        await store.delete("young")
        await store.purge("young")
    async with opened(url) as backend:
        assert backend.schema == 1
        (outcome,) = await backend.append([behind(SessionKey(ACME, "other"), index=Index({"a": "b"}, due_at=NEVER, control=b""))])
        assert isinstance(outcome, Appended)
    said = perdure_command("doctor", url, "--json")
    row = json.loads(said.stdout)
    assert (said.returncode, row["schema"]) == (0, 1)
    assert ["perdure upgrade" in finding["mend"] for finding in row["findings"] if "schema" in finding["what"]] == [True]


@on_each
async def test_upgrade(golden: Golden, load: Load) -> None:
    """The command says what it did; everything reads as it did, and the new schema has what it is for. Done again, it does nothing."""
    url = load(golden)
    row = upgraded(url)
    assert (row["was"], row["schema"], row["upgraded"]) == (1, SCHEMA_VERSION, True)
    await reads_as_ever(url)
    again = upgraded(url)
    assert again == {**row, "was": SCHEMA_VERSION, "upgraded": False}
    async with opened(url) as backend:
        assert (backend.schema, backend.store_id) == (SCHEMA_VERSION, row["store_id"])
        assert isinstance((await backend.append([behind(PLAN, index=Index(due_at=5, control=b"policy"))]))[0], Appended)
        (due,) = (await backend.scan(Query(None, order="due"))).items
        assert (due.session, due.due_at, due.control, due.tags) == (PLAN, 5, b"policy", (await backend.load(PLAN)).row.tags)
        assert await backend.change_index(due, Index(due_at=NEVER, control=b""))
        assert not (await backend.scan(Query(None, order="due"))).items


@at_length_on_each
async def test_an_upgrade_that_is_killed(golden: Golden, load: Load) -> None:
    """Killed whenever it says how far it is, it leaves a store that reads as ever, and the command brings it to its end."""
    steps, killed = 0, True
    while killed:
        steps += 1
        url = load(golden)
        ran = python("-c", KILLED, url, str(steps))
        killed = ran.returncode == -signal.SIGKILL
        assert killed or not ran.returncode, ran.stderr
        await plan_reads_as_ever(url)
        assert upgraded(url)["schema"] == SCHEMA_VERSION
        await plan_reads_as_ever(url)
        async with opened(url) as backend:
            young = SessionKey(ACME, "young")
            assert isinstance((await backend.append([behind(young, index=Index(due_at=5))]))[0], Appended)
            assert [row.session for row in (await backend.scan(Query(None, order="due"))).items] == [young]
    assert steps > 1, "it was never killed"


async def plan_reads_as_ever(url: str) -> None:
    """One session is proven, and every one is listed that was."""
    expected = EXPECTED["sessions"][ACME]
    async with perdure.open(url, tenant=ACME, create=False) as store:
        assert (await store.verify("plan")).version == (await store.read("plan")).version
        assert (await store.read("plan")).hash.hex() == expected["plan"]["read, ended or not"]["hash"]
        assert {info.session async for info in store.list()} <= {*expected}


@on_each
async def test_whoever_has_it_open_is_refused(golden: Golden, load: Load) -> None:
    """A store that was open during the upgrade reads on; its writes are refused, write nothing, and say to open it again."""
    url = load(golden)
    async with perdure.open(url, tenant=ACME) as store:
        await store.append("plan", Event("before"))
        before = await store.read("plan")
        assert upgraded(url)["upgraded"]
        for _ in range(2):
            with pytest.raises(perdure.Unsupported, match="open it again"):
                await store.append("plan", Event("late"))
        with pytest.raises(perdure.Unsupported, match="open it again"):
            await store.append("a new one", Event("late"))
        with pytest.raises(perdure.Unsupported, match="open it again"):
            await store.delete("plan")
        assert (await store.read("plan")).hash == before.hash
    async with perdure.open(url, tenant=ACME) as store:
        assert (await store.append("plan", Event("after"))).version == before.version + 1
        with pytest.raises(perdure.NotFound):
            await store.read("a new one")


@at_length_on_each
async def test_two_upgrades_at_once(golden: Golden, load: Load) -> None:
    """Of several that start together each ends with an upgraded store, or says that another is at work."""
    url = load(golden)
    environment = os.environ | {"PYTHONPATH": str(Path(perdure.__file__).parents[1])}
    command = [sys.executable, "-m", "perdure", "upgrade", url, "--json"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) for _ in range(3)]
    for one in running:
        _, said = one.communicate(timeout=120)
        assert one.returncode == 0 or "busy" in said, said
    assert any(not one.returncode for one in running)
    assert upgraded(url)["schema"] == SCHEMA_VERSION
    await reads_as_ever(url)


@pytest.mark.parametrize("golden", [golden for golden in GOLDEN if golden.name in ("sqlite", "postgresql")], ids=str)
async def test_a_new_store_has_what_an_upgraded_one_has(golden: Golden, load: Load, servers: Servers[Server], tmp_path: Path) -> None:
    """Whether it was made by this version or upgraded to it, a store's tables are the same."""
    fresh = golden.place(servers(golden.server) if golden.server else None, tmp_path / "fresh")
    (tmp_path / "fresh").mkdir(exist_ok=True)
    await (await open_backend(fresh.url, clock=SystemClock())).close()
    url = load(golden)
    upgraded(url)
    assert tables(fresh.url) == tables(url)


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
