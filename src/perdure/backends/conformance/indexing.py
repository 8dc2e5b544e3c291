"""Cases of schema 2: the cells of the index row, the order `due`, changes without a commit, and writers that are too old.

An engine is asked for them when it declares `"due"` among its `scan_orders`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.backends.conformance.kit import Kit, S, behind, expecting, indexed, indexed_of_two, record, refuses, versions
from perdure.backends.spi import (
    CONTROL_BYTES_MAX,
    NEVER,
    Append,
    Appended,
    Backend,
    Head,
    Index,
    Indexed,
    Known,
    Loaded,
    Query,
    Record,
    Refused,
    Row,
    Snapshot,
    Versioned,
)
from perdure.errors import Corrupt, Error, Invalid, TooLarge, Unsupported
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey

_DAY = 86_400 * 10**9
_EVERYTHING = (1 << 63) - 1


def _able(backend: Backend) -> Indexed:
    assert isinstance(backend, Indexed), "it lists in the order 'due' and is not Indexed"
    return backend


async def _row(backend: Backend, session: SessionKey = S) -> Row:
    loaded = await backend.load(session)
    assert loaded is not None
    return loaded.row


async def _cells(backend: Backend, session: SessionKey = S) -> tuple[int | None, bytes, int]:
    row = await _row(backend, session)
    return row.due_at, row.control, row.size_bytes


async def _due(backend: Backend, *, limit: int = 100, **query: Any) -> list[Row]:
    """All rows in the order `due`, page by page."""
    rows: list[Row] = []
    cursor: str | None = None
    while True:
        page = await backend.scan(Query(**{"tenant": None, "order": "due", **query}), cursor=cursor, limit=limit)
        assert len(page.items) <= limit
        rows += page.items
        cursor = page.cursor
        if cursor is None:
            return rows


async def _names(backend: Backend, **query: Any) -> list[str]:
    return [row.session.id for row in await _due(backend, **query)]


@indexed
async def cells_are_written_with_their_commit(kit: Kit) -> None:
    """The first append and a later one set cells; what is `None` stays, in loads and in both listings."""
    assert isinstance(await kit.one(behind(S, index=Index({"a": "b"}, 5, b"\0policy\xff", 700))), Appended)
    assert await _cells(kit.backend) == (5, b"\0policy\xff", 700)
    await kit.one(behind(S, index=Index(due_at=_DAY)))
    await kit.chain(S, 2)
    assert await _cells(kit.backend) == (_DAY, b"\0policy\xff", 700)
    row = await _row(kit.backend)
    assert row.tags == {"a": "b"}
    assert list((await kit.backend.scan(Query("acme"))).items) == [row]
    assert await _due(kit.backend) == [row]
    assert isinstance(await kit.one(behind(SessionKey("acme", "plain"))), Appended)
    assert await _cells(kit.backend, SessionKey("acme", "plain")) == (None, b"", 0)


@indexed
async def cells_are_removed(kit: Kit) -> None:
    """`NEVER` and `b""` remove what was there, and remove nothing where nothing was; the row is not due any more."""
    await kit.one(behind(S, index=Index(due_at=NEVER, control=b"")))
    assert await _cells(kit.backend) == (None, b"", 0)
    await kit.one(behind(S, index=Index(due_at=0, control=b"x", size_bytes=3)))
    assert await _names(kit.backend) == ["s"]
    await kit.one(behind(S, index=Index(due_at=NEVER)))
    assert await _cells(kit.backend) == (None, b"x", 3)
    assert await _names(kit.backend) == []
    await kit.one(behind(S, index=Index(control=b"", size_bytes=0)))
    assert await _cells(kit.backend) == (None, b"", 0)


@indexed
async def cells_are_written_or_none_is(kit: Kit) -> None:
    """An append that was refused, that broke, or whose key was applied leaves the cells; two records and their cells go together."""
    first, _ = await kit.chain(S, 2)
    await kit.one(behind(S, key="k", index=Index(due_at=7, control=b"seven", size_bytes=7)))
    other = Index({"no": "no"}, 9, b"nine", 9)
    stale = msgspec.structs.replace(expecting(S, first), index=other)
    assert isinstance(await kit.one(stale), Refused)
    assert isinstance(await kit.one(behind(S, key="k", index=other)), Known)
    assert isinstance(await kit.one(behind(S, skip=1, index=other)), Corrupt)
    assert await _cells(kit.backend) == (7, b"seven", 7)
    assert [row.due_at for row in await _due(kit.backend)] == [7]

    def two(head: Head | None) -> Sequence[Record]:
        lease = record(S, head, kind=Kind.configure)
        return (lease, record(S, lease.head))

    assert isinstance(await kit.one(Append(S, two, None, Index(due_at=11, control=b"eleven"))), Appended)
    assert await versions(kit.backend, S) == [1, 2, 3, 4, 5]
    assert await _cells(kit.backend) == (11, b"eleven", 7)


@indexed
async def appends_of_one_call_set_cells_in_order(kit: Kit) -> None:
    """Several appends to a session in one call set its cells one after another; those of other sessions are their own."""
    t = SessionKey("acme", "t")
    outcomes = await kit.backend.append(
        [
            behind(S, index=Index(due_at=1, control=b"1")),
            behind(t, index=Index(due_at=5)),
            behind(S, index=Index(due_at=2)),
            behind(S, index=Index(control=b"3")),
        ]
    )
    assert [type(outcome) for outcome in outcomes] == [Appended] * 4
    assert await _cells(kit.backend) == (2, b"3", 0)
    assert await _cells(kit.backend, t) == (5, b"", 0)
    assert await _names(kit.backend) == ["s", "t"]


@indexed
async def cells_have_limits(kit: Kit) -> None:
    """`CONTROL_BYTES_MAX` are stored; more is `TooLarge`, numbers out of range are `Invalid`, and nothing is stored."""
    whole = bytes(range(256)) * 4
    assert len(whole) == CONTROL_BYTES_MAX
    assert isinstance(await kit.one(behind(S, index=Index(due_at=_EVERYTHING, control=whole, size_bytes=_EVERYTHING))), Appended)
    assert await _cells(kit.backend) == (_EVERYTHING, whole, _EVERYTHING)
    t = SessionKey("acme", "t")
    wrong = ((Index(control=whole + b"x"), TooLarge), (Index(due_at=-2), Invalid), (Index(due_at=1 << 63), Invalid))
    for index, kind in (*wrong, (Index(size_bytes=-1), Invalid)):
        outcomes = await kit.backend.append([behind(S, index=index), behind(t)])
        assert [type(outcome) for outcome in outcomes] == [kind, Appended], index
        await refuses(kind, _able(kit.backend).change_index(await _row(kit.backend), index))
    assert await versions(kit.backend, S) == [1]
    assert await _cells(kit.backend) == (_EVERYTHING, whole, _EVERYTHING)
    await refuses(Invalid, _able(kit.backend).change_index(await _row(kit.backend), Index({"a": "b"})))


@indexed
async def what_is_due_comes_in_order(kit: Kit) -> None:
    """Rows that are due come by time, then tenant, then id, of every tenant, page by page; `due_before` and the other conditions hold."""
    places = {
        ("b", "z"): 30,
        ("acme", "é"): 10,
        ("acme", "z"): 10,
        ("acme", "late"): 2 * _DAY,
        ("a", "z"): 10,
        ("b", "a"): 10**9,
        ("b", "b"): 9,
    }
    for (tenant, id), due_at in places.items():
        tags = {"team": "ops"} if id == "z" else {}
        await kit.one(behind(SessionKey(tenant, id), index=Index(tags, due_at)))
    await kit.one(behind(SessionKey("acme", "never")))
    order = [
        SessionKey(*place) for place, _ in sorted(places.items(), key=lambda item: (item[1], item[0][0].encode(), item[0][1].encode()))
    ]
    for limit in (100, 1, 2, 3):
        assert [row.session for row in await _due(kit.backend, limit=limit)] == order
    assert await _names(kit.backend, due_before=10) == ["b"]
    assert await _names(kit.backend, due_before=11, limit=2) == ["b", "z", "z", "é"]
    assert await _names(kit.backend, due_before=9) == []
    assert await _names(kit.backend, tenant="acme", limit=1) == ["z", "é", "late"]
    assert await _names(kit.backend, tenant="acme", prefix="l") == ["late"]
    assert [row.session.tenant for row in await _due(kit.backend, tags={"team": "ops"}, limit=1)] == ["a", "acme", "b"]
    assert await _names(kit.backend, tenant="nobody") == []
    for query in (Query(None), Query("acme", due_before=10)):
        await refuses(Unsupported, kit.backend.scan(query))
    await refuses(Invalid, kit.backend.scan(Query(None, order="due"), cursor="no cursor"))


@indexed
async def pages_of_what_is_due_are_stable(kit: Kit) -> None:
    """A row that stays is seen exactly once while others are added, moved on and removed between the pages."""
    ids = [f"d{number:02}" for number in range(20)]
    await kit.backend.append([behind(SessionKey("acme", id), index=Index(due_at=1000 + number // 4)) for number, id in enumerate(ids)])
    seen: list[str] = []
    cursor: str | None = None
    number = 0
    while True:
        page = await kit.backend.scan(Query(None, order="due", due_before=2000), cursor=cursor, limit=3)
        for row in page.items:
            seen.append(row.session.id)
            if row.session.id in ("d03", "d08"):
                assert await _able(kit.backend).change_index(row, Index(due_at=5000))
            if row.session.id == "d10":
                assert await _able(kit.backend).change_index(row, Index(due_at=NEVER))
        cursor = page.cursor
        if cursor is None:
            break
        number += 1
        await kit.one(behind(SessionKey("acme", f"d00-{number}"), index=Index(due_at=1001)))
    assert [id for id in seen if "-" not in id] == ids
    assert len(set(seen)) == len(seen)
    assert await _names(kit.backend, due_before=2000, prefix="d1") == [id for id in ids if id[:2] == "d1" and id != "d10"]
    assert (await _names(kit.backend, due_before=6000))[-2:] == ["d03", "d08"]


@indexed
async def the_index_changes_without_a_commit(kit: Kit) -> None:
    """A change on the row that is there is made; it moves no head, and neither the chain nor the feed shows it."""
    await kit.one(behind(S, index=Index({"a": "b"}, 5, b"policy", 10)))
    feed = await kit.backend.feed()
    assert await _able(kit.backend).change_index(await _row(kit.backend), Index(due_at=6))
    assert await _cells(kit.backend) == (6, b"policy", 10)
    assert await _able(kit.backend).change_index(await _row(kit.backend), Index(due_at=4, control=b"seen", size_bytes=11))
    assert await _cells(kit.backend) == (4, b"seen", 11)
    assert [row.due_at for row in await _due(kit.backend)] == [4]
    assert await _able(kit.backend).change_index(await _row(kit.backend), Index(due_at=NEVER, control=b""))
    assert await _cells(kit.backend) == (None, b"", 11)
    assert await _due(kit.backend) == []
    assert await _able(kit.backend).change_index(await _row(kit.backend), Index(due_at=3))
    assert [row.due_at for row in await _due(kit.backend)] == [3]
    row = await _row(kit.backend)
    assert (row.head.version, row.tags) == (1, {"a": "b"})
    assert await versions(kit.backend, S) == [1]
    assert not [change for change in (await kit.backend.feed(feed.cursor)).items if change.record.head.version != 1]
    assert isinstance(await kit.one(expecting(S, row.head)), Appended)


@indexed
async def a_change_on_another_row_changes_nothing(kit: Kit) -> None:
    """Where the head or `due_at` is another than the row says, or there is no session, nothing changes; of two with one row one is made."""
    old = (await kit.chain(S, 1), await _row(kit.backend))[1]
    await kit.one(behind(S, index=Index(due_at=5, control=b"new")))
    now = await _row(kit.backend)
    forged = msgspec.structs.replace(now, head=msgspec.structs.replace(now.head, hash=b"\1" * 32))
    unborn = msgspec.structs.replace(now, session=SessionKey("acme", "nobody"))
    for row in (old, forged, unborn, msgspec.structs.replace(now, due_at=6), msgspec.structs.replace(now, due_at=None)):
        assert await _able(kit.backend).change_index(row, Index(due_at=9, control=b"wrong", size_bytes=9)) is False
    assert await _cells(kit.backend) == (5, b"new", 0)
    assert await kit.backend.load(unborn.session) is None
    assert [row.due_at for row in await _due(kit.backend)] == [5]
    assert await _able(kit.backend).change_index(now, Index(due_at=8)) is True
    assert await _able(kit.other).change_index(now, Index(due_at=9)) is False
    assert await _cells(kit.backend) == (8, b"new", 0)


@indexed
async def cells_end_with_the_tombstone_and_the_purge(kit: Kit) -> None:
    """A tombstone that says so ends them; a deleted session is due among the deleted; a purge leaves none, for the next life too."""
    await kit.one(behind(S, index=Index({"a": "b"}, 5, b"policy", 10)))
    gone = Index({}, due_at=NEVER, control=b"")
    await kit.one(behind(S, kind=Kind.tombstone, status=Status.deleted, index=gone))
    assert await _due(kit.backend) == []
    assert await _cells(kit.backend) == (None, b"", 10)
    assert await _able(kit.backend).change_index(await _row(kit.backend), Index(due_at=6, control=b"grace"))
    assert await _due(kit.backend) == []
    assert [row.due_at for row in await _due(kit.backend, status=int(Status.deleted))] == [6]
    await kit.backend.purge(S)
    assert await _due(kit.backend, status=int(Status.deleted)) == []
    assert await _cells(kit.backend) == (None, b"", 0)
    await kit.chain(S, 1)
    assert await _cells(kit.backend) == (None, b"", 0)


@indexed
async def snapshots_bring_the_size(kit: Kit) -> None:
    """A snapshot that is kept sets `size_bytes` where one is given; one that is not kept leaves it."""
    first, second = await kit.chain(S, 2)
    able = _able(kit.backend)
    await able.put_snapshot(S, Snapshot(1, first.hash, b"one"), size_bytes=500)
    assert (await _row(kit.backend)).size_bytes == 500
    await able.put_snapshot(S, Snapshot(2, b"\1" * 32, b"wrong"), size_bytes=9)
    assert (await _row(kit.backend)).size_bytes == 500
    await able.put_snapshot(S, Snapshot(2, second.hash, b"two"))
    assert (await _row(kit.backend)).size_bytes == 500
    assert isinstance(await kit.one(expecting(S, second)), Appended)


@indexed
async def truncation_takes_the_snapshots_when_asked(kit: Kit) -> None:
    """With `snapshot` every snapshot goes, and the anchor, its cells and the keys stay; one that is put again is offered."""
    await kit.chain(S, 1, key="k")
    heads = await kit.chain(S, 4)
    able = _able(kit.backend)
    await able.put_snapshot(S, Snapshot(5, heads[-1].hash, b"state5"))
    outcome = await kit.one(behind(S, kind=Kind.anchor, index=Index(control=b"anchor")))
    assert isinstance(outcome, Appended)
    anchor = outcome.head
    await able.put_snapshot(S, Snapshot(anchor.version, anchor.hash, b"state6"))
    await refuses(Invalid, able.truncate(S, anchor.version, (5, heads[-1].hash), snapshot=True))
    loaded = await kit.backend.load(S)
    assert loaded is not None
    assert loaded.snapshot is not None
    await able.truncate(S, anchor.version, (anchor.version, anchor.hash), snapshot=True)

    async def load(backend: Backend) -> Loaded:
        loaded = await backend.load(S)
        assert loaded is not None
        return loaded

    for backend in (kit.backend, kit.other):
        assert (await load(backend)).snapshot is None
        assert await versions(backend, S) == [anchor.version]
        assert await _cells(backend) == (None, b"anchor", 0)
        assert await backend.find_key(S, "k") is not None
    await able.put_snapshot(S, Snapshot(anchor.version, anchor.hash, b"state6"))
    loaded = await load(kit.backend)
    assert loaded.snapshot == Snapshot(anchor.version, anchor.hash, b"state6")
    assert not loaded.records
    assert isinstance(await kit.one(expecting(S, anchor)), Appended)


@indexed
async def truncation_keeps_the_snapshots_otherwise(kit: Kit) -> None:
    """Without `snapshot` a truncation leaves the snapshots at and above its first record."""
    await kit.chain(S, 4)
    (anchor,) = await kit.chain(S, 1, kind=Kind.anchor)
    await kit.backend.put_snapshot(S, Snapshot(anchor.version, anchor.hash, b"state"))
    await kit.backend.truncate(S, 5, (anchor.version, anchor.hash))
    loaded = await kit.backend.load(S)
    assert loaded is not None
    assert loaded.snapshot == Snapshot(anchor.version, anchor.hash, b"state")


@indexed_of_two
async def a_second_handle_sees_the_cells(kit: Kit) -> None:
    """What one handle wrote to a row the other reads, finds due and changes."""
    await kit.one(behind(S, index=Index({"a": "b"}, 5, b"policy", 10)))
    assert await _cells(kit.other) == (5, b"policy", 10)
    (row,) = await _due(kit.other)
    assert row == await _row(kit.backend)
    assert await _able(kit.other).change_index(row, Index(due_at=NEVER))
    assert await _cells(kit.backend) == (None, b"policy", 10)
    assert await _due(kit.backend) == []
    await kit.chain(S, 1)
    assert await _able(kit.other).change_index(row, Index(due_at=9)) is False


@indexed
async def a_store_that_is_made_now_has_the_newest_schema(kit: Kit) -> None:
    """It says its schema, and refuses to migrate from one that it is not."""
    assert isinstance(kit.backend, Versioned)
    assert kit.backend.schema >= 2
    await refuses(Invalid, kit.backend.migrate(99, lambda _what, _done, _total: None))


@indexed
async def a_writer_that_is_too_old_is_refused(kit: Kit) -> None:
    """Once a newer writer is required, every write of every open handle is refused; nothing is written, reads go on, and it never falls."""
    outcome = await kit.one(behind(S, index=Index(due_at=5)))
    assert isinstance(outcome, Appended)
    row = await _row(kit.backend)
    assert await _row(kit.other) == row
    assert isinstance(kit.backend, Versioned)
    await kit.backend.require_writer(1)
    assert isinstance((await kit.other.append([behind(SessionKey("acme", "t"))]))[0], Appended)
    await kit.backend.require_writer(99)
    await kit.backend.require_writer(2)
    await kit.pass_min_writer()
    for backend in (kit.backend, kit.other):
        for append in (behind(S), behind(SessionKey("acme", "new")), behind(S, key="k")):
            await _is_refused(backend, append)
        able = _able(backend)
        await refuses(Unsupported, able.change_index(row, Index(due_at=6)))
        await refuses(Unsupported, able.put_snapshot(S, Snapshot(1, row.head.hash, b"state")))
        await refuses(Unsupported, backend.truncate(S, 1, (1, row.head.hash)))
        await refuses(Unsupported, backend.purge(S))
    assert await versions(kit.backend, S) == [1]
    assert await kit.backend.heads([S, SessionKey("acme", "new")]) == [row.head, None]
    assert await _row(kit.other) == row


async def _is_refused(backend: Backend, append: Append) -> None:
    """Whether the call raises or its outcome is the error is the engine's choice: nothing was written either way."""
    try:
        (outcome,) = await backend.append([append])
    except Error as error:
        outcome = error
    assert isinstance(outcome, Unsupported), outcome
    assert "upgrade" in str(outcome), outcome
