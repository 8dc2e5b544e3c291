"""`perdure import openai-agents`: an SQLiteSession's file comes over whole, once, and is compared."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from agents import SQLiteSession

import perdure.sync
from perdure.adapters.openai_agents import PerdureSession
from perdure.cli import run

ITEMS: dict[str, list[Any]] = {
    "trip/42": [{"role": "user", "content": f"{number} ü"} for number in range(150)],
    "other": [{"type": "function_call", "name": "f", "arguments": "{}", "call_id": "1"}],
}


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A file with two sessions."""
    path = tmp_path / "conversations.db"
    for name, items in ITEMS.items():
        session = SQLiteSession(name, path)
        asyncio.run(session.add_items(items))
        session.close()
    return str(path)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/agents.db"


def items(url: str, name: str) -> list[Any]:
    with perdure.sync.open(url) as store:
        return list(asyncio.run(PerdureSession(name, store).get_items()))


def test_a_file_comes_over_once_and_grows(source: str, url: str, capsys: Any) -> None:
    """Both sessions are here item by item; a second import writes nothing; what the source gained since is brought by a third."""
    assert run(["import", "openai-agents", source, "--url", url]) == 0
    assert '"session":"openai/trip%2F42","written":150,"skipped":0' in capsys.readouterr().out
    assert {name: items(url, name) for name in ITEMS} == ITEMS
    assert run(["import", "openai-agents", source, "--url", url]) == 0
    assert '"written":0,"skipped":150' in capsys.readouterr().out
    session = SQLiteSession("other", source)
    asyncio.run(session.add_items([{"role": "user", "content": "more"}]))
    session.close()
    assert run(["import", "openai-agents", source, "--url", url, "--only", "other"]) == 0
    assert '"written":1,"skipped":1' in capsys.readouterr().out
    assert items(url, "other")[-1] == {"role": "user", "content": "more"}


def test_what_cannot_be_brought_over_is_named(source: str, url: str, tmp_path: Path, capsys: Any) -> None:
    """A damaged row, a conversation that has gone on here, a session that is not there, a file of another kind."""
    with perdure.sync.open(url) as store:
        asyncio.run(PerdureSession("other", store).add_items([{"role": "user", "content": "mine"}]))
    assert run(["import", "openai-agents", source, "--url", url, "--only", "other", "--only", "nobody"]) != 0
    out = capsys.readouterr().out
    assert "has items of its own" in out and "has no session 'nobody'" in out
    with sqlite3.connect(source) as connection:
        connection.execute("UPDATE agent_messages SET message_data = '{' WHERE id = 100")
    connection.close()
    assert run(["import", "openai-agents", source, "--url", url, "--only", "trip/42"]) != 0
    assert "Row 100" in capsys.readouterr().out
    with sqlite3.connect(source) as connection:
        connection.execute("UPDATE agent_messages SET message_data = ? WHERE id = 100", ('{"role": "user", "content": "99 ü"}',))
    connection.close()
    assert run(["import", "openai-agents", source, "--url", url, "--only", "trip/42"]) == 0
    assert items(url, "trip/42") == ITEMS["trip/42"]
    (tmp_path / "text").write_text("no database, but long enough to be read as one by something careless" * 20)
    for bad in (str(tmp_path / "missing"), str(tmp_path / "text"), str(tmp_path / "agents.db")):
        assert run(["import", "openai-agents", bad, "--url", url]) != 0


def test_what_is_changed_here_is_noticed(source: str, url: str, capsys: Any) -> None:
    """A source whose rows were changed after the import no longer equals what is here, and the import says so."""
    assert run(["import", "openai-agents", source, "--url", url]) == 0
    with sqlite3.connect(source) as connection:
        connection.execute("UPDATE agent_messages SET message_data = '{}' WHERE id = 3")
    connection.close()
    assert run(["import", "openai-agents", source, "--url", url, "--only", "trip/42"]) != 0
    assert "Item 2" in capsys.readouterr().out
