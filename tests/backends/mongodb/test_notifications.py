"""MongoDB's news: what the stream tells and what not, rights, broken streams, what closing leaves on the server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure.backends.conformance import behind
from perdure.backends.conformance.notifying import Ear
from perdure.backends.mongodb import notifications
from perdure.backends.spi import Appended, Known
from perdure.model.ids import SessionKey
from tests.servers.fixture import Servers
from tests.servers.mongodb import MongoDB, MongoDBLogin, MongoDBSet
from tests.support.backends.engines import Engine
from tests.support.backends.notifications import a_watch_polls, many_watches_share_one_subscription
from tests.support.backends.scenarios import Handles, until

ENGINE = Engine("mongodb", MongoDB)
S = SessionKey("acme", "s")


@pytest.fixture
def server(servers: Servers[MongoDB]) -> MongoDB:
    return servers(MongoDB)


class Listed(Ear):
    """All that was heard, in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.notices: list[tuple[SessionKey | None, int]] = []

    def hear(self, session: SessionKey | None, version: int) -> None:
        self.notices.append((session, version))
        super().hear(session, version)


def streams(server: MongoDB, namespace: str) -> list[dict[str, Any]]:
    """The streams that a server has on a namespace, at work and waiting to be asked again."""
    with server.connected(server.primary) as client:
        listed = client.admin.aggregate([{"$currentOp": {"allUsers": True, "idleCursors": True}}])
        return [one for one in listed if one.get("ns") == f"perdure.{namespace}.session" and "cursor" in one]


async def test_listening_costs_appends_nothing(server: MongoDB) -> None:
    """While someone listens each append is one request, as ever; each version is heard once."""

    async with Handles() as handles:
        url = ENGINE.url(server)
        mine, other = await handles.open(url), await handles.open(url)
        ear = Listed()
        await mine.listen(ear.hear)
        before = other.driver.connections.requests
        for _ in range(14):  # The next one completes a page, which is moved out behind it.
            await other.append([behind(S)])
        assert other.driver.connections.requests == before + 14
        await ear.until(lambda: ear.newest.get(S) == 14)
        assert ear.notices == [(None, 0), *((S, version) for version in range(1, 15))]


async def test_commits_alone_are_told(server: MongoDB) -> None:
    """Records that are moved out of a tail, notes for the feed, snapshots, truncation and a purge are no news."""

    async with Handles() as handles:
        url = ENGINE.url(server)
        mine, other = await handles.open(url), await handles.open(url)
        ear = Listed()
        await mine.listen(ear.hear)
        for _ in range(40):
            await other.append([behind(S)])
        await other.run(other.driver._archiver.drain())
        assert len((await other.feed()).items) == 40
        await other.append([behind(SessionKey("acme", "last"))])
        await ear.until(lambda: SessionKey("acme", "last") in ear.newest)
        assert ear.notices == [(None, 0), *((S, version) for version in range(1, 41)), (SessionKey("acme", "last"), 1)]


async def test_a_user_who_may_not_watch_hears_nothing_and_polls(servers: Servers[MongoDBLogin]) -> None:
    """Without the action changeStream nothing is heard; appends are stored, and a watch misses nothing."""
    server = servers(MongoDBLogin)
    may = ["find", "insert", "update", "remove", "createCollection", "createIndex", "listCollections", "listIndexes", "collMod"]
    with server.connected("n1") as client:
        rights = [{"resource": {"db": "deaf", "collection": ""}, "actions": may}]
        client["deaf"].command({"createRole": "deaf", "privileges": rights, "roles": []})
        client["deaf"].command({"createUser": "deaf", "pwd": "pa55word", "roles": ["deaf"]})
    url = server.url.replace("//", "//deaf:pa55word@").replace("/?", "/deaf?authSource=deaf&")
    await a_watch_polls(url)


async def test_a_stream_that_is_killed_is_opened_again(server: MongoDB) -> None:
    """A stream that an administrator kills is followed by another, and what is stored then is heard."""
    url = ENGINE.url(server, "killed")

    async with Handles() as handles:
        mine, other = await handles.open(url), await handles.open(url)
        ear = Ear()
        await mine.listen(ear.hear)
        for version in (1, 2, 3):
            await until(lambda: streams(server, "killed"))
            before = {one["cursor"]["cursorId"] for one in streams(server, "killed")}
            server_kill = {"killCursors": "killed.session", "cursors": list(before)}
            with server.connected("n1") as client:
                client["perdure"].command(server_kill)
            await other.append([behind(SessionKey("acme", "wakes the stream"))])
            await until(lambda before=before: {one["cursor"]["cursorId"] for one in streams(server, "killed")} - before and mine.hears)
            await other.append([behind(S)])
            await ear.until(lambda version=version: ear.newest.get(S) == version)


