"""The record face × everything that is another tenant's: the same bytes and the same engine calls as if it were not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perdure import Event
from perdure.model.ids import SessionKey
from perdure.service.hooks import Scope
from perdure.service.records.verified import VerifiedFace
from perdure.wire import HEADER_WIRE, MSGPACK
from perdure.wire import records as wire
from tests.support.service.asking import Response
from tests.support.service.foreign import NOWHERE, SECRET, THEIRS, World, world
from tests.support.service.hostile import Client, rehashed

SPOKEN = (HEADER_WIRE, "1")
FOREIGN = ("theirs", "nobody", "~theirs", "~")


def _append(world: World, session: SessionKey) -> wire.Message:
    """A sound record that starts the session."""
    client = Client(world.node.store._context.core)
    record = rehashed(session.id, client.record(session.id, None, tenant=session.tenant), id=b"\1" * 16, at=1, tenant=session.tenant)
    return wire.Append((client.attempt(session.id, None, record, tenant=session.tenant),))


MESSAGES: dict[str, Callable[[World, SessionKey], wire.Message] | None] = {
    wire.ABOUT: None,
    wire.APPEND: _append,
    wire.HEADS: lambda _, session: wire.Heads((session,)),
    wire.LOAD: lambda _, session: wire.Load(session),
    wire.READ: lambda _, session: wire.Read(session),
    wire.FIND_KEY: lambda _, session: wire.FindKey(session, "their-key"),
    wire.SCAN: lambda _, session: wire.Scan(session.tenant, session.id),
    wire.FEED: None,
    wire.NOTICES: lambda _, session: wire.Notices((session,), (), (session,)),
}
"""What each route is asked about a session. `FEED` names none, and `ABOUT` asks nothing."""
NAMING = [path for path, message in MESSAGES.items() if message is not None]


async def ask(world: World, path: str, session: SessionKey) -> tuple[Response, list[str]]:
    """The answer, and what the engine was asked."""
    make = MESSAGES[path]
    assert make is not None
    return await say(world, path, make(world, session))


async def say(world: World, path: str, message: wire.Message) -> tuple[Response, list[str]]:
    world.calls.taken()
    answer = await world.ask("POST", path, wire.encode(message), headers=[SPOKEN], media=MSGPACK)
    return answer, world.calls.taken()


def without(body: bytes, session: str) -> bytes:
    """The bytes without the session's name, which are of one length here."""
    return body.replace(session.encode(), b"SESSION")


