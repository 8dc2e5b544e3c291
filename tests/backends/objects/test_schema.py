"""Schema 2 on object stores: the index of what is due, stores of schema 1 and their upgrade, and what a later version may have written."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure.backends.common import upgrade
from perdure.backends.conformance import behind, expecting
from perdure.backends.objects import due, listing
from perdure.backends.objects import segment as form
from perdure.backends.objects import shard as shards
from perdure.backends.objects.due import DueList
from perdure.backends.objects.folder import Folder
from perdure.backends.spi import NEVER, Appended, Index, Query, Row
from perdure.errors import Busy, Corrupt, Unauthorized, Unavailable, Unknown, Unsupported
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey
from tests.servers.azurite import Azurite
from tests.servers.fake_gcs import FakeGCS
from tests.servers.fixture import Servers
from tests.servers.process import Server
from tests.servers.seaweedfs import SeaweedFS
from tests.support.backends.engines import Engine
from tests.support.backends.scenarios import Handles

S, T = SessionKey("acme", "s"), SessionKey("acme", "t")
DUE = Query(None, order="due")
UNKNOWN = [99, "acme", "s", [], None, 9, None, b"secret", None, "entry's"]
"""An entry of a kind that this version does not know."""


def quiet(_what: str, _done: int, _total: int) -> None:
    """Hear of the progress, and do nothing."""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store?shards=2"


@pytest.fixture(params=[None, SeaweedFS, FakeGCS, Azurite])
def anywhere(request: pytest.FixtureRequest, url: str) -> str:
    """A folder, and the three clouds."""
    if request.param is None:
        return url
    servers: Servers[Server] = request.getfixturevalue("servers")
    return Engine("cloud", request.param).url(servers(request.param)) + "&shards=2"


async def objects(backend: Any, *folders: str) -> dict[str, bytes]:
    """The objects of these folders."""
    bucket = backend.driver._bucket

    async def read() -> dict[str, bytes]:
        names = [f"{folder}/{name}" for folder in folders for name in await bucket.list(folder)]
        return {name: await bucket.get(name) or b"" for name in names}

    found: dict[str, bytes] = await backend.run(read())
    return found


async def put(backend: Any, name: str, data: bytes) -> None:
    """Put an object in place of one."""
    await backend.run(backend.driver._bucket.put(name, data))


async def tag(backend: Any) -> dict[str, Any]:
    """The fields of the name tag."""
    found: dict[str, Any] = json.loads(await backend.run(backend.driver._bucket.get("perdure.json")))
    return found


async def of_schema_1(handles: Handles, url: str) -> Any:
    """A store of schema 1 with three sessions, open."""
    backend = await handles.open(url)
    fields = await tag(backend)
    await put(backend, "perdure.json", json.dumps({"perdure": 1, "id": fields["id"], "shards": 2}).encode())
    old = await handles.open(url)
    await old.append([behind(SessionKey("acme", id), key="k", index=Index({"team": "ops"})) for id in "abc"])
    await old.append([behind(S) for _ in range(3)])
    return old


async def everything(backend: Any) -> tuple[Any, ...]:
    """What can be read of a store."""
    rows = (await backend.scan(Query("acme"))).items
    chains = [(await backend.load(row.session), await backend.find_key(row.session, "k")) for row in rows]
    return rows, chains, sorted(repr(change) for change in (await backend.feed()).items)


async def row(backend: Any, session: SessionKey = S) -> Row:
    loaded = await backend.load(session)
    assert loaded is not None
    found: Row = loaded.row
    return found


def places(backend: Any) -> int:
    """How many places the indexes of what is due have."""
    return sum(len(shard.index.due) for shard in backend.driver.shards)


def test_the_bytes_of_schema_1_are_what_they_were() -> None:
    """A segment and a checkpoint without the cells of schema 2 have the bytes that they had before it."""
    position = form.Head(3, b"h" * 32, 1_700_000_000_000_000_000, 1, 0, 2)
    record = form.Written(3, b"h" * 32, 1_700_000_000_000_000_000, 1, 0, 2, b"i" * 16, 0, "k", b"r", b"m", b"b")
    entries = (form.Entry(form.APPEND, "acme", "s", (record,), {"a": "b"}), form.Entry(form.PURGE, "acme", "t", below=7))
    chain = form.Chain(position, 5, {"a": "b"}, {"k": (3, b"r")}, 3, [1])
    digests = [
        hashlib.sha256(data).hexdigest()
        for data in (
            form.encode_segment(form.Segment(b"i" * 16, entries)),
            form.encode_checkpoint(form.Checkpoint(9, (("acme", "s", chain),))),
        )
    ]
    assert digests == [
        "07fc9abb24d838198ce2498c9172ca76a86707dcfce7e3935def4180c451ab3e",
        "6b743bc9baaa098cb477c9975bb6178cefb01ceb09a78b300f56733754e0179a",
    ]


def test_the_list_of_what_is_due_stays_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places that are added and removed in any order, in chunks of three, come as a sorted list has them, from any place on."""
    monkeypatch.setattr(due, "CHUNK", 3)
    dice = random.Random(7)
    for _ in range(20):
        expected = [(dice.randrange(50), SessionKey("t", f"{number}")) for number in range(dice.randrange(30))]
        found = DueList(expected)
        for number in range(300):
            if expected and dice.random() < 0.5:
                gone = expected.pop(dice.randrange(len(expected)))
                found.remove(gone)
            else:
                added = (dice.randrange(50), SessionKey("u", f"{number}"))
                expected.append(added)
                found.add(added)
            assert list(found.after(None)) == sorted(expected)
            assert len(found) == len(expected)
            start = (dice.randrange(50), SessionKey("u", f"{dice.randrange(300)}"))
            assert list(found.after(start)) == sorted(place for place in expected if place > start)


