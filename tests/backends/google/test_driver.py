"""The driver of Google's services on entities in memory: what each call costs, and what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from perdure.backends.conformance import CASES, Case, behind, expecting, record
from perdure.backends.google import driver as google
from perdure.backends.google import layout
from perdure.backends.google.entities import Entity, Refused
from perdure.backends.spi import Appended, Index, Known, Query, Snapshot
from perdure.backends.spi import Refused as Conflict
from perdure.errors import Corrupt, Invalid, TooLarge, Unavailable, Unknown, Unsupported
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey
from tests.support.backends.memory_entities import MemoryEntities, on

S = SessionKey("acme", "s")


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_documented_conditions_are_enough(case: Case) -> None:
    """The conformance kit passes on entities that know nothing but versions."""
    case.run(lambda: on(MemoryEntities()), lambda backend: on(MemoryEntities(backend.driver.entities.data)))


async def test_a_group_is_one_request_and_so_is_a_warm_look() -> None:
    """64 sessions, new or known, with keys, are one commit; heads are one look."""

    entities = MemoryEntities()
    async with on(entities) as backend:
        sessions = [SessionKey("acme", f"s{number}") for number in range(64)]
        await backend.append([behind(session, key="k") for session in sessions])
        entities.calls.clear()
        outcomes = await backend.append([behind(session, key="k2") for session in sessions])
        assert all(isinstance(outcome, Appended) for outcome in outcomes)
        assert entities.calls == {"commit": 1}
        await backend.heads(sessions)
        assert entities.calls == {"commit": 1, "get": 1}


async def test_who_lost_a_race_does_not_hold_up_the_others() -> None:
    """Of a group in which one head moved and one key is known, the others are stored; each gets its own answer."""

    entities = MemoryEntities()
    async with on(entities) as mine, on(entities) as theirs:
        sessions = [SessionKey("acme", f"s{number}") for number in range(5)]
        first = await mine.append([behind(session, key="k") for session in sessions])
        heads = [outcome.head for outcome in first]  # type: ignore[union-attr]
        await theirs.append([behind(sessions[1]), behind(sessions[3], key="done")])
        appends = [expecting(session, head, key="new") for session, head in zip(sessions, heads, strict=True)]
        appends[3] = expecting(sessions[3], heads[3], key="done")
        outcomes = await mine.append(appends)
        assert [type(outcome) for outcome in outcomes] == [Appended, Conflict, Appended, Known, Appended]


async def test_a_refusal_without_a_reason_is_tried_again() -> None:
    """A commit that is aborted because others were writing is made anew; one that always is, is `Unavailable` and not applied."""

    entities = MemoryEntities()
    async with on(entities) as backend:
        entities.troubles = [("before", Refused())] * 3
        assert isinstance((await backend.append([behind(S)]))[0], Appended)
        entities.troubles = [("before", Refused())] * 100
        assert isinstance((await backend.append([behind(S, key="k")]))[0], Unavailable)
        entities.troubles = []
        (outcome,) = await backend.append([behind(S, key="k")])
        assert isinstance(outcome, Appended) and outcome.head.version == 2


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_answer_is_looked_up(when: str) -> None:
    """Applied or not, the caller hears what is true, and it is there once."""

    entities = MemoryEntities()
    async with on(entities) as backend:
        await backend.append([behind(S)])
        entities.troubles = [(when, Unknown("cut"))]
        (outcome,) = await backend.append([behind(S, key="k")])
        assert isinstance(outcome, Appended) and outcome.head.version == 2
        assert [one.key for one in await backend.read(S)] == [None, "k"]


async def test_what_is_larger_than_an_entity_goes_in_pieces() -> None:
    """Records and snapshots of up to 16 MiB come back; no entity is above 1 MiB; larger ones are refused with both numbers."""

    entities = MemoryEntities()
    async with on(entities) as backend:
        body = bytes(range(256)) * (1 << 16)
        for size in (google.WHOLE_BYTES - 100, google.WHOLE_BYTES, 1 << 20, (16 << 20) - 100):
            (outcome,) = await backend.append([behind(S, body=body[:size])])
            assert isinstance(outcome, Appended), outcome
        records = await backend.read(S, limit=1, reverse=True)
        assert len(records[0].body) == (16 << 20) - 100 and records[0].body == body[: (16 << 20) - 100]
        await backend.put_snapshot(S, Snapshot(3, (await backend.read(S, after=2, limit=1))[0].head.hash, body))
        loaded = await backend.load(S)
        assert loaded is not None and loaded.snapshot is not None and loaded.snapshot.body == body and len(loaded.records) == 1
        assert (
            max(sum(len(value) for value in entity.fields.values() if type(value) is bytes) for entity in entities.data.values()) < 1 << 20
        )
        (refused,) = await backend.append([behind(S, body=body + b"x")])
        assert isinstance(refused, TooLarge) and "16,777,216" in str(refused)
        with pytest.raises(TooLarge):
            await backend.put_snapshot(S, Snapshot(4, loaded.row.head.hash, body + b"x"))


async def test_ids_that_are_paths_or_dots_keep_their_order() -> None:
    """Ids of slashes, dots and anything else are listed by their bytes, by prefix, page by page, and only their tenant's."""
    ids = [
        "a",
        "a.",
        "a..",
        "a./",
        "a.b",
        "a/",
        "a/.",
        "a/b",
        "a b",
        "a-b",
        "a0",
        "a_",
        ".",
        "..",
        "__x__",
        "/",
        "ä",
        "😀",
        "%2F",
        "a.0",
        "a.1",
    ]

    async with on(MemoryEntities()) as backend:
        for tenant in ("acme", "acme.", "acme/a", "acm"):
            await backend.append([behind(SessionKey(tenant, id)) for id in ids])
        for prefix in ("", "a", "a.", "a/", "/", "."):
            found: list[str] = []
            cursor = None
            while True:
                page = await backend.scan(Query("acme", prefix), cursor=cursor, limit=3)
                found += [row.session.id for row in page.items]
                cursor = page.cursor
                if cursor is None:
                    break
            assert found == sorted([id for id in ids if id.startswith(prefix)], key=str.encode)


