"""The feed's log in Google's services: it keeps what tells of living records, and no reader misses any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from perdure.backends.conformance import behind
from perdure.backends.google import feed, layout
from perdure.backends.google.entities import Write
from perdure.backends.remote.change_log import STEP
from perdure.errors import Unavailable
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey
from tests.backends.google.test_services import SERVICES
from tests.servers.fixture import Servers
from tests.servers.process import Server
from tests.support.backends.engines import Engine
from tests.support.backends.feed_sweeps import seen_from, sweeps
from tests.support.backends.memory_entities import MemoryEntities, on
from tests.support.backends.scenarios import opened

SESSIONS = [SessionKey("acme", f"s{number}") for number in range(10)]
P, Q = SessionKey("acme", "p"), SessionKey("acme", "q")


async def log(backend: Any) -> list[Any]:
    """The entries of the log: what is not swept out of each."""
    entities = await backend.run(backend.driver.entities.query((), "log", "", layout.END, 1000))
    return [[one for one in layout.decode_ranges(entity)[1] if one is not None] for entity in entities]


async def swept(backend: Any, sessions: Sequence[SessionKey], turns: int) -> None:
    """Sweep all sessions but one, then that one."""

    async def bound(alive: set[Any]) -> None:
        assert sum(map(len, await log(backend))) <= 2 * len(alive) + STEP

    await sweeps(backend, sessions, turns, bound=bound)
    for _ in range(2):
        (outcome,) = await backend.append([behind(sessions[-1], kind=Kind.anchor)])
        await backend.truncate(sessions[-1], outcome.head.version, (outcome.head.version, outcome.head.hash))
    assert len(await log(backend)) <= len(sessions) + 1
    assert len(await seen_from(backend, None)) == len(sessions)


async def test_entries_of_what_is_gone_are_swept_and_no_other() -> None:
    """On entities in memory, with twenty turns of ten sessions: see `sweeping.sweeps`. In the end few entries are left."""

    async with on(MemoryEntities()) as backend:
        await swept(backend, SESSIONS, 20)


@pytest.mark.parametrize("service", SERVICES, ids=repr)
async def test_entries_are_swept_on_a_real_service(servers: Servers[Server], service: Engine) -> None:
    """The same on the emulator, with fewer sessions and turns."""

    async with opened(service.url(servers(service.server))) as backend:
        await swept(backend, SESSIONS[:5], 6)


async def gone(backend: Any, session: SessionKey) -> None:
    """Delete and purge a session."""
    await backend.append([behind(session, kind=Kind.tombstone, status=Status.deleted)])
    await backend.purge(session)


async def test_an_entry_that_comes_late_is_not_put_where_readers_have_gone_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader is about to add an entry; another adds its own under that number, reads on, and it is swept away: the first one's goes
    behind all others, and the second reads it."""
    monkeypatch.setattr(feed, "ENTRY_SESSIONS", 1)

    entities, others = MemoryEntities(), MemoryEntities()
    others.data = entities.data
    async with on(entities) as slow, on(others) as quick:
        await slow.append([behind(P)])
        await slow.append([behind(Q)])
        driver: Any = quick.driver
        driver._feed._next = layout.session(Q)[1]
        original, cursors = entities.commit, []

        async def commit(writes: Sequence[Write]) -> Any:
            if writes[0].path[0] == "log" and not cursors:
                page = await driver.feed(None, 1)
                assert [change.session for change in page.items] == [Q]
                cursors.append(page.cursor)
                entities.commit = original  # type: ignore[method-assign]
                await gone(quick, Q)
                assert not [path for path in entities.data if path[0] == "log"]
            return await original(writes)

        entities.commit = commit  # type: ignore[method-assign]
        await slow.feed()
        assert {session for session, _ in await seen_from(quick, cursors[0])} == {P, Q}


async def test_a_sweep_that_fails_undoes_nothing() -> None:
    """The service is away when the log is swept: the purge is done all the same, and a later one sweeps for both."""

    entities = MemoryEntities()
    async with on(entities) as backend:
        for session in (P, Q):
            await backend.append([behind(session)])
            await backend.feed()
        driver: Any = backend.driver
        original = driver._feed.entries

        async def away(low: int, limit: int) -> Any:
            raise Unavailable("away")

        driver._feed.entries = away
        await gone(backend, P)
        assert len(await backend.read(P)) == 1
        driver._feed.entries = original
        await gone(backend, Q)
        assert not [path for path in entities.data if path[0] == "log"]
        assert len(await seen_from(backend, None)) == 2
