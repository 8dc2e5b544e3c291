"""A group with one damaged session: it alone is told so, the others are stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import pymongo
import pytest

from perdure.backends.conformance import behind
from perdure.backends.etcd.gateway import put
from perdure.backends.google import layout as google
from perdure.backends.google.entities import Write
from perdure.backends.remote import Answer, Attempt
from perdure.backends.spi import Appended, Index
from perdure.errors import Corrupt, Invalid, TooLarge
from perdure.model.ids import SessionKey
from tests.servers.etcd import Etcd
from tests.servers.fixture import Servers
from tests.servers.google import FirestoreEmulator
from tests.servers.mongodb import MongoDB
from tests.support.backends.engines import Engine
from tests.support.backends.memory_driver import MemoryDriver, memory
from tests.support.backends.memory_driver import opened as driven
from tests.support.backends.scenarios import opened

SESSIONS = [SessionKey("acme", f"s{number:02d}") for number in range(20)]
BAD = SESSIONS[7]


async def only_the_bad_one_fails(backend: Any, version: int, error: type[Exception] = Corrupt, **columns: Any) -> None:
    """Append to all at once: an outcome for each, and each true."""
    index = Index({"team": "ops"})
    outcomes = await backend.append([behind(session, index=index, **columns) for session in SESSIONS])
    for session, outcome in zip(SESSIONS, outcomes, strict=True):
        assert isinstance(outcome, error if session == BAD else Appended), (session, outcome)
    heads = await backend.heads([session for session in SESSIONS if session != BAD])
    assert {head.version for head in heads} == {version}


@pytest.mark.parametrize("error", [Corrupt, Invalid, TooLarge])
@pytest.mark.parametrize("raised", [True, False], ids=["raised", "answered"])
async def test_an_error_of_a_value_is_told_to_the_one_it_is_of(error: type[Exception], raised: bool) -> None:
    """Whether a driver raises it or gives it as the answer of all: the group is sent in halves, few times, and each outcome is true."""

    class Spoiled(MemoryDriver):
        async def write(self, attempts: Sequence[Attempt]) -> Sequence[Answer]:
            if any(attempt.session == BAD for attempt in attempts):
                self.writes += 1
                found: Any = error("One of them is bad.")
                if raised:
                    raise found
                return [found] * len(attempts)
            return await super().write(attempts)

    driver = Spoiled(memory())
    async with driven(driver) as backend:
        await only_the_bad_one_fails(backend, 1, error)
        assert driver.writes < 12
        await only_the_bad_one_fails(backend, 2, error)


@pytest.mark.parametrize("kind", [b"h", b"i"], ids=["head", "index"])
async def test_etcd(servers: Servers[Any], kind: bytes) -> None:
    """A head or an index row that is garbage."""
    url = Engine("etcd", Etcd).url(servers(Etcd))

    async with opened(url) as backend:
        await backend.append([behind(session) for session in SESSIONS])
        driver = backend.driver
        await backend.run(driver.gateway.txn([], [put(driver._keys.of(kind, BAD), b"garbage")]))
        await only_the_bad_one_fails(backend, 2)
    async with opened(url) as backend:
        await only_the_bad_one_fails(backend, 3, key="k")


@pytest.mark.parametrize("field", ["at", "hash", "moved", "tail"])
async def test_mongodb(servers: Servers[Any], field: str) -> None:
    """A document without one of its fields."""
    server = servers(MongoDB)
    url = Engine("mongodb", MongoDB).url(server, f"spoiled_{field}")

    async with opened(url) as backend:
        for _ in range(16):  # As many as make a session's keys leave its tail.
            await backend.append([behind(session) for session in SESSIONS])
        with pymongo.MongoClient[dict[str, Any]](server.url) as client:
            sessions = client["perdure"][f"spoiled_{field}.session"]
            assert sessions.update_one({"_id": "acme\ts07"}, {"$unset": {field: ""}}).modified_count == 1
    for turn in (1, 2):
        async with opened(url) as backend:
            index = Index({"team": "ops"})
            outcomes = await backend.append([behind(session, index=index, key=f"k{turn}") for session in SESSIONS])
            others = [outcome for session, outcome in zip(SESSIONS, outcomes, strict=True) if session != BAD]
            assert all(isinstance(outcome, Appended) for outcome in others), others
            assert isinstance(outcomes[7], Corrupt) or field == "tail"


async def test_firestore(servers: Servers[Any]) -> None:
    """A top whose head is garbage."""
    url = Engine("firestore", FirestoreEmulator).url(servers(FirestoreEmulator))

    async with opened(url) as backend:
        await backend.append([behind(session) for session in SESSIONS])
        entities = backend.driver.entities
        (top,) = await backend.run(entities.get([google.session(BAD)]))
        await backend.run(entities.commit([Write(top.path, {**top.fields, "head": b"garbage"})]))
    for version in (2, 3):
        async with opened(url) as backend:
            await only_the_bad_one_fails(backend, version)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE log SET hash = 'text' WHERE n = 8",
        "UPDATE log SET at = x'00' WHERE n = 8",
        "UPDATE session SET tags = '{' WHERE n = 8",
        "UPDATE session SET tags = 5 WHERE n = 8",
    ],
)
async def test_sqlite(tmp_path: Path, damage: str) -> None:
    """A row of the log or of the sessions with columns that were not written so; nothing of the damaged session's append is left."""
    url = f"sqlite:///{tmp_path}/a.db"

    async with opened(url) as backend:
        await backend.append([behind(session) for session in SESSIONS])
    with apsw.Connection(str(tmp_path / "a.db")) as connection:
        assert connection.execute("SELECT id FROM session WHERE n = 8").get == BAD.id
        connection.execute(damage)
    connection.close()
    for version in (2, 3):
        async with opened(url) as backend:
            await only_the_bad_one_fails(backend, version, key=f"k{version}")
    with apsw.Connection(str(tmp_path / "a.db")) as connection:
        assert connection.execute("SELECT count(*) FROM log WHERE n = 8").get == 1
        assert connection.execute("SELECT count(*) FROM key WHERE n = 8").get == 0
    connection.close()
