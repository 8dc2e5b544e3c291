"""Values in events, states, artifacts and memories: text of any kind is kept, the rest as ADK keeps it, or refused whole."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from google.adk.errors.input_validation_error import InputValidationError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions, EventCompaction
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.genai import types

import perdure
from perdure.adapters.google_adk import PerdureArtifactService, PerdureMemoryService, PerdureSessionService, memory
from perdure.adapters.google_adk.importing import open_source
from tests.support.adapters import unusual_values
from tests.support.adapters.adk_sessions import WHO, load, said, with_delta

HALVES = pytest.mark.parametrize("half", unusual_values.HALVES)
NAMES = pytest.mark.parametrize("name", unusual_values.NAMES)


def talkative(half: str) -> Event:
    """An event with such a text wherever one can be."""
    parts = [
        types.Part(text=half),
        types.Part(function_call=types.FunctionCall(id=half, name=half, args={"a": half, half: [half]})),
        types.Part(function_response=types.FunctionResponse(name="f", response={half: {half: half}})),
    ]
    actions = EventActions(state_delta={half: {half: [half]}, f"app:{half}": half, f"user:{half}": half}, agent_state={half: half})
    return Event(
        id=half, invocation_id=half, author=half, content=types.Content(parts=parts), actions=actions, custom_metadata={half: half}
    )


@HALVES
async def test_half_an_emoji_is_kept(url: str, half: str) -> None:
    """In texts, calls, results, states of all scopes, ids and metadata: equal when it is read, and appended again it is there once."""
    async with perdure.open(url) as store:
        service = PerdureSessionService(store)
        who = {"app_name": f"app{half}", "user_id": f"ann{half}"}
        session = await service.create_session(
            **who, session_id=half, state={f"a{half}": half, f"app:a{half}": half, f"user:a{half}": half}
        )
        await service.append_event(session, talkative(half))
        again = await service.get_session(**who, session_id=half)
        assert again is not None
        assert again.events[0].model_dump() == talkative(half).model_copy(update={"timestamp": again.events[0].timestamp}).model_dump()
        keys = {f"{scope}{key}" for scope in ("", "app:", "user:") for key in (f"a{half}", half)}
        assert again.state.keys() == keys
        assert (again.state[half], again.state[f"app:a{half}"]) == ({half: [half]}, half)
        assert (await service.get_user_state(**who)).keys() == {half, f"a{half}"}
        [listed] = (await service.list_sessions(app_name=who["app_name"])).sessions
        assert (listed.id, listed.user_id, listed.state) == (half.strip(), who["user_id"], again.state)
        assert session == again
        await service.append_event(again, talkative(half).model_copy(update={"timestamp": again.events[0].timestamp}))
        loaded = await service.get_session(**who, session_id=half)
        assert loaded is not None
        assert len(loaded.events) == 1


@HALVES
async def test_a_large_state_with_half_an_emoji_goes_on(url: str, half: str) -> None:
    """A list that is stored as its difference comes back whole, with such a text in what was there and in what came."""
    async with perdure.open(url) as store:
        service = PerdureSessionService(store)
        session = await service.create_session(**WHO, session_id="s", state={"list": [f"{n} {half}" * 20 for n in range(50)]})
        longer = [*session.state["list"], {half: half}]
        await service.append_event(session, with_delta({"list": longer}))
        again = await load(service)
        assert again.state["list"] == again.events[0].actions.state_delta["list"] == longer


@HALVES
async def test_half_an_emoji_in_an_artifact(url: str, half: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its text, name, type and metadata, in one commit and in pieces."""
    async with perdure.open(url) as store:
        service = PerdureArtifactService(store)
        who = {**WHO, "session_id": f"s{half}"}
        names = [f"a{half}", f"user:{half}x"]
        for text in (half, half * 200):
            monkeypatch.setattr("perdure.adapters.google_adk.artifacts.PIECE_LENGTH", 1 << 20 if text == half else 50)
            for name in names:
                part = types.Part(text=text)
                await service.save_artifact(**who, filename=name, artifact=part, custom_metadata={half: half})
                assert await service.load_artifact(**who, filename=name) == part
                version = await service.get_artifact_version(**who, filename=name)
                assert version is not None
                assert version.custom_metadata == {half: half}
        assert await service.list_artifact_keys(**who) == sorted(names)
        typed = types.Part(inline_data=types.Blob(data=b"\xff", mime_type=half))
        await service.save_artifact(**who, filename="typed", artifact=typed)
        assert await service.load_artifact(**who, filename="typed") == typed