async def test_a_listing_looks_at_what_is_due_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 sessions three are due, and a listing looks at three; where few of many fit, a page is short and has a cursor."""
    looked = 0
    original = listing.fits

    def fits(*args: Any) -> bool:
        nonlocal looked
        looked += 1
        return original(*args)

    monkeypatch.setattr(listing, "fits", fits)
    async with Handles() as handles:
        backend = await handles.open(url)
        await backend.append([behind(SessionKey("acme", f"s{number}")) for number in range(200)])
        await backend.append([behind(SessionKey("acme", f"s{number}"), index=Index(due_at=number)) for number in (7, 70, 170)])
        assert [found.session.id for found in (await backend.scan(DUE)).items] == ["s7", "s70", "s170"]
        assert looked == 3
        looked = 0
        assert [found.session.id for found in (await backend.scan(Query(None, order="due", due_before=70))).items] == ["s7"]
        assert looked == 1
        monkeypatch.setattr(listing, "LOOKED_MAX", 2)
        query = Query("acme", "s17", order="due")
        page = await backend.scan(query)
        assert not page.items
        page = await backend.scan(query, cursor=page.cursor)
        assert ([found.session.id for found in page.items], page.cursor) == (["s170"], None)


async def test_nothing_that_ended_is_left_among_what_is_due(url: str) -> None:
    """Moved on, ended, deleted and purged: the index has a place for each session that is due, and no other, after a cold open too."""
    async with Handles() as handles:
        backend = await handles.open(url)
        for time in (5, 3, 9):
            await backend.append([behind(S, index=Index(due_at=time)), behind(T, index=Index(due_at=time))])
        assert places(backend) == 2
        assert await backend.change_index(await row(backend), Index(due_at=NEVER))
        assert places(backend) == 1
        await backend.append([behind(S, index=Index(due_at=1)), behind(T, kind=Kind.tombstone, status=Status.deleted)])
        assert places(backend) == 2
        await backend.purge(T)
        assert places(backend) == 1
        assert await backend.change_index(await row(backend, T), Index(due_at=8, control=b"c"))
        assert places(backend) == 2
        await backend.purge(T)
        assert places(backend) == 1
        await backend.append([behind(S, index=Index(due_at=NEVER))])
        assert places(backend) == 0
        cold = await handles.open(url)
        assert not (await cold.scan(DUE)).items
        assert places(cold) == 0


async def test_checkpoints_hold_the_cells(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cold open by a checkpoint has the rows, what is due, and the least writer that the log says."""
    monkeypatch.setattr(shards, "CHECKPOINT_BYTES_MIN", 500)
    async with Handles() as handles:
        backend = await handles.open(url)
        await backend.require_writer(2)
        for number in range(40):
            index = Index(due_at=number + 1, control=b"policy", size_bytes=number)
            await backend.append([behind(SessionKey("acme", f"s{number}"), index=index)])
        assert await backend.change_index(await row(backend, SessionKey("acme", "s3")), Index(due_at=NEVER))
        await backend.append([behind(SessionKey("acme", f"t{number}")) for number in range(40)])
        for shard in backend.driver.shards:
            await backend.run(shard.drain())
        kept = await objects(backend, "index/0000", "index/0001")
        assert all(form.decode_checkpoint(data).schema == 2 for data in kept.values())
        cold = await handles.open(url)
        assert (await cold.scan(DUE)).items == (await backend.scan(DUE)).items
        assert places(cold) == 39
        assert (await cold.scan(Query("acme"))).items == (await backend.scan(Query("acme"))).items
        newest = [max(name for name in kept if name.startswith(folder)) for folder in ("index/0000", "index/0001")]
        assert [form.decode_checkpoint(kept[name]).min_writer for name in newest] == [2, 2]
        assert [shard.index.logged_writer for shard in cold.driver.shards] == [2, 2]


