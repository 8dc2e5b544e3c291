"""Schema 2 on Google's services: what is due, stores of schema 1 and their upgrade, and what a later version may have written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from perdure.backends.common import schema, upgrade
from perdure.backends.conformance import behind, expecting
from perdure.backends.google import layout
from perdure.backends.google.entities import Write
from perdure.backends.spi import NEVER, Appended, Head, Index, Query, Row, Snapshot
from perdure.errors import Busy, Unknown, Unsupported
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey
from tests.servers.fixture import Servers
from tests.servers.google import DatastoreEmulator, FirestoreEmulator
from tests.servers.process import Server
from tests.support.backends import memory_entities
from tests.support.backends.engines import Engine
from tests.support.backends.memory_entities import MemoryEntities, on
from tests.support.backends.scenarios import opened

S, T = SessionKey("acme", "s"), SessionKey("acme", "t")
DUE = Query(None, order="due")
Open = Callable[[], Awaitable[Any]]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers read soon again which of them the store takes."""
    monkeypatch.setattr(schema, "MIN_WRITER_SECONDS", 0.1)


@pytest.fixture(params=[None, Engine("firestore", FirestoreEmulator), Engine("datastore", DatastoreEmulator)], ids=repr)
def place(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """A further handle on one store: on entities in memory, and on both emulators."""
    if request.param is None:
        data = MemoryEntities().data
        return lambda: on(MemoryEntities(data))
    servers: Servers[Server] = request.getfixturevalue("servers")
    url = request.param.url(servers(request.param.server))
    return lambda: opened(url)


@asynccontextmanager
async def handles(place: Callable[[], Any]) -> AsyncIterator[Open]:
    """Opens handles on one store, which are closed in the end."""
    async with AsyncExitStack() as stack:
        yield lambda: stack.enter_async_context(place())


def quiet(_what: str, _done: int, _total: int) -> None:
    """Hear of the progress, and do nothing."""


async def entity(backend: Any, path: tuple[str, ...]) -> Any:
    return (await backend.run(backend.driver.entities.get([path])))[0]


async def put(backend: Any, path: tuple[str, ...], fields: dict[str, Any]) -> None:
    await backend.run(backend.driver.entities.commit([Write(path, fields)]))


async def row(backend: Any, session: SessionKey = S) -> Row:
    loaded = await backend.load(session)
    assert loaded is not None
    found: Row = loaded.row
    return found


async def of_schema_1(open: Open) -> Any:
    """A store of schema 1 with sessions, open."""
    backend = await open()
    await put(backend, layout.META, {"layout": 1, "store": backend.store_id})
    old = await open()
    await old.append([behind(SessionKey("acme", id), key="k", index=Index({"team": "ops"})) for id in "abc"])
    await old.append([behind(S) for _ in range(3)])
    return old


async def everything(backend: Any) -> tuple[Any, ...]:
    """What can be read of a store."""
    rows = (await backend.scan(Query("acme"))).items
    chains = [(await backend.load(row.session), await backend.find_key(row.session, "k")) for row in rows]
    changes, cursor = list[str](), None
    while (page := await backend.feed(cursor)).items:
        changes += [repr(change) for change in page.items]
        cursor = page.cursor
    return rows, chains, sorted(changes)


async def due_fields(backend: Any) -> int:
    """How many entities the index of what is due has."""
    return len(await backend.run(backend.driver.entities.ordered("session", "due", "", layout.END, 100)))


def test_the_fields_of_schema_1_are_what_they_were() -> None:
    """A header without the cells of schema 2 has the fields that it had before it, and no other."""
    header = layout.SessionHeader(Head(1, b"h" * 32, 5, 0, 0, 1), 1, 5, {"a": "b"})
    for changed in (header, header.changed(Index(due_at=NEVER, control=b"", size_bytes=0))):
        assert set(layout.encode_header(S, changed, unlogged=True)) == {
            *("head", "first", "made", "labels", "snapshots", "logged", "status", "tags", "news")
        }


async def test_what_is_due_comes_by_the_bytes_of_tenant_and_id(place: Callable[[], Any]) -> None:
    """Sessions that are due at one time come by tenant and id, whatever characters these have, page by page; the largest time fits."""
    names = ["a", "a ", "a!", "a-b", "a.", "a.b", "a/", "a/b", "ab", "ä", "😀"]
    sessions = [SessionKey(tenant, id) for tenant in names for id in (names if tenant in ("a", "a.") else ("x",))]
    async with handles(place) as open:
        backend = await open()
        await backend.append([behind(session, index=Index(due_at=7)) for session in reversed(sessions)])
        await backend.append([behind(S, index=Index(due_at=(1 << 63) - 1)), behind(T, index=Index(due_at=0))])
        order = [T, *sorted(sessions, key=lambda one: (one.tenant.encode(), one.id.encode())), S]
        for limit in (4, 7, 100):
            found: list[SessionKey] = []
            cursor = None
            while True:
                page = await backend.scan(DUE, cursor=cursor, limit=limit)
                found += [one.session for one in page.items]
                cursor = page.cursor
                if cursor is None:
                    break
            assert found == order
        for before, count in ((-5, 0), (0, 0), (1, 1), (7, 1), (8, 1 + len(sessions)), (1 << 80, 2 + len(sessions))):
            assert len((await backend.scan(Query(None, order="due", due_before=before))).items) == count


async def test_what_each_call_costs() -> None:
    """A page of what is due and a change of the index are one request each, and an append asks nothing of the store's header."""
    entities = MemoryEntities()
    async with on(entities) as backend:
        await backend.append([behind(SessionKey("acme", f"s{number}"), index=Index(due_at=number)) for number in range(40)])
        entities.calls.clear()
        (found,) = (await backend.scan(DUE, limit=1)).items
        assert entities.calls == {"ordered": 1}
        assert await backend.change_index(found, Index(due_at=100))
        assert entities.calls == {"ordered": 1, "commit": 1}
        await backend.append([behind(found.session)])
        assert entities.calls == {"ordered": 1, "commit": 2}


async def test_nothing_that_ended_is_left_among_what_is_due(place: Callable[[], Any]) -> None:
    """Moved on, ended and purged: the index has an entity for each session that is due, and no other."""
    async with handles(place) as open:
        backend = await open()
        for time in (5, 3, 9):
            await backend.append([behind(S, index=Index(due_at=time)), behind(T, index=Index(due_at=time, control=b"c", size_bytes=5))])
        assert await due_fields(backend) == 2
        assert await backend.change_index(await row(backend), Index(due_at=NEVER))
        assert await due_fields(backend) == 1
        await backend.append([behind(T, kind=Kind.tombstone, status=Status.deleted)])
        await backend.purge(T)
        assert await due_fields(backend) == 0
        assert await backend.change_index(await row(backend, T), Index(due_at=8, control=b"c"))
        assert await due_fields(backend) == 1
        await backend.purge(T)
        assert await due_fields(backend) == 0
        assert not {"due", "control", "size"} & (await entity(backend, layout.session(T))).fields.keys()


async def test_changes_appends_snapshots_and_the_feed_race(place: Callable[[], Any]) -> None:
    """They all write to one header at once: every append is stored, the snapshot is kept, a change is made on its own row alone."""
    async with handles(place) as open:
        one, two = await open(), await open()
        await one.append([behind(S, index=Index(due_at=0))])
        for number in range(1, 6):
            seen = await row(one)
            made, rival, outcomes, *_ = await asyncio.gather(
                one.change_index(seen, Index(due_at=2 * number)),
                two.change_index(seen, Index(due_at=2 * number + 1)),
                two.append([behind(S)]),
                one.put_snapshot(S, Snapshot(seen.head.version, seen.head.hash, b"state"), size_bytes=number),
                two.feed(),
            )
            assert isinstance(outcomes[0], Appended)
            assert not (made and rival)
            expected = 2 * number if made else 2 * number + 1 if rival else seen.due_at
            now = await row(two)
            assert (now.due_at, now.size_bytes, now.head.version) == (expected, number, number + 1)
        loaded = await one.load(S)
        assert loaded.snapshot.version == 5


async def test_a_change_without_an_answer_is_unknown() -> None:
    """Applied or not, the caller hears that nobody knows, and the row shows it."""
    entities = MemoryEntities()
    async with on(entities) as backend:
        await backend.append([behind(S, index=Index(due_at=1))])
        for when, shown in (("before", 1), ("after", 2)):
            entities.troubles = [(when, Unknown("cut"))]
            with pytest.raises(Unknown):
                await backend.change_index(await row(backend), Index(due_at=2))
            assert (await row(backend)).due_at == shown


async def test_a_snapshot_that_is_put_during_a_truncation_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A truncation takes the snapshots; another process puts one of the same version before it has ended: it is whole, or it is gone."""
    entities = MemoryEntities()
    async with on(entities) as mine, on(MemoryEntities(entities.data)) as theirs:
        await mine.append([behind(S), behind(S, kind=Kind.anchor)])
        head = (await mine.heads([S]))[0]
        assert head is not None
        state = Snapshot(2, head.hash, b"x" * 700_000)
        await mine.put_snapshot(S, state)  # type: ignore[attr-defined]
        original = mine.driver._delete  # type: ignore[attr-defined]

        async def delete(paths: Any) -> None:
            await asyncio.to_thread(asyncio.run, theirs.put_snapshot(S, state))
            await original(paths)

        monkeypatch.setattr(mine.driver, "_delete", delete)
        await mine.truncate(S, 2, (2, head.hash), snapshot=True)
        loaded = await theirs.load(S)
        assert loaded is not None
        assert loaded.snapshot == state


async def test_a_store_of_schema_1_gets_no_further_field(place: Callable[[], Any]) -> None:
    """Appends that remove cells, a tombstone and a purge store what they stored before there were cells."""
    async with handles(place) as open:
        old = await of_schema_1(open)
        removal = Index({}, due_at=NEVER, control=b"")
        (stored,) = await old.append([behind(T, index=removal)])
        assert isinstance(stored, Appended)
        await old.append([behind(T, kind=Kind.tombstone, status=Status.deleted, index=removal)])
        await old.purge(T)
        assert not {"due", "control", "size"} & (await entity(old, layout.session(T))).fields.keys()
        assert set((await entity(old, layout.META)).fields) == {"layout", "store"}


async def test_an_upgrade(place: Callable[[], Any]) -> None:
    """The header has what schema 2 asks for and nothing else; the handle that upgraded writes no more and reads on."""
    async with handles(place) as open:
        old = await of_schema_1(open)
        before = await everything(old)
        await old.migrate(1, quiet)
        (outcome,) = await old.append([behind(S)])
        assert isinstance(outcome, Unsupported)
        assert await everything(old) == before
        new = await open()
        assert (await entity(new, layout.META)).fields == {"layout": 2, "store": new.store_id, "min_writer": 2}
        await new.migrate(1, quiet)
        assert await everything(new) == before


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", [0, 1])
async def test_an_upgrade_that_was_killed_is_run_again(number: int, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at each of its writes (the lock, the new schema), the store reads the same, takes no write of the old schema once that is
    shut out, and is upgraded by the next run."""
    monkeypatch.setitem(upgrade.upgrade.__kwdefaults__, "lock_seconds", 5)
    entities = MemoryEntities()
    async with handles(lambda: on(MemoryEntities(entities.data))) as open:
        old = await of_schema_1(open)
        before = await everything(old)
        async with on(entities) as killed:
            entities.troubles = [("after", None)] * number + [(when, Unknown("killed"))]  # type: ignore[list-item]
            with pytest.raises(Unknown, match="killed"):
                await killed.migrate(1, quiet)
        monkeypatch.setitem(upgrade.upgrade.__kwdefaults__, "lock_seconds", 0.05)
        between = await open()
        assert await everything(between) == before
        if (number, when) != (0, "before"):
            await asyncio.sleep(schema.MIN_WRITER_SECONDS)
            (outcome,) = await old.append([behind(S)])
            assert isinstance(outcome, Unsupported)
            assert "run `perdure upgrade` again" in str(outcome)
        await between.migrate(1, quiet)
        new = await open()
        assert (new.schema, await everything(new)) == (2, before)
        assert entities.data[layout.META].fields == {"layout": 2, "store": new.store_id, "min_writer": 2}


async def test_two_upgrades_at_once(place: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One waits for the other: it is told `Busy`, or finds the store upgraded; the store reads the same."""
    monkeypatch.setitem(upgrade.upgrade.__kwdefaults__, "lock_seconds", 2)
    async with handles(place) as open:
        old = await of_schema_1(open)
        before = await everything(old)
        other = await open()
        outcomes = await asyncio.gather(old.migrate(1, quiet), other.migrate(1, quiet), return_exceptions=True)
        assert None in outcomes
        assert all(outcome is None or isinstance(outcome, Busy) for outcome in outcomes)
        new = await open()
        assert (new.schema, await everything(new)) == (2, before)


def later_fields(backend: Any) -> dict[str, Any]:
    """Fields of a later version, as a service holds them."""
    module = type(backend.driver.entities).__module__.rpartition(".")[2]
    if module == "firestore":
        from google.cloud.firestore_v1 import types

        return {"later": types.Value(double_value=1.5), "words": types.Value(map_value={"fields": {"a": types.Value(boolean_value=True)}})}
    if module == "datastore":
        from google.cloud.datastore_v1 import types as datastore

        inner = datastore.Entity(properties={"a": datastore.Value(boolean_value=True)})
        return {
            "later": datastore.Value(double_value=1.5, exclude_from_indexes=False),
            "words": datastore.Value(entity_value=inner, exclude_from_indexes=True),
        }
    return {"later": memory_entities.Unknown(1.5)}


async def test_what_a_later_version_wrote_is_kept(place: Callable[[], Any]) -> None:
    """Fields that are not known stay in the headers of the store and of a session, whatever is written there."""
    async with handles(place) as open:
        first = await open()
        (outcome,) = await first.append([behind(S, index=Index(due_at=5))])
        assert isinstance(outcome, Appended)
        later = later_fields(first)
        meta = await entity(first, layout.META)
        await put(first, layout.META, {**meta.fields, "layout": 3, **later})
        await put(first, layout.session(S), {**(await entity(first, layout.session(S))).fields, **later})
        backend = await open()
        assert (backend.schema, backend.capabilities.scan_orders) == (3, ("id", "due"))
        kept: list[bool] = []

        async def look() -> None:
            found = (await entity(backend, layout.session(S))).fields
            kept.append({name: found.get(name) for name in later} == later)

        await backend.append([behind(S), behind(S)])
        await look()
        assert await backend.change_index(await row(backend), Index(due_at=7))
        await look()
        (anchored,) = await backend.append([behind(S, kind=Kind.anchor)])
        assert isinstance(anchored, Appended)
        await backend.put_snapshot(S, Snapshot(4, anchored.head.hash, b"state"), size_bytes=7)
        await look()
        while (await backend.feed()).items and "news" in (await entity(backend, layout.session(S))).fields:
            pass
        await look()
        await backend.truncate(S, 2, (4, anchored.head.hash), snapshot=True)
        await look()
        assert isinstance((await backend.append([expecting(S, anchored.head, kind=Kind.tombstone, status=Status.deleted)]))[0], Appended)
        await backend.purge(S)
        await look()
        assert kept == [True] * 6
        await backend.require_writer(2)
        assert (await entity(backend, layout.META)).fields == {**meta.fields, "layout": 3, **later}
        await backend.require_writer(3)
        assert (await entity(backend, layout.META)).fields == {**meta.fields, "layout": 3, **later, "min_writer": 3}
        assert isinstance((await backend.append([behind(T)]))[0], Unsupported)
