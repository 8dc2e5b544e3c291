"""MongoDB 6.0: what is its own beside the shared suites: requests counted, kinds of servers, logins, lost answers, hands in the data."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

import perdure
from perdure import Durability, Event
from perdure.backends.conformance import behind, expecting
from perdure.backends.spi import Appended, Known, Refused
from perdure.errors import Unavailable
from perdure.model.ids import SessionKey
from tests.servers.fixture import Servers
from tests.servers.mongodb import MongoDB, MongoDBAlone, MongoDBLogin, MongoDBSet
from tests.servers.process import free_port
from tests.support.backends.engines import Engine, diagnosis
from tests.support.backends.scenarios import engine, group_is_one_request, opened, visit, warm_read_is_one_request

ENGINE = Engine("mongodb", MongoDB)


@pytest.fixture
def url(servers: Servers[MongoDB]) -> str:
    return ENGINE.url(servers(MongoDB))


def requests(backend: Any) -> int:
    return backend.driver.connections.requests


def fail(server: MongoDB, commands: list[str], mode: Any, **how: Any) -> None:
    """Have the server fail these commands: `mode` of {"times": n}, "alwaysOn" or "off"."""
    data = {"failCommands": commands, **how}
    server.ask("n1", {"configureFailPoint": "failCommand", "mode": mode, "data": data if mode != "off" else {}})


async def test_a_group_is_one_request_and_so_is_a_warm_read(url: str) -> None:
    """64 sessions, new or known, with keys, are appended to in one request; a read of a session in memory asks for its head alone."""

    async with opened(url) as backend:
        await group_is_one_request(backend, requests)
    await warm_read_is_one_request(url, requests)


async def test_keys_of_long_sessions_cost_one_request_more(url: str) -> None:
    """Once records have left the tails, a group with keys looks the keys up first: two requests for 64 sessions. One that lost its race
    is told by the server itself: its head is read, those of the winners are not."""

    backend = await engine(url)
    connections = backend.driver.connections
    sessions = [SessionKey("acme", f"s{number}") for number in range(64)]
    for turn in range(17):
        await backend.append([behind(session, key=f"k{turn}") for session in sessions])
    await backend.run(backend.driver._archiver.drain())
    await backend.append([behind(session, key="k17") for session in sessions])  # Learns how far the tails were moved.
    before = connections.requests
    outcomes = await backend.append([behind(session, key="k18") for session in sessions])
    assert {outcome.head.version for outcome in outcomes} == {19}
    assert connections.requests == before + 2
    other = await engine(url)
    (won,) = await other.append([behind(sessions[3])])
    before = connections.requests
    outcomes = await backend.append([expecting(session, outcome.head) for session, outcome in zip(sessions, outcomes, strict=True)])
    assert [type(outcome) is Appended for outcome in outcomes] == [number != 3 for number in range(64)]
    assert outcomes[3] == Refused(won.head)
    assert connections.requests == before + 2
    await backend.close()
    await other.close()


async def test_levels_are_what_the_set_does(servers: Servers[Any]) -> None:
    """One node reaches `local` and refuses `quorum`; three reach `quorum`, also where less is asked for: every commit goes the same way."""
    alone, three = ENGINE.url(servers(MongoDB)), ENGINE.url(servers(MongoDBSet))

    async with perdure.open(alone) as store:
        assert (await store.append("s", Event("a"), durability="buffered")).durability is Durability.local
        with pytest.raises(perdure.Unsupported):
            await store.append("s", Event("a"), durability="quorum")
    async with perdure.open(three, durability="quorum") as store:
        assert (await store.append("s", Event("a"))).durability is Durability.quorum


async def test_servers_that_cannot_keep_the_promise_are_refused(servers: Servers[Any]) -> None:
    """A server that stands alone, and a secondary named by itself, are told apart at `open`, with what to do."""
    with pytest.raises(perdure.Unsupported, match=r"rs\.initiate"):
        await visit(servers(MongoDBAlone).url)
    three = servers(MongoDBSet)
    secondary = next(node for node in three.names if node != three.primary)
    with pytest.raises(perdure.Unavailable, match="name all members"):
        await visit(f"mongodb://127.0.0.1:{three.port(secondary)}/?directConnection=true&connect_timeout=0.5")


@pytest.mark.filterwarnings(  # pymongo forgets a socket that it was connecting when its client was closed
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)
async def test_logins_and_addresses(servers: Servers[MongoDBLogin]) -> None:
    """A wrong password, no rights, an address where nothing listens and a URL nobody understands are told apart; no message holds a
    password. A user who may read and write the database can do everything."""
    server = servers(MongoDBLogin)
    for user, role in (("guest", "read"), ("agent", "readWrite")):
        server.ask("n1", {"createUser": user, "pwd": "pa55word", "roles": [{"role": role, "db": "agents"}]})

    def at(user: str, password: str) -> str:
        return server.url.replace("//", f"//{user}:{password}@").replace("/?", "/agents?authSource=admin&")

    for user, password in (("guest", "wr0ng"), ("guest", "pa55word")):
        with pytest.raises(perdure.Unauthorized) as refused:
            await visit(at(user, password))
        assert password not in str(refused.value)
    async with perdure.open(at("agent", "pa55word")) as store:
        for number in range(20):
            await store.append("s", Event("a", number))
        assert "pa55word" not in repr(store)
        assert len((await store._core.backend.feed()).items) == 20
    with pytest.raises(perdure.Unavailable):
        await visit(f"mongodb://127.0.0.1:{free_port()}/?connect_timeout=0.5")
    for bad in (
        "mongodb://h/d?namespace=a-b",
        "mongodb://h/d?timeout=-1",
        "mongodb://h/a b",
        "mongodb://h/d?colour=red",
        "mongodb://h:x/d",
    ):
        with pytest.raises(perdure.Invalid):
            await visit(bad)
    gc.collect()


@pytest.mark.parametrize("fault", [{"closeConnection": True}, {"writeConcernError": {"code": 64, "errmsg": "waiting timed out"}}])
async def test_lost_answers_are_settled(fault: dict[str, Any], server_of_my_own: Servers[MongoDB]) -> None:
    """A connection that closes before the write, or a write that no majority is known to have, ends as what is true: stored once."""
    server = server_of_my_own(MongoDB)
    session = SessionKey("acme", "s")

    backend = await engine(server.url)
    await backend.append([behind(session)])
    fail(server, ["update"], {"times": 1}, **fault)
    (outcome,) = await backend.append([behind(session, key="k")])
    assert isinstance(outcome, Appended)
    assert (outcome.head.version, outcome.durability) == (2, Durability.local)
    assert [record.key for record in await backend.read(session)] == [None, "k"]
    await backend.close()


async def test_what_cannot_be_settled_is_unknown_and_its_key_tells(server_of_my_own: Servers[MongoDB]) -> None:
    """While no majority answers at all the caller hears `Unknown` within the time-out; the same key later finds what was stored."""
    server = server_of_my_own(MongoDB)
    session = SessionKey("acme", "s")

    async def scenario() -> None:
        backend = await engine(server.url + "&timeout=1")
        await backend.append([behind(session)])
        down = {"errorCode": 189, "writeConcernError": {"code": 64, "errmsg": "waiting timed out"}}
        fail(server, ["update"], "alwaysOn", writeConcernError=down["writeConcernError"])
        connections = backend.driver.connections
        heads, backend.driver.heads = backend.driver.heads, refuse
        (outcome,) = await asyncio.gather(backend.append([behind(session, key="k")]), return_exceptions=True)
        found = outcome[0] if isinstance(outcome, list) else outcome
        assert isinstance(found, perdure.Unknown)
        backend.driver.heads = heads
        fail(server, ["update"], "off")
        (again,) = await backend.append([behind(session, key="k", salt=b"2")])
        assert isinstance(again, Known)
        assert again.version == 2
        assert connections.requests
        await backend.close()

    async def refuse(sessions: object) -> None:
        raise perdure.Unavailable("cut off")

    await scenario()


async def test_stores_of_another_kind(servers: Servers[MongoDB]) -> None:
    """A newer schema is `Unsupported`, one that something else made `Corrupt`."""
    server = servers(MongoDB)
    url = ENGINE.url(server, "strange")
    await visit(url)
    with server.connected("n1") as client:
        store = client["perdure"]["strange.store"]
        store.update_one({}, {"$set": {"schema": 99, "min_writer": 99}})
        with pytest.raises(perdure.Unsupported, match="schema version 99"):
            await visit(url)
        store.update_one({}, {"$unset": {"schema": ""}})
        with pytest.raises(perdure.Corrupt, match="not written by Perdure"):
            await visit(url)


async def test_hands_in_the_data_are_found(servers: Servers[MongoDB]) -> None:
    """A session deleted by hand is not begun again in its middle, not even when the collection was dropped with its rule; a record that
    was changed, and a page that is gone, are `Corrupt`; `doctor` sees the rule gone and an index that lets commits expire."""
    server = servers(MongoDB)
    url = ENGINE.url(server, "handled")
    session, long = SessionKey("acme", "s"), SessionKey("acme", "long")

    backend = await engine(url)
    with server.connected("n1") as client:
        data = client["perdure"]
        for _ in range(40):
            await backend.append([behind(long)])
        await backend.run(backend.driver._archiver.drain())
        assert diagnosis(url)["healthy"]
        data["handled.session"].create_index("created", expireAfterSeconds=3600)
        data.command("collMod", "handled.session", validator={})
        told = diagnosis(url)
        assert told["status"] != 0
        assert len([finding for finding in told["findings"] if finding["level"] == "bad"]) == 2
        data.command("collMod", "handled.session", validator={"$jsonSchema": {"required": ["created"]}})
        data["handled.session"].drop_index("created_1")

        (made,) = await backend.append([behind(session)])
        data["handled.session"].delete_one({"_id": "acme\ts"})
        (outcome,) = await backend.append([expecting(session, made.head)])
        assert outcome == Refused(None)
        assert await backend.heads([session]) == [None]

        data["handled.session"].update_one({"_id": "acme\tlong"}, {"$set": {"tail.0.r": b"?"}})
        with pytest.raises(perdure.Corrupt, match="changed by hand"):
            await backend.read(long, after=31)
        data["handled.log"].delete_one({"_id": f"acme\tlong\t{16:016x}"})
        with pytest.raises(perdure.Corrupt, match="gone"):
            await backend.read(long, after=15, before=31)

        (made,) = await backend.append([behind(session)])
        data["handled.session"].drop()
        (outcome,) = await backend.append([expecting(session, made.head)])
        assert isinstance(outcome, perdure.Corrupt)
        assert await backend.heads([session]) == [None]
    await backend.close()


async def test_many_open_an_empty_database_at_once(url: str) -> None:
    """Ten stores that open a namespace that is not there yet agree on one store id."""

    stores = await asyncio.gather(*(perdure.open(url)._open() for _ in range(10)))
    assert len({store.id for store in stores}) == 1
    for store in stores:
        await store.close()


async def test_closing_leaves_nothing_behind(servers: Servers[MongoDB]) -> None:
    """After `close` no connection and no thread of the store is left; 200 tasks share a bounded pool."""
    server = servers(MongoDB)

    def connections() -> list[dict[str, Any]]:
        with server.connected("n1") as client:
            listed = client.admin.aggregate([{"$currentOp": {"allUsers": True, "idleConnections": True}}])
            return [one for one in listed if one.get("appName") == "closing"]

    async with perdure.open(ENGINE.url(server, "closing") + "&pool=3&appName=closing") as store:
        await asyncio.gather(*(store.append(f"s{number % 50}", Event("a")) for number in range(200)))
        monitors = 2
        assert 1 <= len(connections()) <= 3 + monitors
    server.wait("connections gone", lambda: not connections(), 10)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("perdure")]


def test_doctor_tells_of_members(servers: Servers[Any]) -> None:
    """With one node the only disk is named; three nodes are healthy without a warning."""
    alone = diagnosis(ENGINE.url(servers(MongoDB)))
    assert (alone["healthy"], alone["server"]["members with data"]) == (True, "1")
    assert any("rs.add" in finding["fix"] for finding in alone["findings"])
    three = diagnosis(ENGINE.url(servers(MongoDBSet)))
    assert (three["healthy"], three["findings"], three["server"]["majority is journaled"]) == (True, [], "yes")


async def test_what_hinders_a_loser_is_not_told_to_the_others(url: str) -> None:
    """Of two appends in one request one loses its race; when the winner cannot be looked up, only the loser hears of it."""

    mine, other = await engine(url), await engine(url)
    lost, kept = SessionKey("acme", "hindered"), SessionKey("acme", "kept")
    await mine.append([behind(lost), behind(kept)])
    await other.append([behind(lost)])

    async def unreachable(*_: Any, **__: Any) -> Any:
        raise Unavailable("No primary.")

    mine.driver.connections.find = unreachable
    first, second = await mine.append([behind(lost), behind(kept)])
    assert isinstance(first, Unavailable)
    assert isinstance(second, Appended) and second.head.version == 2
    assert [head.version for head in await other.heads([lost, kept])] == [2, 2]
    await mine.close()
    await other.close()
