"""Sessions that expire, keep their newest events, and are held by one worker at a time: by `hold`, and by the plugin."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from google.adk.agents import Agent
from google.adk.apps import App
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.models import BaseLlm, LlmRequest, LlmResponse
from google.adk.runners import Runner
from google.genai import types

import perdure
from perdure.adapters.google_adk import PerdureLeasePlugin, PerdureMemoryService, PerdureSessionService, RunLease
from tests.support.adapters.adk_sessions import SESSION, WHO, load, said, texts
from tests.support.adapters.run_leases import free, kill, worker_in_its_run
from tests.support.ops.scenarios import DAY, swept
from tests.support.ops.simulated_clock import SimulatedClock

HERE = {**WHO, "session_id": "s"}


class Counting(BaseLlm):
    """A model that is paid by the call, and says how many contents it was shown. `during` runs in each call."""

    calls: int = 0
    during: Any = None

    async def generate_content_async(self, llm_request: LlmRequest, stream: bool = False) -> AsyncGenerator[LlmResponse, None]:
        self.calls += 1
        waited = self.during() if self.during else None
        if waited is not None:
            await waited
        yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text=f"saw {len(llm_request.contents)}")]))


def counting(during: Callable[[], Any] | None = None) -> Counting:
    return Counting(model="counting", during=during)


def runner(service: PerdureSessionService, model: BaseLlm, lease: RunLease | None = None) -> Runner:
    plugins = [] if lease is None else [PerdureLeasePlugin(lease)]
    return Runner(app=App(name="shop", root_agent=Agent(name="clerk", model=model), plugins=plugins), session_service=service)


async def ask(running: Runner, text: str = "hello") -> str:
    message = types.Content(role="user", parts=[types.Part(text=text)])
    events = [event async for event in running.run_async(user_id="ann", session_id="s", new_message=message)]
    return str(events[-1].content.parts[0].text)  # type: ignore[union-attr,index]


async def refused(call: Awaitable[Any], error: type[perdure.Error]) -> perdure.Error:
    """The error of a run; what a plugin raises is the cause of ADK's own error."""
    with pytest.raises((RuntimeError, perdure.Error)) as raised:
        await call
    found: BaseException | None = raised.value
    while found is not None and not isinstance(found, error):
        found = found.__cause__
    assert isinstance(found, error), raised.value
    return found


async def test_a_session_begins_with_the_policy_and_expires() -> None:
    """It is in the first append, and what is set by hand stays. An expired session is not there, and may be created again."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        service = PerdureSessionService(store, expire_after=DAY)
        session = await service.create_session(**HERE, state={"app:n": 1})
        await service.append_event(session, said("hello"))
        assert [commit.kind.name async for commit in store.history(SESSION, limit=2)] == ["configure", "data"]
        assert await swept(store) == [(SESSION, "looked")]
        clock.advance(days=1, minutes=1)
        assert await swept(store) == [(SESSION, "expired")]
        assert await service.get_session(**HERE) is None
        assert (await service.list_sessions(app_name="shop")).sessions == []
        with pytest.raises(SessionNotFoundError):
            await service.append_event(session, said("late"))
        with pytest.raises(SessionNotFoundError):
            await ask(runner(service, counting()))
        again = await service.create_session(**HERE)
        assert again.events == [] and again.state == {"app:n": 1}
        await service.append_event(again, said("back"))
        assert texts(await load(service)) == ["back"]
        assert (await store.policy(SESSION)).expire_after == DAY
        await store.configure(SESSION, expire_after=2 * DAY)
        await service.append_event(again, said("more"))
        assert (await store.policy(SESSION)).expire_after == 2 * DAY
        await store.verify(SESSION)


@pytest.mark.parametrize("keep", [6, timedelta(days=30)], ids=["commits", "age"])
async def test_older_events_go_and_state_stays(keep: int | timedelta) -> None:
    """With `drop` a session has the events that are left, though it be none, and its whole state; runs go on."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        service = PerdureSessionService(store, keep=keep, drop=True)
        session = await service.create_session(**HERE)
        for number in range(12):
            await service.append_event(session, said(f"{number}", **{f"k{number}": number}))
        clock.advance(days=40)
        assert await swept(store) == [(SESSION, "trimmed")]
        found = await load(service)
        assert texts(found) == ([f"{number}" for number in range(6, 12)] if keep == 6 else [])
        assert len(found.state) == 12
        assert len(texts(await load(service, num_recent_events=3))) == min(3, len(found.events))
        assert [listed.id for listed in (await service.list_sessions(app_name="shop")).sessions] == ["s"]
        await service.append_event(session, said("by the old object"))
        await service.append_event(await load(service), said("by a new one"))
        assert await ask(runner(service, counting())) == f"saw {len(found.events) + 3}"
        await store.verify(SESSION)


