"""Golden stores: what schema 1 wrote, on every engine, is opened, read, gone on with and upgraded by today's code."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event, Store, op
from tests.servers.fixture import Servers
from tests.servers.process import Server
from tests.support.golden import places
from tests.support.golden.content import ACME, CHAT, GLOBEX, noise
from tests.support.golden.expectation import observed
from tests.support.golden.places import Dump, Place
from tests.support.golden.stores import GOLDEN, Golden

SCHEMA = places.FOLDER / "schema1"
EXPECTED: dict[str, Any] = json.loads((SCHEMA / "expected.json").read_text())
Load = Callable[[Golden], tuple[Place, Dump]]

on_every_engine = pytest.mark.parametrize("golden", GOLDEN, ids=str)


@pytest.fixture
def load(servers: Servers[Server], tmp_path: Path) -> Load:
    """`load(golden)` puts a golden store in a fresh place of a real server: the place, and the dump that it was filled from."""

    def loaded(golden: Golden) -> tuple[Place, Dump]:
        place = golden.place(servers(golden.server) if golden.server else None, tmp_path)
        dump = places.kept(golden.file(SCHEMA))
        place.load(dump)
        return place, dump

    return loaded


def told(found: dict[str, Any]) -> dict[str, Any]:
    """What was observed, as its file has it."""
    again: dict[str, Any] = json.loads(json.dumps(found))
    return again


async def reads_as_ever(store: Store) -> None:
    """Everything that can be read is as the expectation says; the first difference is shown by its place."""
    found = told(await observed(store))
    for tenant, sessions in EXPECTED["sessions"].items():
        for name, session in sessions.items():
            assert found["sessions"][tenant][name] == session, (tenant, name)
    assert found == EXPECTED


@on_every_engine
async def test_opening_changes_nothing(golden: Golden, load: Load) -> None:
    """A store that is opened and closed, with `create` and without, is the same as before, byte for byte."""
    place, dump = load(golden)
    assert places.encoded(place.dump()) == places.encoded(dump)
    async with perdure.open(place.url):
        pass
    async with perdure.open(place.url, create=False):
        pass
    assert places.encoded(place.dump()) == places.encoded(dump)


@on_every_engine
async def test_everything_reads_as_ever(golden: Golden, load: Load) -> None:
    """Every session has the state, history, tags, keys, forks, status and proof that it had; so has every list, and the feed."""
    place, _ = load(golden)
    async with perdure.open(place.url, create=False) as store:
        await reads_as_ever(store)


@on_every_engine
async def test_everything_goes_on(golden: Golden, load: Load) -> None:
    """Every public call works on what was stored, and what it wrote is read by another process's store."""
    place, _ = load(golden)
    await everything_goes_on(place.url)


async def everything_goes_on(url: str) -> None:
    """Each public call, on sessions that were there; then what they wrote, read by a store that is opened afterwards."""
    async with perdure.open(url, tenant=ACME, create=False) as store:
        await appends_and_edits(store)
        await keys_hold(store)
        await forks_and_merges(store)
        await ends_lives(store)
        await watches(store)
        await lists(store)
    async with perdure.open(url, tenant=ACME, create=False) as store:
        await was_written(store)


async def appends_and_edits(store: Store) -> None:
    """Both formats are gone on with by the default one, after snapshots, pieces and truncation too."""
    before = await store.read("plan")
    async with store.edit("plan", expect=before.version) as draft:
        draft.state["log"].append({"n": 38, "text": "new"})
        draft.state["goal"] = "Porto"
    assert draft.receipt is not None
    assert draft.receipt.version == before.version + 1
    assert (await store.append(CHAT, Event("message", {"role": "user", "content": "still there?"}))).version == 37
    assert (await store.append("sizes", Event("large again", {"text": noise(600_000)}, (op.set("/document", "short"),)))).version == 8
    async with store.edit("truncated") as draft:
        assert len(draft.state) == 24
        draft.state["part24"] = "after"
    with pytest.raises(perdure.AlreadyExists):
        await store.append("plan", Event("late"), expect=0)
    with pytest.raises(perdure.Conflict):
        await store.append("plan", Event("late", None, (op.set("/goal", "Faro"),)), expect=before.version, on_conflict="raise")


