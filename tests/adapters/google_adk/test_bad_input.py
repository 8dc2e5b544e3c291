"""What is not ADK's, not there, too long or from another time is refused by name, and nothing is misread."""

from __future__ import annotations

from typing import Any

import pytest
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.genai import types

import perdure
from perdure import op
from perdure.adapters.google_adk import PerdureSessionService
from perdure.adapters.google_adk.events import as_json
from tests.support.adapters.adk_sessions import SESSION, WHO, load, said


def test_only_a_store_will_do() -> None:
    """A URL or anything else in the store's place is refused when the service is made."""
    with pytest.raises(perdure.Invalid, match="takes an open store"):
        PerdureSessionService("sqlite:///agents.db")  # type: ignore[arg-type]


def test_ids_with_separators_are_different_sessions(play) -> None:
    """Slashes, percent signs and control characters in any id neither collide nor leak into another user's list."""

    async def scenario(service: PerdureSessionService) -> None:
        ids = [("a", "b/c", "d"), ("a", "b", "c/d"), ("a/sessions/b", "c", "d"), ("a", "b%2Fc", "d"), ("a", "", "x\ty"), ("", "b", "d")]
        for number, (app, user, id) in enumerate(ids):
            await service.create_session(app_name=app, user_id=user, session_id=id, state={"n": number, "user:n": number})
        for number, (app, user, id) in enumerate(ids):
            found = await service.get_session(app_name=app, user_id=user, session_id=id)
            assert found is not None
            assert (found.app_name, found.user_id, found.id, found.state) == (app, user, id, {"n": number, "user:n": number})
            assert [session.id for session in (await service.list_sessions(app_name=app, user_id=user)).sessions] == [id]
        assert len((await service.list_sessions(app_name="a")).sessions) == 4

    play(scenario)


def test_ids_that_are_too_long_together_are_refused(play) -> None:
    """The refusal names both numbers, on every method, and nothing is made."""

    async def scenario(service: PerdureSessionService) -> None:
        who = {"app_name": "a" * 100, "user_id": "u" * 100}
        with pytest.raises(perdure.Invalid, match=r"needs 261 bytes .* at most 255"):
            await service.create_session(**who, session_id="s" * 46)
        with pytest.raises(perdure.Invalid, match="at most 255"):
            await service.get_session(**who, session_id="s" * 46)
        await service.create_session(**who, session_id="s" * 40)
        assert len((await service.list_sessions(app_name="a" * 100)).sessions) == 1

    play(scenario)


def test_a_session_of_something_else_is_refused(play) -> None:
    """A session that a program of its own made under an ADK id is not read as one, even if its events have ADK's names."""

    async def scenario(service: PerdureSessionService) -> None:
        store = service._store
        await store.append(SESSION, perdure.Event("message", {"role": "user", "content": "hi"}, (op.set("/a", 1),)))
        await store.append(SESSION, perdure.Event("session_created", "by me"))
        with pytest.raises(perdure.Invalid, match="is no ADK session"):
            await load(service)

    play(scenario)


def test_an_event_that_this_adk_does_not_understand_is_named(play) -> None:
    """An event whose fields this google-adk cannot read is `Unsupported`, with its version; unknown fields are ignored, as in ADK."""

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s")
        newer = as_json(said("one")) | {"from_the_future": {"x": 1}}
        await service._store.append(SESSION, perdure.Event("message", newer))
        assert [event.id for event in (await load(service)).events] == [newer["id"]]
        await service._store.append(SESSION, perdure.Event("message", as_json(said("two")) | {"content": "text"}))
        with pytest.raises(perdure.Unsupported, match="Version 3 of session 'adk/shop/sessions/ann/s' holds an event"):
            await load(service)
        assert session.events == []

    play(scenario)


def test_a_large_tool_result_is_stored(play) -> None:
    """Ten megabytes in one event come back as they were."""

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s")
        response = types.FunctionResponse(name="dump", response={"rows": ["x" * 1000] * 10_000})
        await service.append_event(session, Event(author="tool", content=types.Content(parts=[types.Part(function_response=response)])))
        assert await load(service) == session

    play(scenario)


async def test_tenants_do_not_see_each_other() -> None:
    """A service for another tenant of the same store finds no session, no shared state, and cannot append to what it does not see."""

    async with perdure.open("memory:") as store:
        mine, theirs = PerdureSessionService(store), PerdureSessionService(store.for_tenant("globex"))
        session = await mine.create_session(**WHO, session_id="s", state={"user:a": 1})
        assert await theirs.get_session(**WHO, session_id="s") is None
        assert await theirs.get_user_state(**WHO) == {}
        assert (await theirs.list_sessions(app_name="shop")).sessions == []
        with pytest.raises(SessionNotFoundError):
            await theirs.append_event(session, said("hi"))


async def test_a_closed_store_says_so() -> None:
    """After the store is closed every method raises `Closed`."""

    async with perdure.open("memory:") as store:
        service = PerdureSessionService(store)
        session = await service.create_session(**WHO, session_id="s")
    calls: list[Any] = [
        service.create_session(**WHO),
        service.get_session(**WHO, session_id="s"),
        service.list_sessions(**WHO),
        service.append_event(session, said("hi")),
        service.delete_session(**WHO, session_id="s"),
    ]
    for call in calls:
        with pytest.raises(perdure.Closed):
            await call