async def test_a_listing_by_tag_asks_for_the_tag() -> None:
    """Of hundreds of sessions, those with a tag or a status are found by the service, not by reading all."""

    entities = MemoryEntities()
    async with on(entities) as backend:
        for start in range(0, 512, 64):
            await backend.append(
                [
                    behind(SessionKey("acme", f"s{number:03}"), index=Index({"team": "red" if number % 100 == 7 else "blue", "x": "y"}))
                    for number in range(start, start + 64)
                ]
            )
        await backend.append([behind(SessionKey("acme", "s107"), status=Status.archived)])
        entities.calls.clear()
        page = await backend.scan(Query("acme", tags={"team": "red", "x": "y"}))
        assert [row.session.id for row in page.items] == ["s007", "s107", "s207", "s307", "s407", "s507"]
        page = await backend.scan(Query("acme", status=Status.archived))
        assert [row.session.id for row in page.items] == ["s107"]
        assert entities.calls == {"query": 2}


async def test_a_purge_leaves_the_stub_and_nothing_else() -> None:
    """No word, key or tag of a purged session is in any entity; one that was cut short goes on; what came after it stays."""
    words = [b"secret of s", b"key of s", b"tag of s"]

    entities = MemoryEntities()

    def held() -> bytes:
        return repr([(path, entity.fields) for path, entity in entities.data.items()]).encode()

    async with on(entities) as backend:
        big = b"secret of s" * 100_000
        await backend.append([behind(S, body=big, key="key of s", index=Index({"a": "tag of s"}))])
        (second,) = await backend.append([behind(S, body=b"secret of s")])
        await backend.put_snapshot(S, Snapshot(2, second.head.hash, b"secret of s"))  # type: ignore[union-attr]
        (last,) = await backend.append([behind(S, status=Status.deleted, body=b"secret of s")])
        assert all(word in held() for word in words)
        entities.troubles = [("after", Unknown("cut")), ("after", Unknown("cut"))]
        for _ in range(2):
            with pytest.raises(Unknown):
                await backend.purge(S)
        await backend.append([behind(S, body=b"the next life", key="new")])
        with pytest.raises(Invalid):
            await backend.purge(S)
        (deleted,) = await backend.append([behind(S, status=Status.deleted)])
        await backend.purge(S)
        assert not any(word in held() for word in [*words, b"the next life"])
        assert [(one.head, one.body) for one in await backend.read(S)] == [(deleted.head, b"")]  # type: ignore[union-attr]
        assert last.head.version == 3  # type: ignore[union-attr]


async def test_a_purge_spares_the_life_that_begins_meanwhile() -> None:
    """While the rest of a purged session is removed it starts again: its record, its key and its pieces stay."""

    async def scenario() -> None:
        entities = MemoryEntities()
        async with on(entities) as backend, on(entities) as other:
            await backend.append([behind(S, key="old", body=b"x" * (1 << 20))])
            await backend.append([behind(S, status=Status.deleted)])
            original, done = entities.query, False

            async def query(*asked: Any) -> Any:
                nonlocal done
                if not done and asked[1] == "piece":
                    done = True
                    await other.append([behind(S, key="new", body=b"y" * (1 << 20))])
                return await original(*asked)

            entities.query = query  # type: ignore[method-assign]
            await backend.purge(S)
            records = await backend.read(S)
            assert [(one.head.version, len(one.body)) for one in records] == [(2, 0), (3, 1 << 20)]
            assert await backend.find_key(S, "old") is None
            assert await backend.find_key(S, "new") is not None

    await scenario()


