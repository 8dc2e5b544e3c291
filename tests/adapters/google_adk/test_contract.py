"""What every ADK session service owes its callers: the contracts of google-adk 2.13's own tests, told anew."""

from __future__ import annotations

import time

import pytest
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions import Session
from google.adk.tools.tool_confirmation import ToolConfirmation
from google.genai import types

from perdure.adapters.google_adk import PerdureSessionService
from tests.support.adapters.adk_sessions import WHO, load, said, with_delta


def test_an_unknown_session_is_none(play) -> None:
    """`get_session` gives `None` for a session, a user and an app that nobody made."""

    async def scenario(service: PerdureSessionService) -> None:
        assert await service.get_session(**WHO, session_id="s") is None

    play(scenario)


def test_a_session_is_loaded_as_it_was_created(play) -> None:
    """What `create_session` returns is what `get_session` gives: ids, state, no events, a time not in the future."""

    async def scenario(service: PerdureSessionService) -> None:
        made = await service.create_session(**WHO, state={"key": "value", "n": [1, {"deep": None}]})
        assert (made.app_name, made.user_id, made.state, made.events) == ("shop", "ann", {"key": "value", "n": [1, {"deep": None}]}, [])
        assert made.id
        assert made.last_update_time <= time.time()
        assert await load(service, made.id) == made

    play(scenario)


def test_a_deleted_session_is_gone_and_its_id_is_free(play) -> None:
    """Deleting gives `None` afterwards, twice is no error, and the id can be used again: with nothing of the life before."""

    async def scenario(service: PerdureSessionService) -> None:
        first = await service.create_session(**WHO, session_id="s", state={"old": 1})
        hello = said("hello", old=2)
        await service.append_event(first, hello)
        for _ in range(2):
            await service.delete_session(**WHO, session_id="s")
        assert await service.get_session(**WHO, session_id="s") is None
        assert (await service.list_sessions(app_name="shop")).sessions == []
        second = await service.create_session(**WHO, session_id="s", state={"new": 1})
        assert await load(service, "s") == second
        for event in (said("again"), hello, hello):
            await service.append_event(second, event)
        loaded = await load(service, "s")
        assert (loaded.state, len(loaded.events)) == ({"new": 1, "old": 2}, 2)
        with pytest.raises(StaleSessionError):
            await service.append_event(first, said("from the life before"))

    play(scenario)


def test_appending_to_a_deleted_or_unknown_session_is_not_found(play) -> None:
    """A session that is gone, or never was, takes no events: `SessionNotFoundError`, and nothing is made."""

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s")
        await service.delete_session(**WHO, session_id="s")
        with pytest.raises(SessionNotFoundError):
            await service.append_event(session, said("late"))
        with pytest.raises(SessionNotFoundError):
            await service.append_event(session, said("late", key=1))
        stranger = Session(id="never", app_name="shop", user_id="ann")
        with pytest.raises(SessionNotFoundError):
            await service.append_event(stranger, said("late"))
        assert await service.get_session(**WHO, session_id="never") is None

    play(scenario)


def test_an_id_is_taken_once(play) -> None:
    """Creating a session whose id exists raises `AlreadyExistsError` and leaves the first as it is, shared state too."""

    async def scenario(service: PerdureSessionService) -> None:
        await service.create_session(**WHO, session_id="s", state={"keep": 1})
        for id in ("s", "  s \n"):
            with pytest.raises(AlreadyExistsError):
                await service.create_session(**WHO, session_id=id, state={"keep": 2, "user:x": 1})
        assert (await load(service, "s")).state == {"keep": 1}

    play(scenario)


def test_ids_are_stripped_and_blank_ones_are_made(play) -> None:
    """White space around an id is dropped when creating, loading and deleting; an empty or blank id is generated."""

    async def scenario(service: PerdureSessionService) -> None:
        made = await service.create_session(**WHO, session_id="order-42\n", state={"cart": "book"})
        assert made.id == "order-42"
        assert await load(service, " order-42\n") == made
        await service.delete_session(**WHO, session_id="order-42\n")
        assert await service.get_session(**WHO, session_id="order-42") is None
        ids = [(await service.create_session(**WHO, session_id=id)).id for id in (None, "", "   ")]
        assert len(set(ids)) == 3
        assert all(id.strip() == id and id for id in ids)

    play(scenario)


