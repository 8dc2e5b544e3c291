"""The feed of DynamoDB: its readers write the log; nothing is passed over, whoever reads and writes meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import perdure
from perdure.backends.conformance import behind
from perdure.backends.dynamodb import layout
from perdure.backends.remote.change_log import STEP
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey
from tests.support.backends.fake_dynamodb import S, chain, items
from tests.support.backends.feed_sweeps import seen_from, sweeps
from tests.support.backends.scenarios import opened


async def read_on(backend: Any, cursor: str | None, seen: dict[SessionKey, list[int]], limit: int) -> str:
    """Read to the end; each session's versions as they came, those seen before left out."""
    while True:
        page = await backend.feed(cursor, limit)
        cursor = page.cursor
        if not page.items:
            return cursor
        for change in page.items:
            known = seen.setdefault(change.session, [])
            if change.record.head.version not in known:
                known.append(change.record.head.version)


async def test_readers_and_writers_at_once(url: str) -> None:
    """Three readers in two processes see, while 20 sessions are written, each record at least once and each session's in order."""

    sessions = [SessionKey("acme", f"s{number}") for number in range(20)]
    async with opened(url) as one, opened(url) as two:
        writing = asyncio.Event()

        async def write() -> None:
            for turn in range(6):
                await (one, two)[turn % 2].append([behind(session, salt=b"%d" % turn) for session in sessions])
            writing.set()

        async def follow(backend: Any, limit: int) -> dict[SessionKey, list[int]]:
            seen: dict[SessionKey, list[int]] = {}
            cursor = None
            while not writing.is_set():
                cursor = await read_on(backend, cursor, seen, limit)
            await read_on(backend, cursor, seen, limit)
            return seen

        *readers, _ = await asyncio.gather(follow(one, 7), follow(two, 50), follow(two, 1), write())
        for seen in readers:
            assert seen == {session: list(range(1, 7)) for session in sessions}
        assert not [item for item in await items(one, "/s/") if "d" in item]


async def test_a_reader_that_dies_half_way_loses_nothing(url: str) -> None:
    """An entry that was added, while the sessions in it were not taken out of the index, makes some records come twice, none be missed."""

    async with opened(url) as backend:
        await chain(backend, S, 3)

        async def nothing(_: Any) -> None:
            raise perdure.Unavailable("The reader died.")

        feed = backend.driver._feed
        feed._take_out, whole = nothing, feed._take_out
        with pytest.raises(perdure.Unavailable):
            await backend.feed()
        feed._take_out = whole
        await chain(backend, S, 2)
        seen: dict[SessionKey, list[int]] = {}
        await read_on(backend, None, seen, 2)
        assert seen == {S: [1, 2, 3, 4, 5]}


async def test_more_sessions_than_one_entry_holds(url: str) -> None:
    """Three hundred sessions come in several entries; none keeps another out, also when each reading finds some written again."""

    sessions = [SessionKey("acme", f"s{number}") for number in range(300)]
    async with opened(url) as backend:
        for start in (0, 150):
            await backend.append([behind(session) for session in sessions[start : start + 150]])
        seen: dict[SessionKey, list[int]] = {}
        cursor = None
        for _ in range(8):
            page = await backend.feed(cursor, 128)
            cursor = page.cursor
            for change in page.items:
                seen.setdefault(change.session, []).append(change.record.head.version)
            await backend.append([behind(session) for session in sessions[:60]])
        assert set(seen) == set(sessions)


async def log(backend: Any) -> list[Any]:
    """The entries of the log: what is not swept out of each."""
    found = [item for item in await items(backend, "/f") if "e" in item]
    return [[one for one in layout.decode_ranges(item)[1] if one is not None] for item in found]


async def test_entries_of_what_is_gone_are_swept_and_no_other(url: str) -> None:
    """See `sweeping.sweeps`. In the end few entries are left."""
    sessions = [SessionKey("acme", f"s{number}") for number in range(5)]

    async with opened(url) as backend:

        async def bound(alive: set[Any]) -> None:
            assert sum(map(len, await log(backend))) <= 2 * len(alive) + STEP

        await sweeps(backend, sessions, 8, bound=bound)
        for _ in range(2):
            (anchor,) = await chain(backend, sessions[-1], 1, kind=Kind.anchor)
            await backend.truncate(sessions[-1], anchor.version, (anchor.version, anchor.hash))
        assert len(await log(backend)) <= len(sessions) + 1
        assert len(await seen_from(backend, None)) == len(sessions)


async def test_an_entry_that_comes_late_is_not_put_where_readers_have_gone_by(url: str) -> None:
    """A reader is about to add an entry; another adds its own under that number, reads on, and it is swept away: the first one's goes
    behind all others, and the second reads it."""
    other = SessionKey("acme", "other")

    async with opened(url) as slow, opened(url) as quick:
        await chain(slow, S, 1)
        cursors = []
        table, moved = slow.driver.table, quick.driver._feed._moved
        ask = table.ask

        async def only_the_other() -> Any:
            return [one for one in await moved() if one.session == other]

        async def late(operation: str, **parameters: Any) -> Any:
            if operation == "transact_write_items" and not cursors:
                quick.driver._feed._moved = only_the_other
                await chain(quick, other, 1)
                cursors.append((await quick.feed(None, 8)).cursor)
                quick.driver._feed._moved = moved
                await chain(quick, other, 1, kind=Kind.tombstone, status=Status.deleted)
                await quick.purge(other)
                assert not await log(quick)
            return await ask(operation, **parameters)

        table.ask = late
        await slow.feed()
        assert {session for session, _ in await seen_from(quick, cursors[0])} == {S, other}


@pytest.mark.parametrize("cursor", ["x", "1:2", "1:2:3:4", "-1:0:0", "1:2:²"])
async def test_a_foreign_cursor_is_invalid(url: str, cursor: str) -> None:
    """What is no cursor of this feed is refused."""

    async with opened(url) as backend:
        with pytest.raises(perdure.Invalid):
            await backend.feed(cursor)
