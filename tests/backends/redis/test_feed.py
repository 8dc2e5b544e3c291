"""The feed's streams: they grow with what is kept, not with all that ever was."""

from __future__ import annotations

from typing import Any

from perdure.backends.conformance import behind
from perdure.backends.redis.layout import prefix, shard_of
from perdure.backends.registry import open_backend
from perdure.clock import SystemClock
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey
from tests.backends.claims import run
from tests.backends.engines import Engine
from tests.servers.fixture import Servers
from tests.servers.process import Server
from tests.servers.valkey import Valkey, ask

TURNS = 40
SESSIONS = [key for n in range(1000) if shard_of(key := SessionKey("acme", f"s{n}")) == 0][:10]


async def seen_from(backend: Any, cursor: str | None) -> list[tuple[SessionKey, int]]:
    """What the feed tells behind a cursor, to its end."""
    seen = []
    while (page := await backend.feed(cursor, limit=7)).items:
        seen += [(change.session, change.record.head.version) for change in page.items]
        cursor = page.cursor
    return seen


async def kept(backend: Any) -> set[tuple[SessionKey, int]]:
    return {(session, record.head.version) for session in SESSIONS for record in await backend.read(session)}


def test_entries_of_what_is_gone_are_swept_and_no_other(servers: Servers[Server]) -> None:
    """While ten sessions of a shard, written in turns, are purged and truncated one after another, the stream keeps at most twice the
    entries that are alive, and a step; readers from the start and from every place they had come to before are told what is kept, once, in
    each session's order."""
    server = servers(Valkey)
    url = Engine("valkey", Valkey).url(server, "sweeping")
    stream = f"{prefix('sweeping', 0)}f"

    async def scenario() -> None:
        backend: Any = await open_backend(url, clock=SystemClock())
        for turn in range(TURNS):
            await backend.append([behind(session, salt=b"%d" % turn) for session in SESSIONS])
        whole = await seen_from(backend, None)
        assert len(whole) == TURNS * len(SESSIONS)
        cursors = []
        page = await backend.feed(None, limit=50)
        while page.items:
            cursors.append((page.cursor, whole[50 * (len(cursors) + 1) :]))
            page = await backend.feed(page.cursor, limit=50)
        for number, session in enumerate(SESSIONS[:9]):
            if number % 2:
                await backend.append([behind(session, kind=Kind.tombstone, status=Status.deleted)])
                await backend.purge(session)
            else:
                (outcome,) = await backend.append([behind(session, kind=Kind.anchor)])
                await backend.truncate(session, outcome.head.version, (outcome.head.version, outcome.head.hash))
            alive = await kept(backend)
            assert int(ask(server.port("primary"), "XLEN", stream)) <= 2 * len(alive) + 64
            told = await seen_from(backend, None)
            assert len(told) == len(set(told)) and set(told) == alive
            assert all(
                [version for key, version in told if key == one] == sorted(version for key, version in alive if key == one)
                for one in SESSIONS
            )
            for cursor, rest in cursors:
                assert set(await seen_from(backend, cursor)) == (alive & set(rest)) | (alive - set(whole))
        await backend.close()

    run(scenario())