def test_sessions_of_one_user_are_listed(play) -> None:
    """`list_sessions` with a user gives that user's sessions with their state and without events."""

    async def scenario(service: PerdureSessionService) -> None:
        for number in range(5):
            session = await service.create_session(**WHO, session_id=f"s{number}", state={"n": number})
            await service.append_event(session, said("hello"))
        await service.create_session(app_name="shop", user_id="ann2", session_id="other")
        await service.create_session(app_name="shop2", user_id="ann", session_id="other")
        found = (await service.list_sessions(**WHO)).sessions
        assert {session.id: session.state for session in found} == {f"s{number}": {"n": number} for number in range(5)}
        assert all(session.events == [] for session in found)

    play(scenario)


def test_sessions_of_all_users_are_listed(play) -> None:
    """Without a user all of the app's sessions are listed, each with its own user's state; an empty user is a user, not all."""

    async def scenario(service: PerdureSessionService) -> None:
        await service.create_session(app_name="shop", user_id="ann", session_id="a", state={"k": 1, "user:who": "ann"})
        await service.create_session(app_name="shop", user_id="bob", session_id="b", state={"k": 2, "user:who": "bob"})
        found = (await service.list_sessions(app_name="shop")).sessions
        assert [(session.id, session.state) for session in found] == [
            ("a", {"k": 1, "user:who": "ann"}),
            ("b", {"k": 2, "user:who": "bob"}),
        ]
        assert (await service.list_sessions(app_name="shop", user_id="")).sessions == []

    play(scenario)


def test_sessions_are_listed_least_recently_updated_first(play) -> None:
    """The order is by the time of the last event, oldest first; equal times by user and id."""

    async def scenario(service: PerdureSessionService) -> None:
        for id in ("c", "a", "b"):
            session = await service.create_session(**WHO, session_id=id)
            await service.append_event(session, Event(author="user", timestamp=5.0))
        session = await load(service, "a")
        await service.append_event(session, Event(author="user", timestamp=6.0))
        found = (await service.list_sessions(**WHO)).sessions
        assert [(session.id, session.last_update_time) for session in found] == [("b", 5.0), ("c", 5.0), ("a", 6.0)]

    play(scenario)


def test_app_state_is_seen_by_all_users(play) -> None:
    """`app:` keys set when creating or by an event are seen in every session of the app, and in none of another."""

    async def scenario(service: PerdureSessionService) -> None:
        first = await service.create_session(app_name="shop", user_id="u1", session_id="s1", state={"app:k1": "v1"})
        await service.append_event(first, with_delta({"app:k2": "v2"}))
        second = await service.create_session(app_name="shop", user_id="u2", session_id="s2")
        assert second.state == {"app:k1": "v1", "app:k2": "v2"}
        assert (await load(service, "s1", "u1")).state == {"app:k1": "v1", "app:k2": "v2"}
        assert (await service.create_session(app_name="bank", user_id="u1")).state == {}

    play(scenario)


def test_user_state_is_seen_by_that_user_alone(play) -> None:
    """`user:` keys are seen in all sessions of that user in that app, and by nobody else."""

    async def scenario(service: PerdureSessionService) -> None:
        first = await service.create_session(app_name="shop", user_id="u1", session_id="s1", state={"user:k1": "v1"})
        await service.append_event(first, with_delta({"user:k2": "v2"}))
        assert (await service.create_session(app_name="shop", user_id="u1")).state == {"user:k1": "v1", "user:k2": "v2"}
        assert (await service.create_session(app_name="shop", user_id="u2")).state == {}
        assert (await service.create_session(app_name="bank", user_id="u1")).state == {}

    play(scenario)


def test_session_state_is_not_shared(play) -> None:
    """A key without a prefix belongs to its session; another user's session of the same id is another session."""

    async def scenario(service: PerdureSessionService) -> None:
        first = await service.create_session(app_name="shop", user_id="u1", session_id="s1", state={"a": 1})
        await service.append_event(first, said("hello", b=2))
        assert (await load(service, "s1", "u1")).state == {"a": 1, "b": 2}
        assert (await service.create_session(app_name="shop", user_id="u1", session_id="s2")).state == {}
        await service.create_session(app_name="shop", user_id="u2", session_id="s1")
        twin = await load(service, "s1", "u2")
        assert (twin.user_id, twin.state, twin.events) == ("u2", {}, [])

    play(scenario)


def test_temporary_state_lives_in_memory_only(play) -> None:
    """`temp:` keys are seen in the session object for later agents of the run, and are in no stored event or state."""

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s", state={"temp:at_start": 1, "a": 1})
        assert session.state == {"a": 1}
        event = with_delta({"temp:k": "v", "b": 2})
        await service.append_event(session, event)
        assert session.state == {"a": 1, "temp:k": "v", "b": 2}
        assert event.actions.state_delta == {"b": 2}
        await service.append_event(session, said("next"))
        assert session.state["temp:k"] == "v"
        loaded = await load(service, "s")
        assert loaded.state == {"a": 1, "b": 2}
        assert loaded.events[0].actions.state_delta == {"b": 2}

    play(scenario)


