"""Cases of reading: ranges, snapshots, listing, the feed, names."""

from __future__ import annotations

from perdure.backends.conformance.kit import Kit, S, behind, case, record, refuses, versions
from perdure.backends.spi import Index, Query, Snapshot
from perdure.errors import Unsupported
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey


@case
async def records_come_back_as_they_were(kit: Kit) -> None:
    """Every column of a record is read back equal, in `read`, `load` and `feed`."""
    columns = {"key": "ключ", "request": b"\0" * 16, "kind": Kind.data, "body": bytes(range(256))}
    (head,) = await kit.chain(S, 1, **columns)
    expected = record(S, None, **columns)  # type: ignore[arg-type]
    loaded = await kit.backend.load(S)
    assert loaded is not None
    assert list(await kit.backend.read(S)) == [expected]
    assert list(loaded.records) == [expected]
    assert loaded.row.head == head
    assert [change.record for change in (await kit.backend.feed()).items] == [expected]


@case
async def ranges_are_exclusive_and_go_both_ways(kit: Kit) -> None:
    """`read` honours after, before, limit and reverse, and is empty for what is not there."""
    await kit.chain(S, 10)

    async def read(**options: object) -> list[int]:
        return [item.head.version for item in await kit.backend.read(S, **options)]  # type: ignore[arg-type]

    assert await read(after=3, before=7) == [4, 5, 6]
    assert await read(after=3, before=7, reverse=True) == [6, 5, 4]
    assert await read(limit=2) == [1, 2]
    assert await read(limit=2, reverse=True) == [10, 9]
    assert await read(after=10) == []
    assert list(await kit.backend.read(SessionKey("acme", "none"))) == []
    assert await kit.backend.load(SessionKey("acme", "none")) is None


@case
async def pages_are_bounded_in_bytes(kit: Kit) -> None:
    """Ten records of 1 MiB come in several pages, none of them empty before the end."""
    size = min(1 << 20, kit.backend.capabilities.record_bytes_max - 64)
    await kit.chain(S, 10, body=b"x" * size)
    page = await kit.backend.read(S)
    assert 1 <= len(page) < 10 or size < 1 << 19
    assert await versions(kit.backend, S) == list(range(1, 11))


@case
async def snapshots_are_offered_at_or_below(kit: Kit) -> None:
    """`load` gives the newest snapshot at or below the version, and the records after it."""
    heads = await kit.chain(S, 8)
    for version in (3, 6):
        await kit.backend.put_snapshot(S, Snapshot(version, heads[version - 1].hash, b"state%d" % version))
    for at, base in ((None, 6), (8, 6), (6, 6), (5, 3)):
        loaded = await kit.backend.load(S, at)
        assert loaded is not None
        found = loaded.snapshot.version if loaded.snapshot else 0
        assert found <= base if at == 5 else found == base
        assert [item.head.version for item in loaded.records] == list(range(found + 1, (at or 8) + 1))
    loaded = await kit.backend.load(S, 2)
    assert loaded is not None
    assert loaded.snapshot is None


@case
async def a_foreign_snapshot_is_not_kept(kit: Kit) -> None:
    """A snapshot whose commit is not in the chain with its hash is silently not kept."""
    await kit.chain(S, 3)
    await kit.backend.put_snapshot(S, Snapshot(2, b"\1" * 32, b"wrong"))
    await kit.backend.put_snapshot(S, Snapshot(9, b"\1" * 32, b"future"))
    loaded = await kit.backend.load(S)
    assert loaded is not None
    assert loaded.snapshot is None


@case
async def listing_is_by_prefix_and_tag_and_tenant(kit: Kit) -> None:
    """`scan` honours prefix (literally), tags and tenant, in the order of the ids' bytes."""
    ids = ["a", "a%", "a%1", "a*", "aé", "b", "trip-1", "trip-10", "trip-2"]
    for id in ids:
        await kit.one(behind(SessionKey("acme", id), index=Index({"team": "ops" if id.startswith("t") else "dev", "n": id})))
    await kit.one(behind(SessionKey("other", "a")))

    async def scan(**options: object) -> list[str]:
        return [row.session.id for row in (await kit.backend.scan(Query("acme", **options))).items]  # type: ignore[arg-type]

    assert await scan() == sorted(ids, key=str.encode)
    assert await scan(prefix="a%") == ["a%", "a%1"]
    assert await scan(prefix="trip-1") == ["trip-1", "trip-10"]
    assert await scan(tags={"team": "ops"}) == ["trip-1", "trip-10", "trip-2"]
    assert await scan(tags={"team": "ops", "n": "b"}) == []
    await kit.one(behind(SessionKey("acme", "b"), index=Index({"team": "ops"})))
    assert await scan(tags={"team": "ops"}, prefix="b") == ["b"]
    assert await scan(tags={"n": "b"}) == []