async def test_silence_is_no_break(server: MongoDB) -> None:
    """A stream without news for several times the time-out goes on: nobody is told to look."""

    async with Handles() as handles:
        mine = await handles.open(ENGINE.url(server) + "&timeout=0.3")
        ear = Listed()
        await mine.listen(ear.hear)
        await asyncio.sleep(1.5)
        await mine.append([behind(S)])
        await ear.until(lambda: ear.newest.get(S) == 1)
        assert ear.notices == [(None, 0), (S, 1)]


async def test_a_stream_that_is_never_answered_is_opened_again(server_of_my_own: Servers[MongoDB], monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that works and holds back one answer to the stream is asked anew within the time-out, and what is stored then is heard."""
    monkeypatch.setattr(notifications, "WAIT", 0.2)
    server = server_of_my_own(MongoDB)
    hang = {"failCommands": ["getMore"], "blockConnection": True, "blockTimeMS": 60_000}

    async with Handles() as handles:
        mine = await handles.open(ENGINE.url(server) + "&timeout=0.5")
        ear = Listed()
        await mine.listen(ear.hear)
        server.ask("n1", {"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": hang})
        await until(lambda: len(ear.notices) >= 3)
        assert mine.hears
        await mine.append([behind(S)])
        await ear.until(lambda: ear.newest.get(S) == 1)
        assert ear.notices == [(None, 0)] * 3 + [(S, 1)]


async def test_a_primary_that_hangs_or_goes_is_heard_no_more(
    server_of_my_own: Servers[MongoDBSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream from a primary that is frozen counts as broken within the time-out; the next primary's is heard."""
    monkeypatch.setattr(notifications, "WAIT", 0.5)
    server = server_of_my_own(MongoDBSet)

    async with Handles() as handles:
        url = ENGINE.url(server) + "&timeout=2&connect_timeout=1"
        mine, other = await handles.open(url), await handles.open(url)
        ear = Ear()
        await mine.listen(ear.hear)
        await other.append([behind(S)])
        await ear.until(lambda: ear.newest.get(S) == 1)
        old = server.primary
        server.pause(old)
        await until(lambda: not mine.hears)
        await until(lambda: mine.hears)
        while not isinstance((await other.append([behind(S, key="k")]))[0], Appended | Known):
            pass
        await ear.until(lambda: ear.newest.get(S) == 2)
        server.resume(old)


async def test_a_collection_that_is_dropped_is_a_broken_stream(server: MongoDB) -> None:
    """After someone drops the collection the stream ends; a new one hears what is stored in the next."""

    async with Handles() as handles:
        mine = await handles.open(ENGINE.url(server, "dropped"))
        ear = Ear()
        await mine.listen(ear.hear)
        await mine.append([behind(S)])
        await ear.until(lambda: ear.newest.get(S) == 1)
        with server.connected("n1") as client:
            client["perdure"]["dropped.session"].drop()
        await until(lambda: not mine.hears)
        await until(lambda: mine.hears)
        await mine.append([behind(SessionKey("acme", "new"))])
        await ear.until(lambda: ear.newest.get(SessionKey("acme", "new")) == 1)


async def test_closing_ends_the_stream(server: MongoDB) -> None:
    """Two hundred watches share one stream, in one connection of the pool; after `close` the server has neither."""
    url = ENGINE.url(server, "ending") + "&pool=3&appName=ending"

    def connections() -> list[dict[str, Any]]:
        with server.connected("n1") as client:
            listed = client.admin.aggregate([{"$currentOp": {"allUsers": True, "idleConnections": True}}])
            return [one for one in listed if one.get("appName") == "ending"]

    def check() -> None:
        monitors = 2
        assert len(streams(server, "ending")) == 1
        assert len(connections()) <= 3 + monitors

    await many_watches_share_one_subscription(url, check)
    server.wait("the stream gone", lambda: not streams(server, "ending"), 20)
    server.wait("connections gone", lambda: not connections(), 10)