@HALVES
async def test_half_an_emoji_in_memory(url: str, half: str) -> None:
    """In what is remembered, its author, id and metadata: found by its words, given back equal, forgotten by its id."""
    async with perdure.open(url) as store:
        service = PerdureMemoryService(store)
        who = {"app_name": f"app{half}", "user_id": half}
        content = types.Content(parts=[types.Part(text=f"lisbon {half}")])
        event = Event(id=half, author=half, content=content)
        for _ in range(2):
            await service.add_events_to_memory(**who, events=[event], session_id=half, custom_metadata={half: half})
        await service.add_memory(**who, memories=[MemoryEntry(id=f"x{half}", content=content, author=half)], custom_metadata={half: 1})
        found = (await service.search_memory(**who, query=f"LISBON {half}")).memories
        assert [(one.id, one.author, one.content) for one in found] == [(half, half, content), (f"x{half}", half, content)]
        assert [one.custom_metadata for one in found] == [{half: half}, {half: 1}]
        assert bool((await service.search_memory(**who, query="d83d")).memories) == ("d83d" in half)
        for one in found:
            await service.delete_memory(**who, memory_id=one.id)
        assert (await service.search_memory(**who, query="lisbon")).memories == []


@NAMES
async def test_odd_values_are_stored_or_refused(url: str, name: str) -> None:
    """In a first state, a delta, a result, metadata: stored so that the session can be read, or `Invalid`; and the session goes on."""
    async with perdure.open(url) as store:
        service = PerdureSessionService(store)

        def result(value: Any) -> Event:
            response = types.FunctionResponse.model_construct(name="f", response={"r": value})
            return Event(author="tool", content=types.Content(parts=[types.Part(function_response=response)]))

        makers: list[Any] = [
            lambda value: with_delta({"x": value}),
            result,
            lambda value: Event(author="a", custom_metadata={"x": value}),
            lambda value: _changed(author=value),
            lambda value: _changed(timestamp=value),
            lambda value: _changed(id=value),
            lambda value: _changed(content=value),
            lambda value: _changed(actions=value),
        ]
        try:
            await service.create_session(
                **WHO, session_id="first", state={"x": unusual_values.values()[name], f"app:{name}": unusual_values.values()[name]}
            )
        except perdure.Invalid:
            assert await service.get_session(**WHO, session_id="first") is None
        else:
            await load(service, "first")
        for number, maker in enumerate(makers):
            session = await service.create_session(**WHO, session_id=str(number))
            try:
                event = maker(unusual_values.values()[name])
            except (TypeError, ValueError, RecursionError):  # ADK's own models refuse it
                continue
            stored = 1
            try:
                await service.append_event(session, event)
            except perdure.Invalid:
                stored = 0
                session = await load(service, str(number))
            assert len((await load(service, str(number))).events) == stored
            await service.append_event(session, said("fine"))
            assert len((await load(service, str(number))).events) == stored + 1


def _changed(**fields: Any) -> Event:
    event = said("text")
    for name, value in fields.items():
        setattr(event, name, value)
    return event


async def test_a_time_that_is_no_number_is_refused(url: str) -> None:
    """Of an event and of a compaction: the store says where it stands, and the session goes on."""
    async with perdure.open(url) as store:
        service = PerdureSessionService(store)
        session = await service.create_session(**WHO, session_id="s")
        content = types.Content(parts=[types.Part(text="t")])
        for time in (float("nan"), float("inf")):
            compaction = EventCompaction(start_timestamp=0.0, end_timestamp=time, compacted_content=content)
            for event in (Event(author="a", timestamp=time), Event(author="a", actions=EventActions(compaction=compaction))):
                with pytest.raises(perdure.Invalid, match="finite ones only"):
                    await service.append_event(session, event)
        assert (await load(service)).events == []


async def test_bytes_in_a_state_are_base64_wherever_they_are_set(url: str) -> None:
    """Bytes that are UTF-8 and others, in a first state and in a delta: the same text, as ADK's events have it."""
    async with perdure.open(url) as store:
        service = PerdureSessionService(store)
        values = {"text": b"ok", "other": b"\xff\xfe", "inner": {"list": [b"\xff"]}}
        session = await service.create_session(**WHO, session_id="s", state={**values, "user:u": b"\xff"})
        await service.append_event(session, with_delta({f"d {key}": value for key, value in values.items()}))
        state = (await load(service)).state
        assert {key: state[key] for key in values} == {"text": "b2s=", "other": "__4=", "inner": {"list": ["_w=="]}}
        assert {key: state[f"d {key}"] for key in values} == {key: state[key] for key in values}
        assert state["user:u"] == "_w=="


@pytest.mark.parametrize("state", [3, "text", [1], {1: 2}, {None: 1}], ids=repr)
async def test_a_state_that_is_none_is_refused(state: Any) -> None:
    """By `Invalid`, and no session is there."""
    async with perdure.open("memory:") as store:
        service = PerdureSessionService(store)
        with pytest.raises(perdure.Invalid):
            await service.create_session(**WHO, session_id="s", state=state)
        assert await service.get_session(**WHO, session_id="s") is None


