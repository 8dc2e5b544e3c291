"""What lies in the log: little, in words that people understand, readable from its end."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest
from google.adk.events.event import Event
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st

import perdure
from perdure.adapters.google_adk import PerdureSessionService
from tests.support.adapters.adk_sessions import SESSION, WHO, load, said, with_delta
from tests.support.adapters.commit_lines import lines_of


def part(**fields: Any) -> Event:
    return Event(invocation_id="i", author="planner", content=types.Content(role="model", parts=[types.Part(**fields)]))


def test_the_log_reads_like_a_conversation(play) -> None:
    """Each event has a type that says what happened, its author as actor, its id as key, and a preview in words."""

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s")
        call = types.FunctionCall(name="search", args={"q": "hotel"})
        response = types.FunctionResponse(name="search", response={"found": 3})
        for event in (
            said("Find me a hotel"),
            part(function_call=call),
            part(function_response=response),
            part(text="Three are free."),
            with_delta({"found": 3}),
            Event(author="planner"),
        ):
            await service.append_event(session, event)
        commits = [commit async for commit in service._store.history(SESSION)]
        rows = [(commit.actor, commit.events[0].type, lines_of(commit)[0]) for commit in commits]
        assert rows[1:5] == [
            ("user", "message", "user: Find me a hotel"),
            ("planner", "tool_call", 'planner: search(q="hotel")'),
            ("planner", "tool_result", 'tool search: {"found":3}'),
            ("planner", "message", "planner: Three are free."),
        ]
        assert [type for _, type, _ in rows] == [
            "session_created", "message", "tool_call", "tool_result", "message", "state_changed", "agent_event"
        ]  # fmt: skip
        assert [commit.key for commit in commits[1:]] == [event.id for event in session.events]
        assert (await service._store.read(SESSION)).state == {"state": {"found": 3}}

    play(scenario)


def written(commits: list[perdure.Commit]) -> int:
    return sum(len(msgspec.json.encode(commit.events)) for commit in commits)


def test_a_growing_value_costs_what_was_added(play) -> None:
    """A list that ordinary code sets anew with one item more, 200 times, is stored as its items; every event's delta comes back whole."""

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s")
        for number in range(200):
            notes = [*session.state.get("notes", []), {"n": number, "text": "x" * 50}]
            await service.append_event(session, with_delta({"notes": notes, "count": number}))
        commits = [commit async for commit in service._store.history(SESSION)]
        assert written(commits[-1:]) < 500
        assert written(commits) < 200 * 600
        assert len(msgspec.json.encode(session.state)) > 12_000
        loaded = await load(service)
        assert loaded == session
        assert [len(event.actions.state_delta["notes"]) for event in loaded.events] == list(range(1, 201))
        recent = await load(service, num_recent_events=2)
        assert recent.events == session.events[-2:]
        recent.events[0].actions.state_delta["notes"].clear()
        assert await load(service) == session

    play(scenario)


def test_an_edit_in_a_large_value_costs_the_edit(play) -> None:
    """Replacing a 20 KB object by a copy with one change stores the change."""

    async def scenario(service: PerdureSessionService) -> None:
        document = {f"chapter{n}": {"title": str(n), "text": "word " * 40} for n in range(100)}
        session = await service.create_session(**WHO, session_id="s", state={"document": document})
        changed = document | {"chapter50": {"title": "fifty", "text": "short"}}
        await service.append_event(session, with_delta({"document": changed}))
        (_, commit) = [commit async for commit in service._store.history(SESSION)]
        assert written([commit]) < 1500
        assert (await load(service)).state == {"document": changed}
        assert await load(service) == session

    play(scenario)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=600),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=6),
    max_leaves=12,
)


@settings(max_examples=40)
@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "a/b", "~", "app:a", "user:a"]), JSON_VALUES, max_size=3), max_size=8))
def test_any_deltas_come_back_exactly(deltas: list[dict[str, Any]]) -> None:
    """Whatever JSON the deltas hold, large or small, the loaded session is the one in memory: state and each event's delta, types too."""

    async def scenario() -> None:
        async with perdure.open("memory:") as store:
            service = PerdureSessionService(store)
            session = await service.create_session(**WHO, session_id="s")
            for delta in deltas:
                await service.append_event(session, with_delta(delta))
            loaded = await load(service)
            assert loaded == session
            assert repr(loaded.events) == repr(session.events)
            assert {key: repr(value) for key, value in loaded.state.items()} == {key: repr(value) for key, value in session.state.items()}

    asyncio.run(scenario())


def test_loading_the_end_reads_the_end(play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,000 events the newest ten are loaded by reading few records, and an append reads none."""
    read: list[int] = []

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s")
        for number in range(1_000):
            await service.append_event(session, said(f"number {number} " + random.Random(number).randbytes(40).hex()))
        backend = service._store._core.backend
        original = (backend.read, backend.load)

        async def counted_read(*args: Any, **kwargs: Any) -> Any:
            records = await original[0](*args, **kwargs)
            read.append(len(records))
            return records

        async def counted_load(*args: Any, **kwargs: Any) -> Any:
            loaded = await original[1](*args, **kwargs)
            read.append(0 if loaded is None else len(loaded.records))
            return loaded

        monkeypatch.setattr(backend, "read", counted_read)
        monkeypatch.setattr(backend, "load", counted_load)
        await service.append_event(session, said("last"))
        assert read == []
        loaded = await load(service, num_recent_events=10)
        assert loaded.events == session.events[-10:]
        assert sum(read) <= 64
        read.clear()
        assert (await load(service, num_recent_events=0)).last_update_time == session.last_update_time
        assert sum(read) <= 64

    play(scenario)