@pytest.mark.parametrize("prefix", ["", "app:", "user:"])
def test_a_delta_replaces_values_and_null_is_a_value(play, prefix: str) -> None:
    """In each scope an object in a delta replaces the old one instead of merging, null is stored, and other keys keep their types."""

    async def scenario(service: PerdureSessionService) -> None:
        start = {f"{prefix}cfg": {"name": "ada", "role": "admin"}, f"{prefix}flag": False, f"{prefix}gone": 1, f"{prefix}x": 0.1}
        session = await service.create_session(**WHO, session_id="s", state=start)
        await service.append_event(session, with_delta({f"{prefix}cfg": {"name": "bob"}, f"{prefix}gone": None}))
        wanted = {f"{prefix}cfg": {"name": "bob"}, f"{prefix}flag": False, f"{prefix}gone": None, f"{prefix}x": 0.1}
        loaded = await load(service, "s")
        assert loaded.state == wanted == session.state
        assert loaded.state[f"{prefix}flag"] is False

    play(scenario)


def test_bytes_in_an_event_survive(play) -> None:
    """An image in a part and an SDK's blob in the metadata come back as the same bytes."""

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s")
        content = types.Content(role="user", parts=[types.Part.from_bytes(data=bytes(range(256)), mime_type="image/png")])
        grounding = types.GroundingMetadata(search_entry_point=types.SearchEntryPoint(sdk_blob=b"\x00\xff"))
        await service.append_event(session, Event(invocation_id="i", author="user", content=content, grounding_metadata=grounding))
        (event,) = (await load(service, "s")).events
        assert (event.content, event.grounding_metadata) == (content, grounding)

    play(scenario)


def test_every_field_of_an_event_survives(play) -> None:
    """A session with an event that uses all it can is loaded as it is in memory."""

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s")
        event = Event(
            invocation_id="i",
            author="planner",
            branch="root.planner",
            content=types.Content(role="model", parts=[types.Part(text="Hi", thought_signature=b"\x01")]),
            turn_complete=True,
            partial=False,
            actions=EventActions(
                artifact_delta={"file": 0},
                transfer_to_agent="booker",
                escalate=True,
                state_delta={"k": [1, None, {"deep": 0.1}]},
                requested_tool_confirmations={"call": ToolConfirmation(hint="sure?", confirmed=False, payload={"id": "a"})},
            ),
            long_running_tool_ids={"t1", "t2"},
            error_code="E",
            error_message="m" * 2000,
            interrupted=True,
            grounding_metadata=types.GroundingMetadata(web_search_queries=["q"]),
            usage_metadata=types.GenerateContentResponseUsageMetadata(prompt_token_count=1, total_token_count=2),
            citation_metadata=types.CitationMetadata(),
            custom_metadata={"custom": {"key": "ö"}},
            timestamp=1700000000.123,
            input_transcription=types.Transcription(text="in", finished=True),
            output_transcription=types.Transcription(text="out", finished=True),
        )
        await service.append_event(session, event)
        assert await load(service, "s") == session

    play(scenario)


def test_the_last_update_is_the_last_events_time(play) -> None:
    """`last_update_time` is the timestamp of the last event, in memory and when loaded, with or without events."""

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s")
        wanted = session.last_update_time + 10
        await service.append_event(session, Event(author="user", timestamp=wanted))
        assert session.last_update_time == wanted
        assert (await load(service, "s")).last_update_time == wanted
        assert (await load(service, "s", num_recent_events=0)).last_update_time == wanted

    play(scenario)


def test_what_json_cannot_say_becomes_text_with_a_warning(play, caplog: pytest.LogCaptureFixture) -> None:
    """A value that ADK's serialiser refuses does not destroy the event: it is replaced by text, ADK logs it, the rest is stored."""

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s", state={"made": len})
        await service.append_event(session, said("", callback=len, ok=2))
        loaded = await load(service, "s")
        assert loaded.state["ok"] == 2
        assert isinstance(loaded.state["callback"], str)
        assert isinstance(loaded.state["made"], str)
        assert "not JSON-serializable" in caplog.text

    play(scenario)