@case
async def listing_pages_are_stable(kit: Kit) -> None:
    """A session that is there throughout is seen exactly once, while others are added between the pages."""
    ids = [f"s{number:03}" for number in range(25)]
    await kit.backend.append([behind(SessionKey("acme", id)) for id in ids])
    seen, cursor, extra = list[str](), None, 0
    while True:
        page = await kit.backend.scan(Query("acme"), cursor=cursor, limit=4)
        seen += [row.session.id for row in page.items]
        cursor = page.cursor
        if cursor is None:
            break
        extra += 1
        await kit.one(behind(SessionKey("acme", f"s{extra:03}-new")))
    assert [id for id in seen if not id.endswith("new")] == ids
    assert len(set(seen)) == len(seen)


@case
async def listing_hides_the_deleted_unless_asked(kit: Kit) -> None:
    """By default deleted sessions are not listed; by their status they are."""
    await kit.chain(S, 1)
    await kit.chain(S, 1, kind=Kind.tombstone, status=Status.deleted)
    assert not (await kit.backend.scan(Query("acme"))).items
    (row,) = (await kit.backend.scan(Query("acme", status=int(Status.deleted)))).items
    assert row.head.version == 2
    await refuses(Unsupported, kit.backend.scan(Query("acme", order="colour")))


@case
async def tags_end_with_the_tombstone_that_says_so(kit: Kit) -> None:
    """An append without tags leaves them; one with `{}` ends them, for listings and loads, also in the life that follows."""

    async def tagged() -> tuple[int, dict[str, str]]:
        loaded = await kit.backend.load(S)
        assert loaded is not None
        rows = [
            (await kit.backend.scan(Query("acme", tags={"team": "ops"}, status=status))).items for status in (None, int(Status.deleted))
        ]
        return sum(map(len, rows)), dict(loaded.row.tags)

    await kit.one(behind(S, index=Index({"team": "ops"})))
    await kit.chain(S, 1)
    assert await tagged() == (1, {"team": "ops"})
    await kit.one(behind(S, kind=Kind.tombstone, status=Status.deleted, index=Index({})))
    assert await tagged() == (0, {})
    await kit.chain(S, 1, status=Status.active)
    assert await tagged() == (0, {})


@case
async def the_feed_has_everything_in_order(kit: Kit) -> None:
    """Every record of every tenant comes at least once, a session's in version order, and the last cursor goes on later."""
    sessions = [SessionKey("acme", "a"), SessionKey("acme", "b"), SessionKey("other", "a")]
    for _ in range(5):
        await kit.backend.append([behind(session) for session in sessions])
    seen: dict[SessionKey, list[int]] = {session: [] for session in sessions}
    cursor: str | None = None
    while (page := await kit.backend.feed(cursor, limit=4)).items:
        cursor = page.cursor
        for change in page.items:
            if change.record.head.version not in seen[change.session]:
                seen[change.session].append(change.record.head.version)
    assert all(found == [1, 2, 3, 4, 5] for found in seen.values())
    await kit.chain(S, 1)
    assert S in [change.session for change in (await kit.backend.feed(page.cursor)).items]


@case
async def names_are_kept_apart(kit: Kit) -> None:
    """Ids that look alike are different sessions: prefixes, case, separators, spaces, composed and decomposed letters."""
    ids = ["s", "S", "s/", "s/x", "s ", "s:1", "é", "e\u0301", "x" * 255, "%", "🚲"]
    sessions = [SessionKey(tenant, id) for tenant in ("acme", "acme/s", "a") for id in ids]
    await kit.backend.append([behind(session, key="k", body=repr(session).encode()) for session in sessions])
    for session in sessions:
        assert [item.body for item in await kit.backend.read(session)] == [repr(session).encode()]
