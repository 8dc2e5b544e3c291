"""`perdure import google-adk`: what ADK's own services stored, in each schema, comes over whole, once, and is compared."""

from __future__ import annotations

import asyncio
import logging
import pickle
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions import BaseSessionService, DatabaseSessionService, Session
from google.adk.sessions.schemas import v0
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.genai import types
from sqlalchemy import create_engine

import perdure
import perdure.sync
from perdure import Corrupt, Invalid
from perdure.adapters.common.sync_async import wait
from perdure.adapters.google_adk import PerdureSessionService
from perdure.adapters.google_adk.importing import open_source
from perdure.cli import run
from tests.servers.fixture import Servers
from tests.servers.postgresql import PostgreSQL
from tests.support.adapters.adk_sessions import SESSION, load, said, texts

KINDS = ("SqliteSessionService", "DatabaseSessionService", "DatabaseSessionService, old schema")


@asynccontextmanager
async def theirs(kind: str, path: str) -> AsyncIterator[BaseSessionService]:
    """ADK's own service on a file, or at a URL."""
    if kind == "SqliteSessionService":
        yield SqliteSessionService(path)
        return
    if kind.endswith("old schema"):
        engine = create_engine(f"sqlite:///{path}")
        v0.Base.metadata.create_all(engine)  # what exists already stays
        engine.dispose()
    async with DatabaseSessionService(path if "://" in path else f"sqlite+aiosqlite:///{path}") as service:
        yield service


def call(room: int) -> Event:
    """A model's event that calls a tool and changes all kinds of state."""
    part = types.Part(function_call=types.FunctionCall(id="c1", name="book", args={"room": room}))
    delta = {
        "rooms": [{"id": n, "note": "quiet " * 20} for n in range(room)],
        "user:lang": "de",
        "app:sold": room,
    }
    content = types.Content(role="model", parts=[part])
    actions = EventActions(state_delta=delta, artifact_delta={"plan.txt": 1})
    return Event(invocation_id="i", author="planner", content=content, actions=actions, long_running_tool_ids={"c1"}, branch="a.b")


async def fill(service: BaseSessionService) -> None:
    """Two users: a session with all kinds of events, one of an id with a separator, and one without events."""
    state = {"start": [1, 2.5, None, "ü"], "user:lang": "en", "app:sold": 0, "temp:x": 1}
    session = await service.create_session(app_name="shop", user_id="ann", session_id="s", state=state)
    for event in (said("one", turn=1), call(20), call(21), said("two", turn=2, done=None)):
        await service.append_event(session, event)
    await service.create_session(app_name="shop", user_id="ann", session_id="empty", state={"a": 1})
    other = await service.create_session(app_name="shop", user_id="bob", session_id="trip/42")
    await service.append_event(other, said("hello", **{"user:lang": "it"}))


async def sessions(service: BaseSessionService) -> list[Session]:
    """All sessions of the app, with their events."""
    listed = (await service.list_sessions(app_name="shop")).sessions
    found = [await service.get_session(app_name="shop", user_id=one.user_id, session_id=one.id) for one in listed]
    return sorted((one for one in found if one is not None), key=lambda one: (one.user_id, one.id))


def told(found: list[Session]) -> Any:
    """What two services must agree on: all but the time at which a session without events was made."""
    return [(one.user_id, one.id, one.state, [event.model_dump(mode="json") for event in one.events]) for one in found]


def make(kind: str, path: str) -> Any:
    """Fill a database; what it tells."""

    async def scenario() -> Any:
        async with theirs(kind, path) as service:
            await fill(service)
            return told(await sessions(service))

    return asyncio.run(scenario())


