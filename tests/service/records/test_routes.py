"""The record face as HTTP: who speaks which wire version, which store is meant, how long a client waits, and what is no message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

import perdure
from perdure.backends.spi import Append, Outcome
from perdure.wire import HEADER_DEADLINE, HEADER_STORE, HEADER_WIRE, MSGPACK
from perdure.wire import records as wire
from perdure.wire.problem import error_of
from tests.support.service.asking import Asker
from tests.support.service.hostile import Client

Serving = Callable[..., AbstractAsyncContextManager[Asker]]
SPOKEN = (HEADER_WIRE, "1")
PATHS = [wire.APPEND, wire.HEADS, wire.LOAD, wire.READ, wire.FIND_KEY, wire.SCAN, wire.FEED, wire.NOTICES]


async def test_a_node_says_what_is_behind_it(serving: Serving) -> None:
    """`about` names the wire versions, the store, its capabilities and the tenant; so does a header of each answer."""
    async with serving() as ask:
        answer = await ask("GET", wire.ABOUT, headers=[SPOKEN])
        about = wire.decode(wire.About, answer.body)
        assert (answer.status, answer.headers["perdure-wire"], answer.headers["content-type"]) == (200, "1", MSGPACK)
        assert about.store_id == answer.headers["perdure-store"] == ask.app.node.store.id
        assert (about.wire, about.tenant, about.capabilities["atomic_batch"]) == ((1,), "default", False)


@pytest.mark.parametrize("path", PATHS)
async def test_each_route_checks_who_speaks_to_it(serving: Serving, path: str) -> None:
    """Without a wire version, with another one, in another media type, or for another store: refused before anything is read."""
    async with serving() as ask:
        heads: list[tuple[list[tuple[str, str]], str, str]] = [
            ([], MSGPACK, "Invalid"),
            ([(HEADER_WIRE, "2")], MSGPACK, "Unsupported"),
            ([SPOKEN], "application/json", "UnsupportedMedia"),
            ([SPOKEN, (HEADER_STORE, "another")], MSGPACK, "Unavailable"),
            ([SPOKEN], MSGPACK, "Invalid"),
        ]
        for headers, media, kind in heads:
            answer = await ask("POST", path, b"\xc1", headers=headers, media=media)
            assert answer.json()["type"] == f"urn:perdure:error:{kind}", (headers, media)
        assert (await ask("GET", path, headers=[SPOKEN])).status == 405


async def _append(ask: Asker, *headers: tuple[str, str]) -> Any:
    client = Client(ask.app.node.store._context.core)
    body = wire.encode(wire.Append((client.attempt("s", None, client.record("s", None)),)))
    return await ask("POST", wire.APPEND, body, headers=[SPOKEN, *headers], media=MSGPACK)


@pytest.mark.parametrize("said", ["soon", "0", "-1", "nan", "inf", "1e9"])
async def test_a_deadline_that_is_none_is_refused(serving: Serving, said: str) -> None:
    """It is a number of seconds, above nothing and at most an hour."""
    async with serving() as ask:
        answer = await _append(ask, (HEADER_DEADLINE, said))
        assert (answer.status, answer.json()["code"]) == (400, "invalid")


async def test_a_node_answers_within_half_of_the_time(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that hangs leaves a write `Unknown`, 504, well before the client stops waiting."""
    async with serving() as ask:
        backend, hangs = ask.app.node.store._context.core.backend, asyncio.Event()

        async def append(appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
            await hangs.wait()
            raise AssertionError

        monkeypatch.setattr(backend, "append", append)
        answer = await _append(ask, (HEADER_DEADLINE, "0.2"))
        assert answer.status == 504
        assert isinstance(error_of(answer.json()), perdure.Unknown)


async def test_what_goes_wrong_for_all_is_the_answer(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is away is 503 with the time to come back, where the write was not stored."""
    async with serving() as ask:
        backend = ask.app.node.store._context.core.backend

        async def append(appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
            raise perdure.Unavailable("Gone.")

        monkeypatch.setattr(backend, "append", append)
        answer = await _append(ask)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")


async def test_notices_are_of_what_was_asked_for(serving: Serving) -> None:
    """A stream says first that it hears, then which of the named sessions moved to which version, collected; of others nothing."""
    async with serving(heartbeat=30.0) as ask:
        store = ask.app.node.store
        face = Client(store._context.core).face
        from perdure.model.ids import SessionKey
        from tests.support.service.hostile import OWNER

        asked = wire.Notices((SessionKey("default", "a"), SessionKey("default", "b")))
        notices = face.notices(OWNER, asked, 30)
        assert await anext(notices) == wire.Moved()
        for name in ("a", "other", "b", "a"):
            await store.append(name, perdure.Event("note"))
        found: dict[str, int] = {}
        async with asyncio.timeout(20):
            while found != {"a": 2, "b": 1}:
                moved = await anext(notices)
                found |= {session.id: version for session, version in moved.moved}
        await notices.aclose()
        quick = face.notices(OWNER, asked, 0.01)
        assert [await anext(quick) for _ in range(3)] == [wire.Moved()] * 3
        await quick.aclose()
