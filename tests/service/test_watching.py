"""Following commits over HTTP: event streams, long polls, and what they share."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest

import perdure
from perdure import Event
from perdure.engine.live import changes as engine_changes
from perdure.service.app import App
from perdure.service.hooks import Credential, RequestHead
from perdure.service.node import Node
from perdure.wire.sse import Message, MessageReader
from tests.support.service.asking import Asker
from tests.support.service.listening import until

WATCH = "/v1/sessions/s/watch"


async def note(store: perdure.Store, count: int = 1, session: str = "s", type: str = "note") -> None:
    for number in range(count):
        await store.append(session, Event(type, number))


def messages(text: str) -> list[Message]:
    return MessageReader().feed(text.encode())


def versions(text: str) -> list[int]:
    return [msgspec.json.decode(each.data)["version"] for each in messages(text) if each.data and each.event == "message"]


async def test_a_stream_has_what_is_there_and_what_comes(serving: Any) -> None:
    """In order, none left out, each with its position; the commit as the library gives it."""
    async with serving() as ask:
        store = ask.app.node.store
        await note(store, 3)
        async with ask.stream(f"{WATCH}?after=1") as stream:
            await stream.until('"version":3')
            await note(store, 2)
            text = await stream.until('"version":5')
            assert stream.headers["content-type"] == "text/event-stream" and stream.headers["cache-control"] == "no-store"
        assert versions(text) == [2, 3, 4, 5]
        commits = [commit async for commit in store.history("s", after=1)]
        found = [each for each in messages(text) if each.data]
        assert [msgspec.json.decode(each.data) for each in found] == [commit.to_dict() for commit in commits]
        assert [each.id for each in found] == [f"{commit.version}-{commit.hash.hex()}" for commit in commits]
        await until(lambda: len(ask.app.node.hub) == 0 and ask.app.node.hub.followers == 0)


async def test_a_client_goes_on_after_the_last_message_it_has(serving: Any) -> None:
    """`Last-Event-ID` wins over `after`; a position that the chain does not have is 409."""
    async with serving() as ask:
        store = ask.app.node.store
        await note(store, 4)
        commits = [commit async for commit in store.history("s")]
        for number in (1, 4):
            id = f"{number}-{commits[number - 1].hash.hex()}"
            async with ask.stream(f"{WATCH}?after=3", headers=[("last-event-id", id)]) as stream:
                await until(lambda: len(ask.app.node.hub) == 1)
                await note(store)
                newest = await store.token("s")
                version = (await store.read("s")).version
                assert newest and versions(await stream.until(f'"version":{version}')) == list(range(number + 1, version + 1))
        for wrong in ("4-" + "00" * 32, "99-" + "00" * 32, "1-" + "00" * 32):
            answer = await ask("GET", WATCH, headers=[("last-event-id", wrong)])
            assert (answer.status, answer.json()["code"]) == (409, "rewound"), wrong
        assert (await ask("GET", f"{WATCH}?after=99")).json()["code"] == "rewound"


async def test_many_watchers_share_one_reader_and_one_frame(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many watch a session, the engine is followed once, and each commit is encoded once for each choice of types."""
    followed: list[str] = []
    real = perdure.Store.watch
    monkeypatch.setattr(perdure.Store, "watch", lambda self, session, **more: followed.append(session) or real(self, session, **more))
    encoded: list[Any] = []
    encode = msgspec.json.Encoder().encode
    monkeypatch.setattr("perdure.service.stream.entries._ENCODE", lambda value: encoded.append(value) or encode(value))
    async with serving() as ask, AsyncExitStack() as stack:
        store = ask.app.node.store
        await note(store)
        streams = [await stack.enter_async_context(ask.stream(f"{WATCH}?after=1")) for _ in range(40)]
        typed = [await stack.enter_async_context(ask.stream(f"{WATCH}?after=1&types=other")) for _ in range(10)]
        await until(lambda: ask.app.node.hub.followers == 50)
        await asyncio.gather(*[stream.until("retry") for stream in (*streams, *typed)])
        await until(lambda: sum(len(channel) for channel in ask.app.node.hub._channels.values()) == 50)
        await note(store, 5)
        await note(store, type="other")
        for stream in streams:
            assert versions(await stream.until('"version":7')) == [2, 3, 4, 5, 6, 7]
        for stream in typed:
            assert versions(await stream.until('"version":7')) == [7]
        assert followed == ["s"] and len(encoded) == 7