async def test_a_users_memory_expires_as_a_whole() -> None:
    """The memory service takes the policy too; an expired memory is empty, and begins again."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        service = PerdureSessionService(store)
        memory = PerdureMemoryService(store, expire_after=DAY)
        session = await service.create_session(**HERE)
        await service.append_event(session, said("a blue door"))
        for _ in range(2):
            await memory.add_session_to_memory(session)
            assert len((await memory.search_memory(**WHO, query="door")).memories) == 1
            await swept(store)
            clock.advance(days=2)
            assert [action for _, action in await swept(store)] == ["expired"]
            assert (await memory.search_memory(**WHO, query="door")).memories == []


@pytest.mark.parametrize("way", ["hold", "plugin"])
async def test_a_second_worker_is_refused_before_its_model_is_called(file_url: str, way: str) -> None:
    """With wait=0 it is `Held`, and nothing of it is stored; one without a lease is `Fenced`; after the release both go on."""
    async with perdure.open(file_url) as first, perdure.open(file_url) as second:
        one, two = PerdureSessionService(first), PerdureSessionService(second)
        await one.create_session(**HERE)
        model, paid = counting(), counting()

        async def meanwhile() -> None:
            before = texts(await load(two))
            held = await refused(ask(runner(two, paid, RunLease(owner="two", wait=0))), perdure.Held)
            assert held.owner == "one"
            with pytest.raises(perdure.Held):
                async with two.hold(**HERE, owner="two", wait=0):
                    raise AssertionError("not reached")
            await refused(ask(runner(two, paid)), perdure.Fenced)
            assert texts(await load(two)) == before

        model.during = meanwhile
        if way == "hold":
            async with one.hold(**HERE, owner="one"):
                assert await ask(runner(one, model)) == "saw 1"
        else:
            assert await ask(runner(one, model, RunLease(owner="one"))) == "saw 1"
        assert (model.calls, paid.calls) == (1, 0)
        assert await ask(runner(two, paid, RunLease(wait=0))) == "saw 3"
        assert await ask(runner(one, counting())) == "saw 5"
        await first.verify(SESSION)


@pytest.mark.parametrize("way", ["hold", "plugin"])
async def test_a_second_worker_waits_and_goes_on_with_the_newest_session(file_url: str, way: str) -> None:
    """Four runs at once of two processes: one after the other, none is stale, and each model is shown all turns before."""
    async with perdure.open(file_url) as first, perdure.open(file_url) as second:
        services = [PerdureSessionService(first), PerdureSessionService(second)] * 2
        await services[0].create_session(**HERE)

        async def work(number: int, service: PerdureSessionService) -> str:
            if way == "plugin":
                return await ask(runner(service, counting(), RunLease(ttl=3)))
            async with service.hold(**HERE, owner=f"{number}", ttl=3):
                return await ask(runner(service, counting()))

        answers = await asyncio.gather(*(work(number, service) for number, service in enumerate(services)))
        assert sorted(answers) == ["saw 1", "saw 3", "saw 5", "saw 7"]
        assert len((await load(services[0])).events) == 8
        await free(first)


@pytest.mark.parametrize("end", ["error", "closed early", "cancelled", "abandoned"])
async def test_the_plugin_releases_however_a_run_ends(end: str) -> None:
    """After an error, a generator that was closed or left alone, and a cancelled task, nobody waits for the ttl."""
    async with perdure.open("memory:") as store:
        service = PerdureSessionService(store)
        await service.create_session(**HERE)
        running = asyncio.Event()

        async def during() -> None:
            running.set()
            if end == "error":
                raise ValueError("the model failed")
            if end == "cancelled":
                await asyncio.Event().wait()

        failing = runner(service, counting(during), RunLease(ttl=60))
        message = types.Content(role="user", parts=[types.Part(text="hello")])
        if end == "error":
            with pytest.raises(ValueError, match="the model failed"):
                await ask(failing)
        elif end == "cancelled":
            task = asyncio.create_task(ask(failing))
            await running.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:

            async def part() -> None:
                events = failing.run_async(user_id="ann", session_id="s", new_message=message)
                await anext(events)
                if end == "closed early":
                    await events.aclose()

            await asyncio.create_task(part())
            gc.collect()
        await free(store)
        async with service.hold(**HERE, owner="next", wait=0):
            assert (await ask(runner(service, counting()))).startswith("saw")


async def test_a_worker_that_lost_its_session_stores_nothing() -> None:
    """The lease is broken while the model works: the run ends with `Fenced`, and the session is as the other worker left it."""
    async with perdure.open("memory:") as store:
        service = PerdureSessionService(store)
        await service.create_session(**HERE)
        left: list[list[str]] = []

        async def meanwhile() -> None:
            await store.break_lease(SESSION)
            await ask(runner(service, counting(), RunLease()), "from two")
            left.append(texts(await load(service)))

        await refused(ask(runner(service, counting(meanwhile), RunLease()), "from one"), perdure.Fenced)
        assert [texts(await load(service))] == left
        assert left[0][-2:] == ["from two", "saw 2"]


async def test_what_cannot_be_held() -> None:
    """No session, bad options, twice in one context, another service: each says what to do."""
    async with perdure.open("memory:") as store:
        service = PerdureSessionService(store)
        with pytest.raises(SessionNotFoundError, match="create it"):
            async with service.hold(**HERE, owner="one"):
                raise AssertionError("not reached")
        with pytest.raises(perdure.Invalid, match="ttl"):
            service.hold(**HERE, owner="one", ttl=0)
        await service.create_session(**HERE)
        async with service.hold(**HERE, owner="one"):
            with pytest.raises(perdure.Invalid, match="held here already"):
                async with service.hold(**HERE, owner="two"):
                    raise AssertionError("not reached")
            assert await ask(runner(service, counting(), RunLease())) == "saw 1"
            assert [info.owner async for info in store.leases()] == ["one"]
        with pytest.raises(perdure.Invalid, match="leave the plugin out"):
            PerdureLeasePlugin(False)
        for options in ({"expire_after": 0}, {"keep": 0, "drop": True}):
            with pytest.raises(perdure.Invalid):
                PerdureSessionService(store, **options)  # type: ignore[arg-type]
            with pytest.raises(perdure.Invalid):
                PerdureMemoryService(store, **options)  # type: ignore[arg-type]


DYING = """
import asyncio, sys
import perdure
from perdure.adapters.google_adk import PerdureSessionService, RunLease
from tests.adapters.google_adk.test_lifecycle import ask, counting, runner
from tests.support.adapters.run_leases import hang

async def main(url):
    async with perdure.open(url) as store:
        await ask(runner(PerdureSessionService(store), counting(hang), RunLease(owner="dead", ttl=3)), "from the dead")

asyncio.run(main(sys.argv[1]))
"""


async def test_a_worker_that_was_killed_is_followed(file_url: str) -> None:
    """Killed in its run: the next worker waits for its ttl, takes over, and sees what was stored."""
    async with perdure.open(file_url) as store:
        service = PerdureSessionService(store)
        await service.create_session(**HERE)
        with worker_in_its_run(DYING, file_url) as process:
            assert (await refused(ask(runner(service, counting(), RunLease(wait=0))), perdure.Held)).owner == "dead"
            kill(process)
        model = counting()
        assert await ask(runner(service, model, RunLease(ttl=3, wait=120))) == "saw 2"
        assert model.calls == 1
        await store.verify(SESSION)
