"""`create=False`: what is there is opened, read and written; what is not there stays so, and is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pymongo
import pytest
import redis

import perdure
from perdure import Event
from perdure.backends import registry
from perdure.backends.registry import open_backend
from perdure.clock import SystemClock
from tests.servers.fixture import Servers
from tests.servers.mongodb import MongoDB
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Server
from tests.servers.valkey import Valkey
from tests.support.backends.engines import ENGINES, Engine


def refuses(url: str, *missing: str) -> None:
    """Opening without creating is `NotFound`, which names what is missing."""
    with pytest.raises(perdure.NotFound) as caught:
        perdure.sync.open(url, create=False)
    assert caught.value.missing
    assert all(word in str(caught.value) for word in missing), str(caught.value)


def reads_and_writes(url: str) -> None:
    """A store that is there is opened without creating, read before it is written, and written."""
    with perdure.sync.open(url) as store:
        store.append("s", Event("note", {"n": 1}))
    with perdure.sync.open(url, create=False) as store:
        assert [info.session for info in store.list()] == ["s"]
        assert [commit.events[0].data for commit in store.history("s")] == [{"n": 1}]
        assert store.append("s", Event("note", {"n": 2})).version == 2
        assert store.read("s").version == 2


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_a_store_that_is_not_there_is_not_made(engine: Engine, servers: Servers[Server]) -> None:
    """A new name is `NotFound` twice on every engine, so the first time made nothing; once made, it opens, is read and written."""
    url = engine.url(servers(engine.server))
    refuses(url)
    refuses(url)
    reads_and_writes(url)


def postgresql_has(server: Any) -> Any:
    return server.sql("SELECT string_agg(nspname, ',' ORDER BY nspname) FROM pg_namespace")


def valkey_has(server: Any) -> Any:
    with redis.Redis.from_url(server.url) as client:
        return client.keys("*"), client.function_list()


def mongodb_has(server: Any) -> Any:
    with pymongo.MongoClient[dict[str, Any]](server.url) as client:
        names = set(client.list_database_names()) - {"admin", "config", "local"}
        return {name: sorted(client[name].list_collection_names()) for name in names}


@pytest.mark.parametrize(
    ("kind", "has"), [(PostgreSQL, postgresql_has), (Valkey, valkey_has), (MongoDB, mongodb_has)], ids=["postgresql", "valkey", "mongodb"]
)
def test_a_server_holds_nothing_more_afterwards(kind: type[Server], has: Callable[[Any], Any], server_of_my_own: Servers[Server]) -> None:
    """The server's own lists (schemas; keys and functions; databases and collections) are what they were before."""
    server = server_of_my_own(kind)
    before = has(server)
    mark = "&" if "?" in server.url else "?"
    refuses(f"{server.url}{mark}namespace=nowhere", "nowhere")
    assert has(server) == before


def test_a_database_that_is_not_there_is_named(servers: Servers[Server]) -> None:
    """A mistyped database is `NotFound` with its name, and is not made."""
    postgresql, mongodb = servers(PostgreSQL), servers(MongoDB)
    refuses(urlsplit(postgresql.url)._replace(path="/nowhere").geturl(), "nowhere")
    refuses(urlsplit(mongodb.url)._replace(path="/nowhere").geturl(), "nowhere")
    assert "nowhere" not in mongodb_has(mongodb)


def test_reading_loads_no_functions(server_of_my_own: Servers[Server]) -> None:
    """A Valkey that lost its functions serves reads without them; the first write loads them."""
    server: Any = server_of_my_own(Valkey)
    url = f"{server.url}?namespace=n"
    with perdure.sync.open(url) as store:
        store.append("s", Event("note", {"n": 1}))
    server.ask("primary", "FUNCTION", "FLUSH")
    with perdure.sync.open(url, create=False) as store:
        assert store.read("s").version == 1
        assert [info.session for info in store.list()] == ["s"]
        assert [commit.version for commit in store.history("s")] == [1]
        assert store.verify("s").commits == 1
        assert valkey_has(server)[1] == []
        assert store.append("s", Event("note", {"n": 2})).version == 2
    assert valkey_has(server)[1]


def test_a_file_and_its_folders_are_not_made(tmp_path: Path) -> None:
    """SQLite makes neither file nor log, a folder as an object store stays away, a store in memory is always another."""
    refuses(f"sqlite:///{tmp_path}/nowhere.db", "nowhere.db")
    refuses(f"sqlite:///{tmp_path}/nowhere/agents.db", "nowhere")
    refuses(f"file://{tmp_path}/nowhere", "nowhere")
    refuses("memory:")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_and_a_foreign_one_stay_as_they_are(tmp_path: Path) -> None:
    """A file without a schema is `NotFound` and gets none; one of something else is `Invalid`."""
    empty = tmp_path / "empty.db"
    empty.touch()
    refuses(f"sqlite:///{empty}", "empty.db", "schema")
    assert empty.stat().st_size == 0
    assert [path.name for path in tmp_path.iterdir()] == ["empty.db"]


def test_a_store_in_a_file_is_read_and_written(tmp_path: Path) -> None:
    """`create=False` keeps nobody from writing to what is there; closed, nothing lies beside it."""
    reads_and_writes(f"sqlite:///{tmp_path}/a.db")
    reads_and_writes(f"file://{tmp_path}/objects")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db", "objects"]


def test_reading_a_folder_puts_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that folds a long log keeps its index to itself: every file is as it was."""
    url = f"file://{tmp_path}/objects"
    monkeypatch.setattr("perdure.backends.objects.shard.CHECKPOINT_BYTES_MIN", 1 << 30)
    with perdure.sync.open(url) as store:
        for number in range(20):
            store.append("s", Event("note", {"n": number}))
    monkeypatch.setattr("perdure.backends.objects.shard.CHECKPOINT_BYTES_MIN", 1)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    with perdure.sync.open(url, create=False) as store:
        assert store.verify("s").commits == 20
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


async def _opens_always(url: str, *, clock: Any) -> Any:
    raise AssertionError("It must not be opened.")


async def test_an_engine_that_cannot_help_creating_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine from elsewhere, made before `create` was, is not opened: it could create."""
    monkeypatch.setattr(registry, "_factory", lambda *_: _opens_always)
    with pytest.raises(perdure.Unsupported, match="create=False"):
        await open_backend("theirs://somewhere", clock=SystemClock(), create=False)
