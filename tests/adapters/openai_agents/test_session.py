"""The session beyond the SDK's own tests: many writers, repetition, tails, forks, what the log says, bytes, bad input."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, ModelResponse, Runner, Usage
from agents.items import TResponseInputItem
from agents.memory import session as memory_session
from agents.testing import ScriptedModel
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

import perdure
import perdure.sync
from perdure import Event
from perdure.adapters.openai_agents import PerdureSession
from tests.support.adapters.commit_lines import lines_of

NAME = "openai/trip-42"


def say(text: str) -> TResponseInputItem:
    return {"role": "user", "content": text}


def texts(items: list[Any]) -> list[str]:
    return [item["content"] for item in items]


def run(scenario: Callable[[perdure.Store], Coroutine[Any, Any, None]], url: str = "memory:") -> None:
    async def opened() -> None:
        async with perdure.open(url) as store:
            await scenario(store)

    asyncio.run(asyncio.wait_for(opened(), 60))


def answer(text: str) -> ModelResponse:
    content = [ResponseOutputText(type="output_text", text=text, annotations=[])]
    message = ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=content)
    return ModelResponse(output=[message], usage=Usage(), response_id=None)


def test_a_run_goes_on_after_the_process_ends(tmp_path: Path) -> None:
    """The second run, of another store on the same file, is shown the first one's turns."""
    url = f"sqlite:///{tmp_path}/agents.db"
    model = ScriptedModel([[answer("Hello Ann.").output[0]], [answer("You are Ann.").output[0]]])
    agent = Agent(name="clerk", model=model)

    async def ask(store: perdure.Store, text: str) -> str:
        return str((await Runner.run(agent, text, session=PerdureSession("trip-42", store))).final_output)

    for text, expected in (("I am Ann.", "Hello Ann."), ("Who am I?", "You are Ann.")):

        async def turn(store: perdure.Store, text: str = text, expected: str = expected) -> None:
            assert await ask(store, text) == expected

        run(turn, url)

    async def look(store: perdure.Store) -> None:
        items: list[Any] = await PerdureSession("trip-42", store).get_items()
        assert [item["role"] for item in items] == ["user", "assistant", "user", "assistant"]
        versions = [commit.version async for commit in store.history(NAME)]
        assert versions == list(range(1, len(versions) + 1)) and len(versions) <= 4

    run(look, url)


def test_writers_of_one_conversation_lose_nothing(url: str) -> None:
    """Twelve sessions of two stores add at once: every item is there once, each writer's in its order, and all see the same."""

    async def scenario(store: perdure.Store) -> None:
        sessions = [PerdureSession("trip-42", store) for _ in range(12)]

        async def write(number: int) -> None:
            for turn in range(10):
                await sessions[number].add_items([say(f"{number}/{turn}/a"), say(f"{number}/{turn}/b")])

        await asyncio.gather(*map(write, range(12)))
        seen = [texts(await session.get_items()) for session in sessions]
        assert all(one == seen[0] for one in seen)
        assert len(set(seen[0])) == len(seen[0]) == 240
        for number in range(12):
            assert [text for text in seen[0] if text.startswith(f"{number}/")] == [
                f"{number}/{turn}/{half}" for turn in range(10) for half in "ab"
            ]

    run(scenario, url)


def test_an_item_is_popped_once(url: str) -> None:
    """Ten sessions pop twenty items between them: each item goes to one of them, and the rest get nothing."""

    async def scenario(store: perdure.Store) -> None:
        await PerdureSession("trip-42", store).add_items([say(str(number)) for number in range(20)])

        async def pop() -> list[Any]:
            session, found = PerdureSession("trip-42", store), []
            while (item := await session.pop_item()) is not None:
                found.append(item)
            return found

        found = await asyncio.gather(*[pop() for _ in range(10)])
        assert sorted(int(item["content"]) for one in found for item in one) == list(range(20))
        assert await PerdureSession("trip-42", store).get_items() == []

    run(scenario, url)


def test_loops_and_threads_share_a_session(tmp_path: Path) -> None:
    """One session object on a blocking store serves four threads, each with an event loop of its own."""
    with perdure.sync.open(f"sqlite:///{tmp_path}/store.db") as store:
        session = PerdureSession("trip-42", store)

        def work(number: int) -> None:
            async def turns() -> None:
                for turn in range(10):
                    await session.add_items([say(f"{number}/{turn}")])
                    await session.get_items()

            asyncio.run(turns())

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(texts(asyncio.run(session.get_items())))) == 40


COMPACTS = hasattr(memory_session, "_CompactionSnapshot")
"""Whether this version of the SDK asks a store for a snapshot to compact: from 0.24 on."""
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 3)),
        st.tuples(st.just("pop"), st.just(0)),
        st.tuples(st.just("clear"), st.just(0)),
        *([st.tuples(st.just("replace"), st.integers(0, 4))] if COMPACTS else []),
    ),
    max_size=20,
)


@given(steps=STEPS, limit=st.integers(1, 6))
def test_every_way_of_reading_agrees_with_a_list(steps: list[tuple[str, int]], limit: int) -> None:
    """After any adds, pops, clears and compactions: a fresh session, one that followed, a tail and a plain list say the same."""

    async def scenario(store: perdure.Store) -> None:
        session, model, count = PerdureSession("trip-42", store), [], 0
        for kind, number in steps:
            if kind == "add":
                new = [say(str(count + place)) for place in range(number)]
                count += number
                await session.add_items(new)
                model += new
            elif kind == "pop":
                assert await session.pop_item() == (model.pop() if model else None)
            elif kind == "clear":
                await session.clear_session()
                model.clear()
            elif snapshot := await session._get_compaction_snapshot(number + 1):
                assert snapshot.complete == (len(model) <= number + 1)
                start = max(0, len(model) - number - 1)
                assert await snapshot.replace_suffix(0, [say("summary")]) == bool(model)
                model[start:] = [say("summary")] if model else []
            assert await session.get_items() == model
        assert await PerdureSession("trip-42", store).get_items() == model
        assert await PerdureSession("trip-42", store).get_items(limit) == model[-limit:]
        assert await session.get_items(limit) == model[-limit:]

    run(scenario)