async def test_the_feed_misses_nothing_that_is_written_meanwhile() -> None:
    """Two readers and four writers at once: every commit comes to each reader, in order, and in the end nothing is marked."""

    entities = MemoryEntities()
    async with on(entities) as one, on(entities) as two:
        sessions = [SessionKey("acme", f"s{number}") for number in range(8)]
        writing = asyncio.Event()

        async def write(number: int) -> None:
            for turn in range(30):
                backend = (one, two)[number % 2]
                (outcome,) = await backend.append([behind(sessions[(number + turn) % 8])])
                assert isinstance(outcome, Appended)

        async def read(backend: Any) -> dict[SessionKey, list[int]]:
            seen: dict[SessionKey, list[int]] = {session: [] for session in sessions}
            cursor = None
            while True:
                over = writing.is_set()
                page = await backend.feed(cursor, 7)
                for change in page.items:
                    if change.record.head.version not in seen[change.session]:
                        seen[change.session].append(change.record.head.version)
                cursor = page.cursor
                if not page.items and over:
                    return seen

        readers = [asyncio.create_task(read(backend)) for backend in (one, two)]
        await asyncio.gather(*[write(number) for number in range(4)])
        writing.set()
        for reader in readers:
            seen = await reader
            for session in sessions:
                (head,) = await one.heads([session])
                assert head is not None and seen[session] == list(range(1, head.version + 1))
        assert not await entities.query((), "session", "", layout.END, 100, [("news", 1)])


async def test_a_truncation_that_was_cut_short_goes_on() -> None:
    """What lies below the first version is seen by nobody, and goes when it is done again."""

    entities = MemoryEntities()
    async with on(entities) as backend:
        for _ in range(6):
            await backend.append([behind(S)])
        (anchor,) = await backend.append([behind(S, kind=Kind.anchor)])
        place = (anchor.head.version, anchor.head.hash)  # type: ignore[union-attr]
        entities.troubles = [("after", Unknown("cut"))]
        with pytest.raises(Unknown):
            await backend.truncate(S, 5, place)
        assert [one.head.version for one in await backend.read(S)] == [5, 6, 7]
        assert layout.record(S, 2) in entities.data
        await backend.truncate(S, 5, place)
        assert layout.record(S, 4) not in entities.data
        assert layout.record(S, 5) in entities.data


async def test_entities_changed_by_hand_are_corrupt() -> None:
    """A record that is gone, or not what was written, is told as damage, with the session's name."""

    entities = MemoryEntities()
    async with on(entities) as backend:
        for _ in range(3):
            await backend.append([behind(S)])
        whole = dict(entities.data)
        del entities.data[layout.record(S, 2)]
        with pytest.raises(Corrupt, match="'s' are gone"):
            await backend.read(S)
        with pytest.raises(Corrupt, match="'s' are gone"):
            await backend.load(S)
        for path in (layout.record(S, 2), layout.session(S)):
            for fields in ({}, {"record": b"\xff", "head": b"\xff"}, {"record": 1, "head": "text"}):
                entities.data = {**whole, path: Entity(path, fields, 99)}
                with pytest.raises(Corrupt):
                    await backend.read(S)


async def test_a_place_that_minds_no_conditions_is_refused() -> None:
    """A service that applies what it should refuse would lose commits: it is not opened."""

    with pytest.raises(Unsupported, match="ignores the condition"):
        async with on(MemoryEntities(minds=False)):
            pass


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"layout": 3, "store": "x"}, Unsupported),
        ({"layout": 3, "store": "x", "min_writer": 3}, Unsupported),
        ({"layout": "1"}, Corrupt),
        ({"note": "mine"}, Corrupt),
    ],
)
async def test_a_namespace_of_another_kind_is_refused(fields: Any, error: type[Exception]) -> None:
    """What a newer version made, or a stranger, is left alone."""

    with pytest.raises(error):
        async with on(MemoryEntities({layout.META: Entity(layout.META, fields, 1)})):
            pass


async def test_a_snapshot_is_kept_only_of_the_chain() -> None:
    """One of another hash, of a version that is gone or not there yet is not; the newest two stay, and their top names them."""

    entities = MemoryEntities()
    async with on(entities) as backend:
        heads = [(await backend.append([behind(S)]))[0].head for _ in range(5)]  # type: ignore[union-attr]
        await backend.put_snapshot(S, Snapshot(2, bytes(32), b"foreign"))
        await backend.put_snapshot(S, Snapshot(9, bytes(32), b"future"))
        for head in heads:
            await backend.put_snapshot(S, Snapshot(head.version, head.hash, b"state"))
        kept = [path[-1] for path in entities.data if path[-2] == "snapshot"]
        assert kept == [layout.number(4), layout.number(5)]
        assert (await backend.load(S, 4)).snapshot.version == 4  # type: ignore[union-attr]
        assert (await backend.load(S, 3)).snapshot is None  # type: ignore[union-attr]


async def test_a_key_that_no_record_brings_is_looked_for() -> None:
    """An append under a key that none of its records has is stored when the key is new, and known when it is not."""

    async with on(MemoryEntities()) as backend:
        (first,) = await backend.append([behind(S, key="k")])
        stray = record(S, first.head)  # type: ignore[union-attr]

        def finish(_: object) -> list[Any]:
            return [stray]

        append = expecting(S, first.head, key="k")  # type: ignore[union-attr]
        outcome = (await backend.append([type(append)(S, finish, "k", None)]))[0]
        assert isinstance(outcome, Known)
        outcome = (await backend.append([type(append)(S, finish, "fresh", None)]))[0]
        assert isinstance(outcome, Appended)