async def test_a_purge_erases_the_control_cells(anywhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No object holds what the control cells said, those that were changed without a commit among them; a neighbour's are whole."""
    monkeypatch.setattr(shards, "CHECKPOINT_BYTES_MIN", 500)
    async with Handles() as handles:
        backend = await handles.open(anywhere)
        await backend.append([behind(S, index=Index(control=b"word of s")), behind(T, index=Index(control=b"word of t"))])
        for number in range(3):
            assert await backend.change_index(await row(backend), Index(due_at=number, control=b"other word of s %d" % number))
        for _ in range(12):
            await backend.append([behind(S)])
        await backend.append([behind(S, kind=Kind.tombstone, status=Status.deleted)])
        await backend.purge(S)
        held = b"".join((await objects(backend, "log/0000", "log/0001", "index/0000", "index/0001")).values())
        assert b"word of s" not in held
        assert b"word of t" in held
        for handle in (backend, await handles.open(anywhere)):
            found = await row(handle)
            assert (found.due_at, found.control, found.size_bytes) == (None, b"", 0)
            assert (await row(handle, T)).control == b"word of t"
            assert not (await handle.scan(Query(None, order="due", status=int(Status.deleted)))).items


async def test_changes_and_appends_race(anywhere: str) -> None:
    """Two handles change the index and append to one session at once: every append is stored, and a change is made on its own row alone."""
    async with Handles() as handles:
        one, two = await handles.open(anywhere), await handles.open(anywhere)
        await one.append([behind(S, index=Index(due_at=0))])
        for number in range(1, 9):
            seen = await row(one)
            made, rival, outcomes = await asyncio.gather(
                one.change_index(seen, Index(due_at=2 * number)),
                two.change_index(seen, Index(due_at=2 * number + 1)),
                two.append([behind(S)]),
            )
            assert isinstance(outcomes[0], Appended)
            assert not (made and rival)
            expected = 2 * number if made else 2 * number + 1 if rival else seen.due_at
            assert (await row(two)).due_at == (await row(one)).due_at == expected
        assert (await row(one)).head.version == 9


async def test_a_change_without_an_answer_is_unknown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The change landed, its answer did not, and the store refuses to be read: `Unknown`, and the row shows it later."""
    original, reading = Folder.create, Folder.get

    async def create(self: Folder, name: str, data: bytes) -> bool:
        await original(self, name, data)
        raise Unknown("No answer came.")

    async def get(self: Folder, name: str) -> bytes | None:
        raise Unauthorized("The right was taken away.")

    async with Handles() as handles:
        backend = await handles.open(url + "&timeout=0.5")
        await backend.append([behind(S, index=Index(due_at=1))])
        seen = await row(backend)
        monkeypatch.setattr(Folder, "create", create)
        monkeypatch.setattr(Folder, "get", get)
        with pytest.raises(Unknown):
            await backend.change_index(seen, Index(due_at=2))
        monkeypatch.setattr(Folder, "create", original)
        monkeypatch.setattr(Folder, "get", reading)
        assert (await row(backend)).due_at == 2


async def test_a_store_of_schema_1_gets_no_longer_entries(url: str) -> None:
    """Appends that remove cells, a tombstone and a purge store what they stored before there were cells."""
    async with Handles() as handles:
        old = await of_schema_1(handles, url)
        removal = Index({}, due_at=NEVER, control=b"")
        (stored,) = await old.append([behind(T, index=removal)])
        assert isinstance(stored, Appended)
        await old.append([behind(T, kind=Kind.tombstone, status=Status.deleted, index=removal)])
        await old.purge(T)
        for data in (await objects(old, "log/0000", "log/0001")).values():
            assert all(len(entry) == 6 for entry in msgspec.msgpack.decode(data[40:])[1])
        assert set(await tag(old)) == {"perdure", "id", "shards"}


async def test_an_upgrade(anywhere: str) -> None:
    """It tells of its progress; the name tag has what schema 2 asks for and nothing else; the handle that upgraded writes no more,
    and reads on; a second run writes nothing."""
    async with Handles() as handles:
        old = await of_schema_1(handles, anywhere)
        before = await everything(old)
        told: list[tuple[str, int, int]] = []
        await old.migrate(1, lambda *progress: told.append(progress))
        assert [progress[1:] for progress in told] == [(0, 1), (1, 1)]
        (outcome,) = await old.append([behind(S)])
        assert isinstance(outcome, Unsupported)
        assert await everything(old) == before
        new = await handles.open(anywhere)
        assert set(await tag(new)) == {"perdure", "id", "shards", "min_writer"}
        written = await objects(new, "log/0000", "log/0001")
        await new.migrate(1, quiet)
        assert await objects(new, "log/0000", "log/0001") == written


class Kill:
    """Lets the writes of a folder end after some of them, as a kill does: what comes then is not done, or done without an answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, landed: bool) -> None:
        self.left: int | None = None
        for name in ("create", "put", "change"):
            monkeypatch.setattr(Folder, name, self._dying(getattr(Folder, name), landed=landed))

    def _dying(self, original: Callable[..., Any], *, landed: bool) -> Callable[..., Any]:
        async def write(*args: Any) -> Any:
            if self.left is not None:
                if self.left == 0:
                    if landed:
                        await original(*args)
                    self.left = -1
                if self.left < 0:
                    raise Corrupt("killed")
                self.left -= 1
            return await original(*args)

        return write