async def ours(url: str, scenario: Callable[[PerdureSessionService], Any]) -> Any:
    async with perdure.open(url) as store:
        return await scenario(PerdureSessionService(store))


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where to."""
    return f"sqlite:///{tmp_path}/agents.db"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which of ADK's services."""
    return str(request.param)


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A file of DatabaseSessionService."""
    make(KINDS[1], path := str(tmp_path / "adk.db"))
    return path


def test_a_database_comes_over_and_goes_on(kind: str, tmp_path: Path, url: str, capsys: Any) -> None:
    """Every session is the same there and here, app and user state too; a second import writes nothing; the sessions go on here."""
    path = str(tmp_path / "adk.db")
    expected = make(kind, path)
    assert run(["import", "google-adk", path, "--url", url]) == 0
    out = capsys.readouterr().out
    assert f'"source":"shop/ann/s","ok":true,"session":"{SESSION}","written":4,"skipped":0' in out
    assert '"source":"shop/bob/trip%2F42","ok":true' in out

    async def same(service: PerdureSessionService) -> None:
        assert told(await sessions(service)) == expected

    asyncio.run(ours(url, same))
    assert run(["import", "google-adk", path, "--url", url]) == 0
    assert capsys.readouterr().out.count('"written":0,') == 3

    async def further(service: PerdureSessionService) -> None:
        assert told(await sessions(service)) == expected
        session = await load(service)
        await service.append_event(session, said("three", turn=3))
        assert texts(await load(service))[-1] == "three"
        before = await service._store.read(SESSION, at=2)  # the state at each event is there, also what the session began with
        assert before.state == {"state": {"start": [1, 2.5, None, "ü"], "turn": 1}}
        await service._store.verify(SESSION)

    asyncio.run(ours(url, further))
    assert run(["import", "google-adk", path, "--url", url]) == 0, "it has gone on here, and nothing of the source is missing"


def test_what_the_source_gained_is_brought_and_what_it_shares_follows(kind: str, tmp_path: Path, url: str) -> None:
    """Events appended to the source after an import come with the next one, and app and user state as they are then."""
    path = str(tmp_path / "adk.db")
    make(kind, path)
    assert run(["import", "google-adk", path, "--url", url]) == 0

    async def grow() -> Any:
        async with theirs(kind, path) as service:
            session = await service.get_session(app_name="shop", user_id="ann", session_id="s")
            await service.append_event(session, said("three", **{"user:lang": "fr", "turn": 3, "start": 2}))
            return told(await sessions(service))

    expected = asyncio.run(grow())
    assert run(["import", "google-adk", path, "--url", url]) == 0

    async def same(service: PerdureSessionService) -> None:
        assert told(await sessions(service)) == expected

    asyncio.run(ours(url, same))


def test_an_import_that_was_cut_short_goes_on(source: str, url: str, monkeypatch: Any) -> None:
    """Stopped at any commit, also by a death that leaves shared state behind, an import run again brings the rest."""
    with perdure.sync.open(url) as store:
        append, left = type(store.asynchronous).append, [0]

        async def failing(self: Any, *arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            return await append(self, *arguments, **options)

        monkeypatch.setattr(type(store.asynchronous), "append", failing)
        opened, stops = open_source(source), 0
        for _ in range(20):
            left[0] = 2
            try:
                done = wait(opened.copy_session("shop/ann/s", store.asynchronous))
                break
            except KeyboardInterrupt:
                stops += 1
        wait(opened.close())
        assert stops == 6, "an app's state, a user's, the session's beginning, four events: one a time"
        assert (done.written, done.skipped) == (1, 3)
        assert store.read("adk/shop/users/ann").state == {"lang": "de"}


def test_a_loaded_session_does_not_carry_out_old_shared_state(source: str, url: str) -> None:
    """The last event of one session set a user's key, then another session set it anew: the imported state is the newer one, and stays."""

    async def other_session() -> None:
        async with theirs(KINDS[1], source) as service:
            session = await service.create_session(app_name="shop", user_id="bob", session_id="newer")
            await service.append_event(session, said("hello", **{"user:lang": "pt"}))

    async def scenario(service: PerdureSessionService) -> None:
        for id in ("newer", "trip/42"):
            assert (await load(service, id, "bob")).state["user:lang"] == "pt"
        assert (await service._store.read("adk/shop/users/bob")).version == 1

    asyncio.run(other_session())
    assert run(["import", "google-adk", source, "--url", url]) == 0
    asyncio.run(ours(url, scenario))


def test_shared_state_that_lives_here_keeps_its_values(source: str, url: str) -> None:
    """A user whose state was set here keeps it; keys that are missing come from the source."""

    async def before(service: PerdureSessionService) -> None:
        await service.create_session(app_name="shop", user_id="ann", session_id="new", state={"user:lang": "en-GB", "user:more": 1})

    async def after(service: PerdureSessionService) -> None:
        assert await service.get_user_state(app_name="shop", user_id="ann") == {"lang": "en-GB", "more": 1}
        assert (await load(service, "empty")).state["app:sold"] == 21

    asyncio.run(ours(url, before))
    assert run(["import", "google-adk", source, "--url", url]) == 0
    asyncio.run(ours(url, after))


def test_a_state_that_events_do_not_explain_is_set_right(source: str, url: str) -> None:
    """Where the session's row says another state than its events lead to, the row holds, by a commit that says so."""
    with closing(sqlite3.connect(source)) as database, database:
        database.execute("UPDATE sessions SET state = json_set(state, '$.turn', 9) WHERE id = 's'")
    assert run(["import", "google-adk", source, "--url", url]) == 0

    async def scenario(service: PerdureSessionService) -> None:
        assert (await load(service)).state["turn"] == 9
        assert [commit.events[0].type async for commit in service._store.history(SESSION)][-1] == "state_imported"

    asyncio.run(ours(url, scenario))