def test_the_events_of_a_session_can_be_limited(play) -> None:
    """`num_recent_events` gives the newest, `after_timestamp` those from that time on, both together both, in the order of appending."""

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s")
        for number in range(1, 6):
            await service.append_event(session, Event(author="user", timestamp=number))

        async def times(**config: object) -> list[float]:
            return [event.timestamp for event in (await load(service, "s", **config)).events]

        assert await times() == [1, 2, 3, 4, 5]
        assert await times(num_recent_events=0) == []
        assert await times(num_recent_events=3) == [3, 4, 5]
        assert await times(num_recent_events=9) == [1, 2, 3, 4, 5]
        assert await times(after_timestamp=4.0) == [4, 5]
        assert await times(after_timestamp=0.0) == [1, 2, 3, 4, 5]
        assert await times(after_timestamp=50.0) == []
        assert await times(after_timestamp=4.0, num_recent_events=3) == [4, 5]
        assert await times(after_timestamp=2.0, num_recent_events=3) == [3, 4, 5]

    play(scenario)


def test_events_of_one_timestamp_keep_their_order(play) -> None:
    """Events that name the same time, or an earlier one, come back in the order in which they were appended."""

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s")
        for number in range(20):
            await service.append_event(session, Event(invocation_id=str(number), author="user", timestamp=7.0 - number % 2))
        assert [event.invocation_id for event in (await load(service, "s")).events] == [str(number) for number in range(20)]
        recent = await load(service, "s", num_recent_events=3)
        assert [event.invocation_id for event in recent.events] == ["17", "18", "19"]

    play(scenario)


def test_partial_events_are_not_stored(play) -> None:
    """A streamed fragment is handed back and is neither in the session object nor in the store."""

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s")
        fragment = Event(author="user", partial=True, actions=EventActions(state_delta={"k": 1}))
        assert await service.append_event(session, fragment) is fragment
        assert session.events == []
        assert await load(service, "s") == session

    play(scenario)


def test_a_stale_session_is_refused(play) -> None:
    """Who loaded a session before somebody else appended to it gets `StaleSessionError`, and nothing of his is stored."""

    async def scenario(service: PerdureSessionService) -> None:
        mine = await service.create_session(**WHO, session_id="s")
        await service.append_event(mine, said("one", a=1))
        theirs = await load(service, "s")
        await service.append_event(theirs, said("two", b=2))
        for late in (said("three", c=3), said("three")):
            with pytest.raises(StaleSessionError, match="modified in storage"):
                await service.append_event(mine, late)
        assert len(mine.events) == 1
        final = await load(service, "s")
        assert ([event.content.parts[0].text for event in final.events], final.state) == (["one", "two"], {"a": 1, "b": 2})

    play(scenario)


def test_a_clock_decides_nothing(play) -> None:
    """A current session whose times have drifted, or that carries no version but ends with the newest event, is accepted."""

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s")
        bare = Session(id="s", app_name="shop", user_id="ann")
        await service.append_event(bare, said("one"))
        session = await load(service, "s")
        session.last_update_time -= 100
        await service.append_event(session, said("two"))
        session._storage_update_marker = None
        await service.append_event(session, said("three"))
        assert len((await load(service, "s")).events) == 3
        with pytest.raises(StaleSessionError, match="carries no version"):
            await service.append_event(Session(id="s", app_name="shop", user_id="ann"), said("four"))

    play(scenario)


def test_user_state_can_be_read_without_a_session(play) -> None:
    """`get_user_state` gives the newest `user:` values without the prefix, of that user in that app alone; else an empty dict."""

    async def scenario(service: PerdureSessionService) -> None:
        assert await service.get_user_state(**WHO) == {}
        session = await service.create_session(**WHO)
        await service.append_event(session, with_delta({"user:profile": {"name": "Ann"}, "own": 1, "user:n": 1}))
        await service.append_event(session, with_delta({"user:n": 2}))
        await service.delete_session(**WHO, session_id=session.id)
        assert await service.get_user_state(**WHO) == {"profile": {"name": "Ann"}, "n": 2}
        assert await service.get_user_state(app_name="shop", user_id="bob") == {}
        assert await service.get_user_state(app_name="bank", user_id="ann") == {}

    play(scenario)


def test_what_is_loaded_is_the_callers_own(play) -> None:
    """Changing a loaded session changes neither the store nor what another caller loads."""

    async def scenario(service: PerdureSessionService) -> None:
        await service.create_session(**WHO, session_id="s", state={"list": [1], "user:list": [1]})
        for _ in range(3):
            loaded = await load(service, "s")
            assert loaded.state == {"list": [1], "user:list": [1]}
            loaded.state["list"].append(2)
            loaded.state["user:list"].append(2)
            loaded.state["more"] = 1

    play(scenario)


def test_flush_has_nothing_to_do(play) -> None:
    """An appended event is stored when `append_event` returns; `flush` may be called at any time."""

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s")
        await service.append_event(session, said("hello"))
        before = await load(service, "s")
        await service.flush()
        assert await load(service, "s") == before

    play(scenario)
