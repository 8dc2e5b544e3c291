"""ADK's own Runner on the services: turns, a second process, rewinding, artifacts, memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from google.adk.agents import Agent
from google.adk.models import BaseLlm, LlmRequest, LlmResponse
from google.adk.runners import Runner
from google.adk.tools import ToolContext
from google.genai import types

import perdure
from perdure.adapters.google_adk import PerdureArtifactService, PerdureMemoryService, PerdureSessionService
from tests.support.adapters.adk_sessions import SESSION, WHO, load, texts


class Echo(BaseLlm):
    """A model that calls its tool for each question, then says how many questions it has seen."""

    tool: str

    async def generate_content_async(self, llm_request: LlmRequest, stream: bool = False) -> AsyncGenerator[LlmResponse, None]:
        last = llm_request.contents[-1].parts[-1]
        if last.function_response is None:
            call = types.FunctionCall(name=self.tool, args={"text": last.text})
            yield LlmResponse(content=types.Content(role="model", parts=[types.Part(function_call=call)]))
            return
        asked = sum(1 for content in llm_request.contents for part in content.parts if content.role == "user" and part.text)
        yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text=f"{asked} questions")]))


def note(text: str, tool_context: ToolContext) -> dict[str, int]:
    """Keep a note."""
    tool_context.state["notes"] = [*tool_context.state.get("notes", []), text]
    tool_context.state["user:count"] = tool_context.state.get("user:count", 0) + 1
    return {"notes": len(tool_context.state["notes"])}


async def draw(text: str, tool_context: ToolContext) -> dict[str, object]:
    """Keep a picture of the text, and say what is remembered about it."""
    picture = types.Part.from_bytes(data=text.encode(), mime_type="image/png")
    found = await tool_context.search_memory(text)
    return {
        "version": await tool_context.save_artifact("picture.png", picture),
        "keys": await tool_context.list_artifacts(),
        "remembered": [memory.content.parts[0].text for memory in found.memories],
    }


def runner(service: PerdureSessionService, tool: Callable[..., object] = note) -> Runner:
    """A runner whose services all keep what they have in one store."""
    store = service._store
    agent = Agent(name="planner", model=Echo(model="echo", tool=tool.__name__), tools=[tool])
    artifacts, memory = PerdureArtifactService(store), PerdureMemoryService(store)
    return Runner(app_name="shop", agent=agent, session_service=service, artifact_service=artifacts, memory_service=memory)


async def ask(running: Runner, text: str) -> tuple[str, str]:
    """One turn: the invocation's id and the last text."""
    message = types.Content(role="user", parts=[types.Part(text=text)])
    events = [event async for event in running.run_async(user_id="ann", session_id="s", new_message=message)]
    return events[-1].invocation_id, events[-1].content.parts[0].text


def test_a_run_goes_on_in_another_store(file_url: str) -> None:
    """Turns run, tools change session and user state in place, and a second store on the same file, as in a new process, goes on."""

    async def turn(text: str) -> str:
        async with perdure.open(file_url) as store:
            service = PerdureSessionService(store)
            if await service.get_session(**WHO, session_id="s") is None:
                await service.create_session(**WHO, session_id="s")
            return (await ask(runner(service), text))[1]

    async def check() -> None:
        async with perdure.open(file_url) as store:
            session = await load(PerdureSessionService(store))
            assert session.state == {"notes": ["one", "two"], "user:count": 2}
            types = [commit.events[0].type async for commit in store.history(SESSION)]
            assert types == ["session_created", *["message", "tool_call", "tool_result", "message"] * 2]
            await store.verify(SESSION)

    assert asyncio.run(turn("one")) == "1 questions"
    assert asyncio.run(turn("two")) == "2 questions"
    asyncio.run(check())


def test_rewinding_takes_back_session_state_and_keeps_the_log(play) -> None:
    """`rewind_async` sets session state back to before an invocation; the events stay in the log, the model no longer sees them."""

    async def scenario(service: PerdureSessionService) -> None:
        await service.create_session(**WHO, session_id="s")
        running = runner(service)
        await ask(running, "one")
        second, _ = await ask(running, "two")
        before = len((await load(service)).events)
        await running.rewind_async(user_id="ann", session_id="s", rewind_before_invocation_id=second)
        session = await load(service)
        assert session.state == {"notes": ["one"], "user:count": 2}
        assert len(session.events) == before + 1
        assert session.events[-1].actions.rewind_before_invocation_id == second
        (last,) = [commit async for commit in service._store.history(SESSION, newest_first=True, limit=1)]
        assert last.events[0].type == "rewound"
        assert (await ask(running, "three"))[1] == "2 questions"
        assert (await load(service)).state["notes"] == ["one", "three"]

    play(scenario)


def test_tools_keep_artifacts_and_search_memory(play) -> None:
    """A tool saves, lists and searches through ADK's context; a rewind brings the artifact's earlier version back as the newest."""

    async def scenario(service: PerdureSessionService) -> None:
        await service.create_session(**WHO, session_id="s")
        running = runner(service, draw)
        artifacts, memory = running.artifact_service, running.memory_service
        await ask(running, "a red house")
        await memory.add_session_to_memory(await load(service))
        second, _ = await ask(running, "a blue house")
        told = [
            part.function_response.response
            for event in (await load(service)).events
            for part in event.content.parts
            if part.function_response
        ]
        assert told == [
            {"version": 0, "keys": ["picture.png"], "remembered": []},
            {"version": 1, "keys": ["picture.png"], "remembered": ["a red house"]},
        ]
        picture = {**WHO, "session_id": "s", "filename": "picture.png"}
        assert (await artifacts.load_artifact(**picture)).inline_data.data == b"a blue house"
        await running.rewind_async(user_id="ann", session_id="s", rewind_before_invocation_id=second)
        assert (await artifacts.load_artifact(**picture)).inline_data.data == b"a red house"
        assert await artifacts.list_versions(**picture) == [0, 1, 2]

    play(scenario)


def test_a_rewind_before_an_artifact_was_there_takes_it_away(play) -> None:
    """An artifact that the rewound invocation made loads as `None`; its versions stay."""

    async def scenario(service: PerdureSessionService) -> None:
        await service.create_session(**WHO, session_id="s")
        running = runner(service, draw)
        first, _ = await ask(running, "a red house")
        await running.rewind_async(user_id="ann", session_id="s", rewind_before_invocation_id=first)
        picture = {**WHO, "session_id": "s", "filename": "picture.png"}
        assert await running.artifact_service.load_artifact(**picture) is None
        assert (await running.artifact_service.load_artifact(**picture, version=0)).inline_data.data == b"a red house"

    play(scenario)


def test_two_runs_at_once_on_one_session(play) -> None:
    """Of two runs on one session at once, none loses an event silently: each is stored whole, or told that it is stale."""

    async def scenario(service: PerdureSessionService) -> None:
        await service.create_session(**WHO, session_id="s")
        results = await asyncio.gather(ask(runner(service), "one"), ask(runner(service), "two"), return_exceptions=True)
        failed = [result for result in results if isinstance(result, BaseException)]
        assert [type(error).__name__ for error in failed] == ["StaleSessionError"] * len(failed)
        assert len(failed) == 1
        session = await load(service)
        assert len([text for text in texts(session) if text and "questions" in text]) == 1

    play(scenario)