@pytest.mark.parametrize("landed", [False, True], ids=["not done", "done"])
async def test_an_upgrade_that_was_killed_is_run_again(landed: bool, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at each of its writes, the store reads the same, takes no write of the old schema once that is shut out, and is upgraded by
    the next run."""
    monkeypatch.setitem(upgrade.upgrade.__kwdefaults__, "lock_seconds", 0.05)
    monkeypatch.setattr(upgrade, "BEATS", 0.001)
    kill = Kill(monkeypatch, landed=landed)
    for number in range(10):
        async with Handles() as handles:
            place = url.replace("store", f"store{number}")
            old = await of_schema_1(handles, place)
            before = await everything(old)
            kill.left = number
            try:
                await old.migrate(1, quiet)
            except Corrupt:
                pass
            else:
                break
            finally:
                kill.left = None
            between = await handles.open(place)
            assert await everything(between) == before
            if between.schema == 1 and (await tag(between)).get("min_writer") == 2:
                (outcome,) = await between.append([behind(S)])
                assert isinstance(outcome, Unsupported)
                assert "run `perdure upgrade` again" in str(outcome)
            await between.migrate(1, quiet)
            new = await handles.open(place)
            assert (new.schema, await everything(new)) == (2, before)
            assert set(await tag(new)) == {"perdure", "id", "shards", "min_writer"}
            (refused,) = await old.append([behind(S)])
            assert isinstance(refused, Unsupported)
    assert number == 4, "the lock, two logs, the new schema"


async def test_two_upgrades_at_once(anywhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One waits for the other: it is told `Busy`, or finds the store upgraded; the store reads the same."""
    monkeypatch.setitem(upgrade.upgrade.__kwdefaults__, "lock_seconds", 2)
    async with Handles() as handles:
        old = await of_schema_1(handles, anywhere)
        before = await everything(old)
        other = await handles.open(anywhere)
        outcomes = await asyncio.gather(old.migrate(1, quiet), other.migrate(1, quiet), return_exceptions=True)
        assert None in outcomes
        assert all(outcome is None or isinstance(outcome, Busy) for outcome in outcomes)
        new = await handles.open(anywhere)
        assert (new.schema, await everything(new)) == (2, before)


async def test_a_writer_that_was_required_halfway_is_required_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store went away after the name tag and before the logs: whoever opens it then is refused, and the next call tells the logs."""
    original = Folder.create

    async def away(self: Folder, name: str, data: bytes) -> bool:
        if name.startswith("log/"):
            raise Unavailable("The store is away.")
        return await original(self, name, data)

    async with Handles() as handles:
        backend = await handles.open(url)
        await backend.append([behind(S)])
        with monkeypatch.context() as broken:
            broken.setattr(Folder, "create", away)
            with pytest.raises(Unavailable):
                await backend.require_writer(99)
        with pytest.raises(Unsupported, match="upgrade perdure"):
            await (await handles.open(url)).purge(S)
        assert isinstance((await backend.append([behind(S)]))[0], Appended)
        await backend.require_writer(99)
        assert isinstance((await backend.append([behind(S)]))[0], Unsupported)


async def test_what_a_later_version_wrote_is_kept(url: str) -> None:
    """Fields and entries that are not known stay through appends, changes of the index, truncation, purge and a new `min_writer`."""
    async with Handles() as handles:
        backend = await handles.open(url + "&namespace=one")
        named = {**await tag(backend), "perdure": 3, "shards": 1, "later": [1]}
        await put(backend, "perdure.json", json.dumps(named).encode())
        later = await handles.open(url.replace("shards=2", "shards=1") + "&namespace=one")
        assert (later.schema, later.capabilities.scan_orders) == (3, ("id", "due"))
        await later.append([behind(S, index=Index(due_at=5)), behind(T, index=Index(due_at=6)), behind(T)])
        names = sorted(await objects(later, "log/0000"))
        for name in names:
            await put(later, name, _longer((await objects(later, "log/0000"))[name]))
        cold = await handles.open(url.replace("shards=2", "shards=1") + "&namespace=one")
        (anchored,) = await cold.append([behind(S, kind=Kind.anchor)])
        assert isinstance(anchored, Appended)
        assert await cold.change_index(await row(cold), Index(due_at=7))
        await cold.truncate(S, 2, (2, anchored.head.hash))
        await cold.append([behind(T, kind=Kind.tombstone, status=Status.deleted)])
        await cold.purge(T)
        await cold.require_writer(2)
        assert [(found.session, found.due_at) for found in (await cold.scan(DUE)).items] == [(S, 7)]
        assert isinstance((await cold.append([expecting(S, anchored.head)]))[0], Appended)
        found = await objects(cold, "log/0000")
        for name in names:
            id, entries, later_field = msgspec.msgpack.decode(found[name][40:])
            assert (len(id), later_field) == (16, "segment's")
            assert UNKNOWN in entries
            assert all(entry[9] == "entry's" for entry in entries)
            assert all(record[12] == "record's" for entry in entries for record in entry[3])
        await cold.require_writer(3)
        assert await tag(cold) == {**named, "min_writer": 3}
        (refused,) = await cold.append([behind(S)])
        assert isinstance(refused, Unsupported)


def _longer(data: bytes) -> bytes:
    """A segment as a later version may write it."""
    id, entries = msgspec.msgpack.decode(data[40:])
    longer = [[*entry, *[None] * (9 - len(entry)), "entry's"] for entry in entries]
    for entry in longer:
        entry[3] = [[*record, "record's"] for record in entry[3]]
    payload = msgspec.msgpack.encode([id, [*longer, UNKNOWN], "segment's"])
    return data[:8] + hashlib.sha256(payload).digest() + payload