@pytest.mark.parametrize("path", [path for path in NAMING if path != wire.NOTICES])
async def test_a_session_of_another_tenant_is_as_one_that_is_not_there(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for under the caller's own tenant, by its name: answered, and asked of the engine, as one that nobody has."""
    assert len(THEIRS) == len(NOWHERE)
    async with world(monkeypatch) as here:
        await ask(here, path, SessionKey("mine", "trip-warm-up"))
        nowhere, asked_nowhere = await ask(here, path, SessionKey("mine", NOWHERE))
        theirs, asked = await ask(here, path, SessionKey("mine", THEIRS))
        assert (theirs.status, without(theirs.body, THEIRS)) == (nowhere.status, without(nowhere.body, NOWHERE))
        assert theirs.status == 200 and theirs.headers == nowhere.headers
        assert [call.replace(THEIRS, "S") for call in asked] == [call.replace(NOWHERE, "S") for call in asked_nowhere]
        assert not any("'theirs'" in call for call in asked) and SECRET.encode() not in theirs.body


@pytest.mark.parametrize("path", NAMING)
async def test_another_tenant_is_refused_before_anything_is_asked(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the tenant and the session are there or not: the same refusal, and not one engine call. Perdure's own sessions are read,
    where they are about the caller's tenant, and never written."""
    async with world(monkeypatch) as here:
        await here.ask("GET", "/v1/sessions")  # So that the token is known.
        before = (await here.other("GET", f"/v1/sessions/{THEIRS}")).body
        found: dict[str, set[tuple[int, bytes]]] = {}
        for tenant in (*FOREIGN, "~mine") if path == wire.APPEND else FOREIGN:
            for session in (THEIRS, NOWHERE):
                answer, asked = await ask(here, path, SessionKey(tenant, session))
                assert asked == [], (tenant, asked)
                found.setdefault(tenant, set()).add((answer.status, answer.body))
                if path == wire.APPEND:
                    (refusal,) = wire.decode(wire.Appended, answer.body).answers
                    assert isinstance(refusal, wire.Refusal) and refusal.problem["code"] == "forbidden"
                else:
                    assert answer.status == 403
        assert found["theirs"] == found["nobody"] and all(len(answers) == 1 for answers in found.values())
        assert (await here.other("GET", f"/v1/sessions/{THEIRS}")).body == before


async def test_the_feed_has_ones_own_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the start, and from any place that another tenant's client has come to: what is theirs is left out, and only that."""
    async with world(monkeypatch) as here:
        cursor: str | None = None
        places: list[str | None] = [None]
        while True:
            page = await here.node.store._core.backend.feed(cursor, 1)
            if not page.items:
                break
            places.append(cursor := page.cursor)
        assert len(places) > 6
        seen = set()
        for place in places:
            answer, _ = await say(here, wire.FEED, wire.Feed(place))
            found = wire.decode(wire.ChangesFound, answer.body)
            assert {change.session.tenant for change in found.changes} <= {"mine", "~mine"} and SECRET.encode() not in answer.body
            seen |= {change.session for change in found.changes}
        assert SessionKey("mine", "mine") in seen


async def test_notices_are_of_ones_own_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of another tenant's name is as one that is not there; and who asks for everything hears nothing of others."""
    async with world(monkeypatch) as here:
        face = here.node.part(VerifiedFace, lambda _: VerifiedFace(here.node.store._context.opened()))
        from perdure.service.hooks import Credential

        mine = Credential("mine")
        said = []
        for name in (THEIRS, NOWHERE):
            here.calls.taken()
            session = SessionKey("mine", name)
            notices = face.notices(mine, wire.Notices((session,), (), (session,)), 60)
            said.append((await anext(notices), [call.replace(name, "S") for call in here.calls.taken()]))
            await notices.aclose()
        assert said[0] == said[1] and said[0][0] == wire.Moved()
        everything = face.notices(mine, wire.Notices(), 60)
        assert await anext(everything) == wire.Moved()
        await here.node.store.for_tenant("theirs").append(THEIRS, Event("note"))
        await here.node.store.for_tenant("mine").append("mine", Event("note"))
        assert [session for session, _ in (await anext(everything)).moved] == [SessionKey("mine", "mine")]
        await everything.aclose()


@pytest.mark.parametrize("path", list(MESSAGES))
@pytest.mark.parametrize("credential", [None, "Bearer perdure_0123456789abcdef_" + "A" * 43])
async def test_without_a_credential_nothing_is_asked(path: str, credential: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """401, before the message is read; the engine is asked for the token at most."""
    async with world(monkeypatch) as here:
        here.ask.headers[:] = [] if credential is None else [("authorization", credential)]
        here.calls.taken()
        method: Any = "GET" if path == wire.ABOUT else "POST"
        answer = await here.ask(method, path, None if method == "GET" else b"\xc1", headers=[SPOKEN])
        assert answer.status == 401 and all("token/" in call for call in here.calls.taken())


@pytest.mark.parametrize("path", list(MESSAGES))
async def test_reading_needs_its_scope(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `read` the record face is 403, and the engine is not asked; what a commit needs besides is in `test_hostile`."""
    others = tuple(scope.value for scope in Scope if scope is not Scope.read)
    async with world(monkeypatch, others) as here:
        await here.ask("GET", "/v1/sessions")  # So that the token is known.
        here.calls.taken()
        method = "GET" if path == wire.ABOUT else "POST"
        answer = await here.ask(method, path, None if method == "GET" else b"\xc1", headers=[SPOKEN])
        assert (answer.status, here.calls.taken()) == (403, [])