def test_a_tail_is_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest 10 items of 2,000 commits cost a fresh session one small read."""

    async def scenario(store: perdure.Store) -> None:
        for number in range(2_000):
            await store.append(NAME, Event("message", say(str(number))))
        backend, read = store._core.backend, []
        original = backend.read

        async def counted(*args: Any, **kwargs: Any) -> Any:
            records = await original(*args, **kwargs)
            read.append(len(records))
            return records

        monkeypatch.setattr(backend, "read", counted)
        assert texts(await PerdureSession("trip-42", store, session_settings={"limit": 10}).get_items()) == [
            str(number) for number in range(1_990, 2_000)
        ]
        assert sum(read) <= 16

    run(scenario)


@pytest.mark.skipif(not COMPACTS, reason="this version of the SDK does not ask for what is tested")
def test_a_compaction_that_came_too_late_changes_nothing() -> None:
    """What was added since the snapshot was taken makes the replacement fail, and stays."""

    async def scenario(store: perdure.Store) -> None:
        session = PerdureSession("trip-42", store)
        await session.add_items([say("a"), say("b")])
        snapshot = await session._get_compaction_snapshot(5)
        await PerdureSession("trip-42", store).add_items([say("c")])
        assert snapshot is not None and not await snapshot.replace_suffix(0, [say("summary")])
        assert texts(await session.get_items()) == ["a", "b", "c"]

    run(scenario)


def test_forks_time_travel_and_verify_work_on_the_same_id(url: str) -> None:
    """A fork goes on by itself from what its parent had; the chain of both is whole; what was popped is still in the history."""

    async def scenario(store: perdure.Store) -> None:
        session = PerdureSession("trip-42", store)
        await session.add_items([say("one")])
        await session.add_items([say("two")])
        await store.fork(NAME, at=2, id="openai/other")
        await session.pop_item()
        other = PerdureSession("other", store)
        await other.add_items([say("three")])
        assert texts(await session.get_items()) == ["one"]
        assert texts(await other.get_items()) == texts(await PerdureSession("other", store).get_items(9)) == ["one", "two", "three"]
        assert (await store.verify(NAME)).version == 4 and (await store.verify("openai/other")).version == 4
        said = [event.type async for commit in store.history(NAME) for event in commit.events]
        assert said == ["message", "message", "pinned", "popped"]

    run(scenario, url)


def test_the_log_reads_as_a_conversation() -> None:
    """`perdure log` shows who said what, which tool was called, and what came back."""
    items: list[Any] = [
        say("Two nights in Lisbon"),
        {"type": "function_call", "name": "search", "arguments": '{"city": "Lisbon"}', "call_id": "c1"},
        {"type": "function_call_output", "call_id": "c1", "output": "3 hotels"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Three found."}]},
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "compaction", "encrypted_content": "…"},
    ]

    async def scenario(store: perdure.Store) -> None:
        await PerdureSession("trip-42", store).add_items(items)
        (commit,) = [commit async for commit in store.history(NAME)]
        assert [event.type for event in commit.events] == ["message", "tool_call", "tool_result", "message", "reasoning", "item"]
        shown = " | ".join(lines_of(commit))
        for word in ("Two nights in Lisbon", "search", "3 hotels", "Three found."):
            assert word in shown

    run(scenario)


def test_a_turn_writes_what_is_new(tmp_path: Path) -> None:
    """A thousand turns of 800 bytes take at most twice their JSON on the disk."""

    async def scenario(store: perdure.Store) -> None:
        session = PerdureSession("trip-42", store)
        for number in range(1_000):
            await session.add_items([say(f"{number} {number * 7919} " + "x" * 380), say(f"{number} {number * 104729} " + "y" * 380)])

    run(scenario, f"sqlite:///{tmp_path}/store.db")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2 * 1_000 * 840


def test_bad_input() -> None:
    """Items that are no JSON or no dicts, ids that are no strings or too long, unknown settings, a deleted session, a closed store."""

    async def scenario(store: perdure.Store) -> None:
        session = PerdureSession("trip-42", store)
        for items in ([{"role": "user", "content": object()}], ["text"], [say("a"), {"n": float("nan")}]):
            with pytest.raises(perdure.Invalid):
                await session.add_items(items)  # type: ignore[arg-type]
        assert await session.get_items() == []
        for id in (7, "x" * 256):
            with pytest.raises(perdure.Invalid):
                PerdureSession(id, store)  # type: ignore[arg-type]
        with pytest.raises(perdure.Invalid, match=r"perdure\.open"):
            PerdureSession("s", "sqlite:///x.db")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="limitt"):
            PerdureSession("s", store, session_settings={"limitt": 1})
        for odd in ("a/b", "%2F", "ü\n", "../x"):
            await PerdureSession(odd, store).add_items([say(odd)])
            assert texts(await PerdureSession(odd, store).get_items()) == [odd]
        await session.add_items([say("a")])
        await store.delete(NAME)
        for call in (session.get_items(), session.add_items([say("b")]), PerdureSession("trip-42", store).get_items(3)):
            with pytest.raises(perdure.Deleted):
                await call
        await store.close()
        with pytest.raises(perdure.Closed):
            await session.get_items()

    run(scenario)