async def keys_hold(store: Store) -> None:
    """A key that was used gives its first receipt and writes nothing; with something else it is refused."""
    first = await store.find(CHAT, "msg/1")
    assert first is not None
    said = [commit async for commit in store.history(CHAT, after=first.version - 1, limit=1)]
    again = await store.append(CHAT, *said[0].events, key="msg/1")
    assert again == first
    with pytest.raises(perdure.Invalid):
        await store.append(CHAT, Event("message", {"role": "user", "content": "other"}), key="msg/1")
    assert (await store.append(CHAT, Event("message"), key="new")).version == 38
    assert (await store.append("truncated", Event("after"), key="after")).duplicate


async def forks_and_merges(store: Store) -> None:
    """Forks that were open are gone on with and merged, others are made, at old versions too."""
    async with store.edit("open fork") as draft:
        draft.state["late"] = True
    merged = await store.merge("open fork", into="parent")
    assert merged is not None
    assert (await store.read("parent")).state.get("late") is True
    assert await store.merge("open fork", into="parent") is None
    assert await store.fork("plan", at=7, id="new fork") == "new fork"
    assert (await store.read("new fork")).state == (await store.read("plan", at=7)).state
    assert [commit.version async for commit in store.history("new fork")] == list(range(1, 9))
    assert (await store.append("orphan", Event("note"))).version == 3


async def ends_lives(store: Store) -> None:
    """Sessions are deleted, started again and purged, those that ended long ago too."""
    with pytest.raises(perdure.Deleted):
        await store.append("deleted", Event("late"))
    with pytest.raises(perdure.Invalid):
        await store.purge("gone parent")  # Its fork reads through it.
    await store.purge("deleted")
    assert (await store.append("purged", Event("again"), recreate=True, key="k0")).version == 16
    assert not (await store.append("reborn", Event("more"), key="k5")).duplicate
    await store.delete("reborn")
    await store.purge("reborn")
    await store.delete("job-02")
    await store.configure("job-04", tags={"team": "jobs"})


async def watches(store: Store) -> None:
    """A watch catches up with what was there, and follows."""
    seen: list[int] = []
    async with aclosing(store.watch(CHAT, after=36)) as commits:
        async for commit in commits:
            seen.append(commit.version)
            if commit.version == 38:
                await store.append(CHAT, Event("message", {"role": "user", "content": "watched"}))
            if commit.version == 39:
                break
    assert seen == [37, 38, 39]


async def lists(store: Store) -> None:
    """Lists show old and new sessions, and their tags as they are now."""
    assert [info.session async for info in store.list(tags={"team": "jobs"})] == ["job-00", "job-04", "job-06"]
    assert [info.session async for info in store.list(prefix="job-")] == ["job-00", "job-04", "job-06", "job-08", "job-10"]
    assert "new fork" in [info.session async for info in store.list()]
    assert [info.session async for info in store.for_tenant(GLOBEX).list(tags={"team": "jobs"})] == ["job-03", "job-09"]


async def was_written(store: Store) -> None:
    """What the calls above wrote, and all that they did not touch."""
    plan = await store.read("plan")
    assert (plan.state["goal"], len(plan.state["log"])) == ("Porto", 39)
    assert (await store.read("sizes")).state == {"document": "short"}
    assert (await store.read("truncated")).state["part24"] == "after"
    for name in ("plan", CHAT, "sizes", "parent", "open fork", "new fork", "orphan", "deleted", "purged", "purged, reborn", "reborn"):
        await store.verify(name)
    for name in ("branch", "fork of a fork", "gone parent", "job-06"):
        now = await store.read(name, include_deleted=True)
        assert now.hash.hex() == EXPECTED["sessions"][ACME][name]["read, ended or not"]["hash"], name
