"""MongoDB: the feed's notes keep what tells of living records, and no reader misses any."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.backends.conformance import behind
from perdure.backends.remote.change_log import STEP
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey
from tests.backends.mongodb.test_tail import Place
from tests.servers.fixture import Servers
from tests.servers.mongodb import MongoDB
from tests.support.backends.feed_sweeps import seen_from, sweeps

SESSIONS = [SessionKey("acme", f"s{number}") for number in range(6)]
P, Q = SessionKey("acme", "p"), SessionKey("acme", "q")


@pytest.fixture
def place(servers: Servers[MongoDB]) -> Place:
    return Place(servers(MongoDB))


def notes(place: Place) -> list[Any]:
    """What is not swept out of each note."""
    return [[one for one in doc["news"] if one is not None] for doc in place.docs("feed") if isinstance(doc["_id"], int)]


async def test_notes_of_what_is_gone_are_swept_and_no_other(place: Place) -> None:
    """See `sweeping.sweeps`. In the end few notes are left."""

    async def bound(alive: set[Any]) -> None:
        assert sum(map(len, notes(place))) <= 2 * len(alive) + STEP

    async with place.opened() as backend:
        await sweeps(backend, SESSIONS, 12, bound=bound)
        for _ in range(2):
            (outcome,) = await backend.append([behind(SESSIONS[-1], kind=Kind.anchor)])
            await backend.truncate(SESSIONS[-1], outcome.head.version, (outcome.head.version, outcome.head.hash))
        assert len(notes(place)) <= len(SESSIONS) + 1
        assert len(await seen_from(backend, None)) == len(SESSIONS)


async def read_to_the_end(backend: Any) -> str:
    """The cursor that a reader has then."""
    cursor = None
    while (page := await backend.feed(cursor, 1000)).items:
        cursor = page.cursor
    return page.cursor


async def written_and_purged(backend: Any, session: SessionKey) -> str:
    """A session of two commits, each noted, is purged; the cursor of who read both."""
    await backend.append([behind(session)])
    await read_to_the_end(backend)
    await backend.append([behind(session, kind=Kind.tombstone, status=Status.deleted)])
    cursor = await read_to_the_end(backend)
    await backend.purge(session)
    return cursor


async def test_a_note_that_comes_late_is_not_put_where_readers_have_gone_by(place: Place) -> None:
    """A reader is about to take a number for its note; another takes it, reads on, and its note is swept away: the first one's goes behind
    all others, and whoever has come by reads it."""

    async with place.opened() as slow, place.opened() as quick:
        await written_and_purged(quick, SESSIONS[0])
        await slow.append([behind(P)])
        connections, others, cursors = slow.driver.connections, quick.driver.connections, []
        update, find = connections.update, others.find

        async def only_the_other(name: str, where: Any, *arguments: Any, **more: Any) -> Any:
            where = where | ({"_id": "acme\tq"} if where.get("news") else {})
            return await find(name, where, *arguments, **more)

        async def late(name: str, statements: Any, **more: Any) -> Any:
            connections.update, others.find = update, only_the_other
            cursors.append(await written_and_purged(quick, Q))
            others.find = find
            return await update(name, statements, **more)

        connections.update = late
        await read_to_the_end(slow)
        assert [session for session, _ in await seen_from(quick, cursors[0])] == [P]


async def test_a_number_that_was_taken_gets_its_note_before_the_next_is_taken(place: Place) -> None:
    """A reader took a number and sleeps before its note is in its place: the next one puts it there, so nobody goes by an empty place."""

    async with place.opened() as slow, place.opened() as quick:
        await written_and_purged(quick, SESSIONS[0])
        await slow.append([behind(P)])
        connections, others, seen = slow.driver.connections, quick.driver.connections, []
        insert, find = connections.insert, others.find

        async def only_the_other(name: str, where: Any, *arguments: Any, **more: Any) -> Any:
            where = where | ({"_id": "acme\tq"} if where.get("news") else {})
            return await find(name, where, *arguments, **more)

        async def sleeps(name: str, docs: Any) -> Any:
            if docs[0]["_id"] == 3 and not seen:
                others.find = only_the_other
                await quick.append([behind(Q)])
                seen.extend(await seen_from(quick, None))
                others.find = find
            return await insert(name, docs)

        connections.insert = sleeps
        await read_to_the_end(slow)
        assert {(P, 1), (Q, 1)} <= {*seen}