async def test_a_slow_watcher_catches_up_by_itself(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not read loses its queue and no commit, and holds up nobody."""
    monkeypatch.setattr("perdure.service.stream.channel.BACKLOG_MAX", 4)
    async with serving() as ask:
        store = ask.app.node.store
        await note(store)
        async with ask.stream(f"{WATCH}?after=1") as slow, ask.stream(f"{WATCH}?after=1") as quick:
            await until(lambda: sum(len(channel) for channel in ask.app.node.hub._channels.values()) == 2)
            gate, take = asyncio.Event(), slow.take

            async def wait(message: Any) -> None:
                await gate.wait()
                await take(message)

            slow.take = wait  # type: ignore[method-assign]
            for _ in range(40):
                await note(store)
            assert versions(await quick.until('"version":41')) == list(range(2, 42))
            gate.set()
            assert versions(await slow.until('"version":41')) == list(range(2, 42))


async def test_a_quiet_stream_shows_that_it_lives(serving: Any) -> None:
    """A comment; and where commits were left out, the position alone, so that they are not read again."""
    async with serving(heartbeat=0.02) as ask:
        await note(ask.app.node.store)
        async with ask.stream(f"{WATCH}?after=1&types=other") as stream:
            await stream.until(":\n\n")
            await note(ask.app.node.store)
            text = await stream.until("id: 2-")
            assert versions(text) == []


async def test_a_stream_ends_in_time_and_with_its_credential(serving: Any) -> None:
    """After about a minute, and when the token ends, whichever is first: the client comes back with its position."""
    async with serving(stream_seconds=0.05) as ask:
        await note(ask.app.node.store)
        async with ask.stream(WATCH) as stream:
            assert versions(await stream.to_its_end()) == [1]

    class Ending:
        async def credential(self, head: RequestHead) -> Credential:
            return Credential("default", expires=0)

    async with perdure.open("memory:") as store:
        await note(store)
        async with Asker(App(Node(store, authenticator=Ending()))).stream(WATCH) as stream:
            await stream.to_its_end()


async def test_a_node_that_drains_ends_its_streams(serving: Any) -> None:
    """At once, and as an end that the client can tell from a cut."""
    async with serving() as ask:
        await note(ask.app.node.store)
        async with ask.stream(f"{WATCH}?after=1") as one, ask.stream("/v1/changes") as two:
            await until(lambda: len(ask.app.node.hub) == 2)
            ask.app.node.close()
            await one.to_its_end()
            await two.to_its_end()
        assert (await ask("GET", WATCH)).status == 503


async def test_a_deletion_is_the_last_message(serving: Any) -> None:
    """The tombstone comes, then the stream ends; who comes back is answered 410."""
    async with serving() as ask:
        store = ask.app.node.store
        await note(store)
        async with ask.stream(WATCH) as stream:
            await until(lambda: len(ask.app.node.hub) == 1)
            await store.delete("s")
            text = await stream.to_its_end()
        assert versions(text) == [1, 2] and '"tombstone"' in text
        assert (await ask("GET", WATCH)).status == 410
        assert (await ask("GET", "/v1/sessions/none/watch")).status == 404


async def test_an_error_in_a_stream_is_a_message(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event `error` with a problem document; nobody takes the end for a quiet one."""
    async with serving() as ask:
        store = ask.app.node.store
        await note(store)

        async def broken(*_: object, **__: object) -> Any:
            raise perdure.Corrupt("The chain is broken.")
            yield

        monkeypatch.setattr(perdure.Store, "watch", broken)
        async with ask.stream(WATCH) as stream:
            *_, last = messages(await stream.to_its_end())
        assert last.event == "error" and msgspec.json.decode(last.data)["code"] == "corrupt"


async def test_a_long_poll_answers_as_soon_as_there_is_something(serving: Any) -> None:
    """At once with what is there; else when something comes, or with nothing after its time. The position is where to go on."""
    async with serving() as ask:
        store = ask.app.node.store
        await note(store, 2)
        answer = (await ask("GET", f"{WATCH}?live=long-poll")).json()
        assert [commit["version"] for commit in answer["commits"]] == [1, 2]
        nothing = (await ask("GET", f"{WATCH}?live=long-poll&wait=0&after={answer['position']}")).json()
        assert nothing == {"commits": [], "position": answer["position"]}
        waiting = asyncio.ensure_future(ask("GET", f"{WATCH}?live=long-poll&after={answer['position']}&types=other"))
        await until(lambda: len(ask.app.node.hub) == 1)
        await note(store)
        await note(store, type="other")
        assert [commit["version"] for commit in (await waiting).json()["commits"]] == [4]


async def test_changes_are_those_of_all_sessions(serving: Any) -> None:
    """From the start, then as they come; by prefix, types and tags; each with a cursor to go on after it."""
    async with serving() as ask:
        store = ask.app.node.store
        await note(store, 2, "a/1")
        await note(store, 1, "b")
        await store.for_tenant("other").append("x", Event("secret"))
        async with ask.stream("/v1/changes") as every, ask.stream("/v1/changes?prefix=a/&types=new") as some:
            await every.until('"session":"b"')
            await until(lambda: ask.app.node.hub.followers == 2)
            await note(store, 1, "a/1", "new")
            await note(store, 1, "b", "new")
            await until(lambda: len([each for each in messages(every.text) if each.data]) >= 5)
            text = every.text
            await some.until('"type":"new"')
            assert [msgspec.json.decode(each.data)["session"] for each in messages(some.text) if each.data] == ["a/1"]
        found = [msgspec.json.decode(each.data) for each in messages(text) if each.data]
        assert {(each["session"], each["version"]) for each in found} == {("a/1", 1), ("a/1", 2), ("a/1", 3), ("b", 1), ("b", 2)}
        assert "secret" not in text
        cursor = next(each["cursor"] for each in found if (each["session"], each["version"]) == ("b", 1))
        answer = (await ask("GET", f"/v1/changes?live=long-poll&after={cursor}")).json()
        assert {("a/1", 3), ("b", 2)} <= {(each["session"], each["version"]) for each in answer["changes"]}
        end = (await ask("GET", f"/v1/changes?live=long-poll&wait=0&after={answer['cursor']}")).json()
        assert end["changes"] == []
        await store.configure("b", tags={"team": "ops"})
        tagged = (await ask("GET", "/v1/changes?live=long-poll&tag=team%3Dops")).json()["changes"]
        assert {each["session"] for each in tagged} == {"b"}


async def test_followers_of_changes_share_one_reader(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each catches up by itself; from then on the feed is read once for all, and nothing is lost between the two."""
    feeds: list[bool] = []
    real = engine_changes.Follower.pages
    monkeypatch.setattr(engine_changes.Follower, "pages", lambda self, *, follow: feeds.append(follow) or real(self, follow=follow))
    async with serving() as ask, AsyncExitStack() as stack:
        store = ask.app.node.store
        await note(store, 20)
        writing = asyncio.ensure_future(note(store, 60))
        streams = [await stack.enter_async_context(ask.stream("/v1/changes")) for _ in range(10)]
        await writing
        await until(lambda: ask.app.node.hub.followers == 10)
        await note(store, 20)
        for stream in streams:
            await stream.until('"version":100')
            seen = versions(stream.text)
            assert sorted(set(seen)) == list(range(1, 101)) and len(seen) == 100
        assert feeds.count(True) == 1


async def test_a_quiet_tenant_does_not_scan_again(serving: Any) -> None:
    """While other tenants write, a follower with nothing to see gets positions without data, and goes on after them."""
    async with serving(heartbeat=0.02) as ask:
        store = ask.app.node.store
        async with ask.stream("/v1/changes") as stream:
            await until(lambda: len(ask.app.node.hub) == 1)
            await note(store.for_tenant("other"), 5)
            text = await stream.until("id: c1.")
            assert [each.data for each in messages(text)] == [""] * len(messages(text))


CURSORS = ["x", "c1.", "c1.AAAA", "%ff", "1-" + "00" * 32]


@pytest.mark.parametrize("cursor", CURSORS)
async def test_a_cursor_that_is_none_is_refused(serving: Any, cursor: str) -> None:
    """400: of another store, of another tenant, changed, or none at all."""
    async with serving() as ask, serving() as other:
        await note(ask.app.node.store)
        assert (await ask("GET", f"/v1/changes?after={cursor}")).status == 400
        good = (await ask("GET", "/v1/changes?live=long-poll")).json()["cursor"]
        assert (await other("GET", f"/v1/changes?after={good}")).status == 400


QUERIES = ["after=x", "after=-1", "after=1-x", "live=ws", "wait=61", "wait=-1", "odd=1", "live=long-poll&wait=nan"]


@pytest.mark.parametrize("query", QUERIES)
async def test_a_watch_that_is_none_is_refused(serving: Any, query: str) -> None:
    """400 with a problem document, and no stream."""
    async with serving() as ask:
        await note(ask.app.node.store)
        answer = await ask("GET", f"{WATCH}?{query}")
        assert (answer.status, answer.json()["code"]) == (400, "invalid")