@pytest.mark.parametrize("id", [3, b"s", ["s"], object()], ids=lambda value: type(value).__name__)
async def test_names_that_are_no_strings_are_refused(id: Any) -> None:
    """As session, user, app and filename: `Invalid` on every call."""
    async with perdure.open("memory:") as store:
        service, artifacts = PerdureSessionService(store), PerdureArtifactService(store)
        for who in (
            {**WHO, "session_id": id},
            {"app_name": "a", "user_id": id, "session_id": "s"},
            {"app_name": id, "user_id": "u", "session_id": "s"},
        ):
            for call in (
                service.create_session(**who),
                service.get_session(**who),
                service.delete_session(**who),
                artifacts.save_artifact(**who, filename="f", artifact=types.Part(text="t")),
            ):
                with pytest.raises(perdure.Invalid):
                    await call
        with pytest.raises(perdure.Invalid):
            await artifacts.save_artifact(**WHO, session_id="s", filename=id, artifact=types.Part(text="t"))
        assert [info async for info in store.list()] == []


@NAMES
async def test_odd_artifacts_and_memories_are_stored_or_refused(url: str, name: str) -> None:
    """As artifact, metadata and memory: what was accepted can be read, the rest is `Invalid` or ADK's `InputValidationError`."""
    async with perdure.open(url) as store:
        artifacts, memories = PerdureArtifactService(store), PerdureMemoryService(store)
        value = unusual_values.values()[name]
        for artifact, metadata in ((value, None), ({"text": value}, None), (types.Part(text="t"), {"x": value})):
            try:
                await artifacts.save_artifact(**WHO, filename="f", artifact=artifact, custom_metadata=metadata)
            except (perdure.Invalid, InputValidationError):
                continue
            assert await artifacts.load_artifact(**WHO, filename="f") is not None
        for metadata in ({"x": value}, {name: value}):
            try:
                await memories.add_events_to_memory(**WHO, events=[said("hello")], custom_metadata=metadata)
            except perdure.Invalid:
                continue
        await memories.add_events_to_memory(**WHO, events=[said("hello")])
        assert (await memories.search_memory(**WHO, query="hello")).memories


async def test_a_memory_of_a_year_that_no_calendar_has_is_found(url: str) -> None:
    """Its time is given as the number that it is, and the others are found too."""
    async with perdure.open(url) as store:
        service = PerdureMemoryService(store)
        for time in (1e30, -1e18, 0.0):
            event = Event(author="a", timestamp=time, content=types.Content(parts=[types.Part(text="hello")]))
            await service.add_events_to_memory(**WHO, events=[event])
        times = [one.timestamp for one in (await service.search_memory(**WHO, query="hello")).memories]
        assert times[:2] == ["1e+30", "-1e+18"]
        assert str(times[2]).startswith("19")


async def test_a_memory_of_any_size_is_added(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of more than one commit is remembered whole, once, in several commits; an event over 16 MiB is `TooLarge`."""
    monkeypatch.setattr("perdure.adapters.common.cutting.COMMIT_BYTES", 1 << 16)
    async with perdure.open(url) as store:
        service = PerdureMemoryService(store)
        events = [said(f"word{number} " + "x" * 10_000) for number in range(40)]
        for _ in range(2):
            await service.add_events_to_memory(**WHO, events=events, session_id="s")
        assert [(await service.search_memory(**WHO, query=f"word{n}")).memories[0].id for n in (0, 39)] == [events[0].id, events[39].id]
        assert 5 < (await store.read("adk/shop/memory/ann")).version < 12
        with pytest.raises(perdure.TooLarge):
            await service.add_events_to_memory(**WHO, events=[said("x" * (17 << 20))])
    assert memory.RESULTS_MAX == 10


async def test_an_artifact_of_emojis_is_stored(url: str) -> None:
    """Four bytes a character, and quotes that JSON escapes: every piece is within a commit's limit."""
    async with perdure.open(url) as store:
        service = PerdureArtifactService(store)
        part = types.Part(text='😀"' * (3 << 20))
        await service.save_artifact(**WHO, filename="f", artifact=part)
        assert await service.load_artifact(**WHO, filename="f") == part


async def test_a_source_with_half_an_emoji_comes_over(tmp_path: Path) -> None:
    """What JSON in ADK's own tables spells as such a text, in events and states, is brought over once and compared."""
    path = str(tmp_path / "old.db")
    old = SqliteSessionService(path)
    session = await old.create_session(**WHO, session_id="s", state={"a": "x", "app:a": "x"})
    await old.append_event(session, said("MARK", b="MARK"))
    with sqlite3.connect(path) as connection:
        for table, column in (("events", "event_data"), ("sessions", "state"), ("app_states", "state")):
            connection.execute(f"UPDATE {table} SET {column} = replace(replace({column}, 'MARK', ?), '\"x\"', ?)", ("\\ud83d", '"\\ud83d"'))
        assert "\\ud83d" in connection.execute("SELECT event_data FROM events").fetchone()[0]
    connection.close()
    async with perdure.open("memory:") as store:
        source = open_source(path)
        [id] = await source.ids()
        assert [(await source.copy_session(id, store)).written for _ in range(2)] == [1, 0]
        await source.close()
        found = await load(PerdureSessionService(store))
        assert (found.state, found.events[0].content.parts[0].text) == ({"a": "\ud83d", "app:a": "\ud83d", "b": "\ud83d"}, "\ud83d")
    assert json.loads('"\\ud83d"') == "\ud83d"