def test_a_difference_is_found(source: str, url: str) -> None:
    """If the source says something else than what is here, the import names the first event that differs, and fails."""
    assert run(["import", "google-adk", source, "--url", url]) == 0
    with closing(sqlite3.connect(source)) as database, database:
        database.execute("UPDATE events SET event_data = json_set(event_data, '$.author', 'x') WHERE session_id = 's'")
    with perdure.sync.open(url) as store, pytest.raises(Corrupt, match="Event 0"):
        wait(open_source(source).copy_session("shop/ann/s", store.asynchronous))
    assert run(["import", "google-adk", source, "--url", url]) == 7


def test_sessions_that_began_here_or_diverged_are_left_alone(source: str, url: str, capsys: Any) -> None:
    """A session of that name which began here, and one that went on both here and there, are not mixed: exit 4."""

    async def mine(service: PerdureSessionService) -> None:
        await service.create_session(app_name="shop", user_id="ann", session_id="s")

    async def go_on(service: PerdureSessionService) -> None:
        await service.append_event(await load(service, "trip/42", "bob"), said("here"))

    asyncio.run(ours(url, mine))
    assert run(["import", "google-adk", source, "--url", url, "--only", "shop/ann/s"]) == 4
    assert "began here" in capsys.readouterr().out
    assert run(["import", "google-adk", source, "--url", url, "--only", "shop/bob/trip%2F42"]) == 0
    asyncio.run(ours(url, go_on))

    async def grow() -> None:
        async with theirs(KINDS[1], source) as service:
            session = await service.get_session(app_name="shop", user_id="bob", session_id="trip/42")
            await service.append_event(session, said("there"))

    asyncio.run(grow())
    assert run(["import", "google-adk", source, "--url", url, "--only", "shop/bob/trip%2F42"]) == 4
    assert "has events of its own" in capsys.readouterr().out


class Trap:
    """What a harmful pickle looks like."""

    def __reduce__(self) -> Any:
        return print, ("it was run",)


def test_a_pickle_that_is_more_than_data_is_refused(tmp_path: Path, url: str, capsys: Any, caplog: pytest.LogCaptureFixture) -> None:
    """In the old schema, an action that names a function is refused by name, and is not called."""
    path = str(tmp_path / "adk.db")
    make(KINDS[2], path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE events SET actions = ? WHERE session_id = 's'", (pickle.dumps(Trap()),))
    with caplog.at_level(logging.ERROR), perdure.sync.open(url) as store, pytest.raises(Invalid, match=r"builtins\.print"):
        wait(open_source(path).copy_session("shop/ann/s", store.asynchronous))
    assert "it was run" not in capsys.readouterr().out


def test_what_is_no_source_is_said(source: str, tmp_path: Path, url: str, capsys: Any) -> None:
    """A missing file, files of other kinds, other databases, a newer schema, damaged rows, unknown sessions: each by its own error."""
    (tmp_path / "text.db").write_text("hello " * 1_000)
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE events (a)").connection.close()
    for address, status in (("nowhere.db", 3), ("text.db", 6), ("other.db", 6)):
        assert run(["import", "google-adk", str(tmp_path / address), "--url", url]) == status
    assert run(["import", "google-adk", "oracle://h/d", "--url", url]) == 6
    assert run(["import", "google-adk", f"sqlite+aiosqlite:///{source}", "--url", url, "--only", "shop/nobody/s", "--only", "x"]) == 3
    assert capsys.readouterr().out.count("has no session") == 2
    with closing(sqlite3.connect(source)) as database, database:
        database.execute("UPDATE events SET event_data = '{' WHERE session_id = 's'")
        database.execute("UPDATE events SET event_data = '{\"author\": []}' WHERE session_id = 'trip/42'")
    assert run(["import", "google-adk", source, "--url", url]) != 0
    out = capsys.readouterr().out
    assert "cannot be read" in out and "none that this google-adk understands" in out and '"source":"shop/ann/empty","ok":true' in out
    with closing(sqlite3.connect(source)) as database, database:
        database.execute("UPDATE adk_internal_metadata SET value = '2'")
    assert run(["import", "google-adk", source, "--url", url]) == 9
    assert "'2'" in capsys.readouterr().err


def test_a_postgresql_database_comes_over(servers: Servers[PostgreSQL], url: str) -> None:
    """What DatabaseSessionService stored in PostgreSQL comes over as it is, by the URL with which ADK opened it."""
    server = servers(PostgreSQL)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS adk")
        connection.execute("CREATE DATABASE adk")
    address = server.url.removesuffix("/postgres") + "/adk"
    expected = make(KINDS[1], address.replace("postgresql://", "postgresql+psycopg://"))
    assert run(["import", "google-adk", address.replace("postgresql://", "postgresql+asyncpg://"), "--url", url]) == 0

    async def same(service: PerdureSessionService) -> None:
        assert told(await sessions(service)) == expected

    asyncio.run(ours(url, same))
    assert run(["import", "google-adk", "postgresql://nobody@127.0.0.1:1/adk", "--url", url]) != 0
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP DATABASE adk WITH (FORCE)")
