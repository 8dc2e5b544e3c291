"""Histories, sessions and workflow runs that expire or keep some of their commits, and histories that one run holds at a time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from agent_framework import Agent, AgentSession, BaseChatClient, ChatResponse, Message, WorkflowCheckpoint, WorkflowCheckpointException

import perdure
from perdure.adapters.agent_framework import PerdureCheckpointStorage, PerdureHistoryProvider, RunLease
from tests.support.adapters.run_leases import free, kill, worker_in_its_run
from tests.support.ops.scenarios import DAY, swept
from tests.support.ops.simulated_clock import SimulatedClock

pytestmark = pytest.mark.filterwarnings("ignore:.SESSION_STORE.")  # the framework's word that this interface may change

SESSION = "agent-framework/history/trip"


class Counting(BaseChatClient):
    """A model that is paid by the call, and says how many messages it was given. `during` runs in each call."""

    def __init__(self, during: Callable[[], Any] = lambda: None) -> None:
        super().__init__()
        self.calls = 0
        self._during = during

    def _inner_get_response(self, *, messages: Sequence[Message], **options: Any) -> Awaitable[Any]:
        async def answer() -> ChatResponse:
            self.calls += 1
            waited = self._during()
            if waited is not None:
                await waited
            return ChatResponse(messages=[Message("assistant", [f"saw {len(messages)}"])])

        return answer()


async def ask(store: perdure.Store, client: Any = None, text: str = "hello", **options: Any) -> str:
    providers = [PerdureHistoryProvider(store, **options)]
    agent = Agent(client=client or Counting(), name="planner", context_providers=providers)
    return (await agent.run(text, session=AgentSession(session_id="trip"))).text


async def texts(store: perdure.Store) -> list[str]:
    return [message.text for message in await PerdureHistoryProvider(store).get_messages("trip")]


async def test_a_history_begins_with_the_policy_and_expires() -> None:
    """It is in the first append, and what is set by hand stays; an expired history is empty, and begins again."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        assert await ask(store, expire_after=DAY) == "saw 1"
        assert [commit.kind.name async for commit in store.history(SESSION, limit=2)] == ["configure", "data"]
        await swept(store)
        clock.advance(days=1, minutes=1)
        assert await swept(store) == [(SESSION, "expired")]
        assert await texts(store) == []
        assert await ask(store, expire_after=DAY) == "saw 1"
        assert await texts(store) == ["hello", "saw 1"]
        assert (await store.policy(SESSION)).expire_after == DAY
        await store.configure(SESSION, expire_after=2 * DAY)
        assert await ask(store, expire_after=DAY) == "saw 3"
        assert (await store.policy(SESSION)).expire_after == 2 * DAY
        await store.verify(SESSION)


async def test_the_newest_messages_are_kept() -> None:
    """With `drop` the history begins with the oldest message that is left, and a run that is stored again is there once."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        provider = PerdureHistoryProvider(store, keep=5, drop=True)
        for number in range(20):
            await provider.save_messages("trip", [Message("user", [f"{number}"])])
        assert await swept(store) == [(SESSION, "trimmed")]
        await provider.save_messages("trip", [Message("user", ["18"]), Message("user", ["19"])])
        assert await texts(store) == ["15", "16", "17", "18", "19"]


async def test_a_session_expires_and_its_snapshot_outlives_what_was_dropped() -> None:
    """The session store takes the policy; an object that is older than what was dropped is a `Conflict`."""
    from perdure.adapters.agent_framework import PerdureSessionStore

    clock = SimulatedClock()
    name = "agent-framework/sessions/trip"
    async with perdure.open("memory:", clock=clock) as store:
        sessions = PerdureSessionStore(store, expire_after=DAY, keep=3, drop=True)
        await sessions.set("trip", AgentSession(session_id="trip"))
        old = await sessions.get("trip")
        for turn in range(9):
            found = await sessions.get("trip")
            assert found is not None
            found.state["turn"] = turn
            await sessions.set("trip", found)
        assert await swept(store) == [(name, "trimmed")]
        found = await sessions.get("trip")
        assert found is not None and old is not None and found.state["turn"] == 8
        old.state["other"] = 1
        with pytest.raises(perdure.Conflict, match="get the session again"):
            await sessions.set("trip", old)
        done = []
        for _ in range(2):
            clock.advance(days=2)
            done += await swept(store)
        assert (name, "expired") in done
        assert await sessions.get("trip") is None
        await sessions.set("trip", AgentSession(session_id="trip"))
        assert (await store.policy(name)).keep == 3


def made(number: int, before: str | None, **more: Any) -> WorkflowCheckpoint:
    options: dict[str, Any] = {"checkpoint_id": f"c{number}", "previous_checkpoint_id": before}
    options |= {"timestamp": f"2026-11-29T12:00:{number:02}"}
    options |= {"workflow_name": "trips", "graph_signature_hash": "g", "state": {"n": number}}
    return WorkflowCheckpoint(**{**options, **more})


async def test_older_checkpoints_go_and_the_newest_can_be_loaded() -> None:
    """With `drop` those that are left are listed and loaded, though the newest one's commit be gone; the run goes on from it."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        storage = PerdureCheckpointStorage(store, keep=4, drop=True, expire_after=90 * DAY)
        for number in range(12):
            await storage.save(made(number, f"c{number - 1}" if number else None))
        run = "agent-framework/workflows/trips/c0"
        assert await swept(store) == [(run, "trimmed")]
        for reader in (storage, PerdureCheckpointStorage(store)):
            left = await reader.list_checkpoint_ids(workflow_name="trips")
            assert left == ["c8", "c9", "c10", "c11"]
            assert [(await reader.load(id)).state["n"] for id in left] == [int(id[1:]) for id in left]
            with pytest.raises(WorkflowCheckpointException, match="No checkpoint"):
                await reader.load("c1")
        await PerdureCheckpointStorage(store).save(made(50, "c1", workflow_name="others"))
        assert (await storage.load("c50")).state == {"n": 50}
        await store.configure(run, keep=DAY)
        clock.advance(days=3)
        assert (run, "trimmed") in await swept(store)
        fresh = PerdureCheckpointStorage(store)
        assert await fresh.list_checkpoint_ids(workflow_name="trips") == ["c11"]
        assert (await fresh.load("c11")).state == {"n": 11}
        latest = await fresh.get_latest(workflow_name="trips")
        assert latest is not None and latest.checkpoint_id == "c11"
        await fresh.save(made(12, "c11"))
        assert await fresh.list_checkpoint_ids(workflow_name="trips") == ["c12"]
        await store.verify(run)


async def test_an_expired_run_is_not_there_and_may_begin_again() -> None:
    """Its checkpoints are not listed or loaded; one that continues from them begins the run's session again, with the policy."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        storage = PerdureCheckpointStorage(store, expire_after=DAY)
        await storage.save(made(0, None))
        await swept(store)
        clock.advance(days=2)
        run = "agent-framework/workflows/trips/c0"
        assert await swept(store) == [(run, "expired")]
        for reader in (storage, PerdureCheckpointStorage(store)):
            assert await reader.list_checkpoints(workflow_name="trips") == [] and await reader.get_latest(workflow_name="trips") is None
            with pytest.raises(WorkflowCheckpointException, match="No checkpoint"):
                await reader.load("c0")
        await storage.save(made(1, "c0"))
        assert (await storage.load("c1")).state == {"n": 1}
        latest = await PerdureCheckpointStorage(store).get_latest(workflow_name="trips")
        assert latest is not None and latest.checkpoint_id == "c1"
        assert (await store.policy(run)).expire_after == DAY


async def test_a_second_worker_is_refused_before_its_model_is_called(file_url: str) -> None:
    """With wait=0 it is `Held`; the message of one without a lease is `Fenced`; after the run both go on."""
    async with perdure.open(file_url) as one, perdure.open(file_url) as two:
        paid = Counting()

        async def meanwhile() -> None:
            with pytest.raises(perdure.Held) as refused:
                await ask(two, paid, lease=RunLease(owner="two", wait=0))
            assert refused.value.owner == "one"
            with pytest.raises(perdure.Fenced):
                await ask(two)

        model = Counting(meanwhile)
        assert await ask(one, model, lease=RunLease(owner="one")) == "saw 1"
        assert (model.calls, paid.calls) == (1, 0)
        assert await ask(two, paid, lease=RunLease(wait=0)) == "saw 3"
        assert await texts(one) == ["hello", "saw 1", "hello", "saw 3"]
        await one.verify(SESSION)


async def test_a_second_worker_waits_and_sees_the_first_ones_turn(file_url: str) -> None:
    """Four runs at once of two processes: one after the other, and each model is shown all turns before."""
    async with perdure.open(file_url) as one, perdure.open(file_url) as two:
        answers = await asyncio.gather(*(ask(store, lease=RunLease(ttl=3)) for store in (one, two, one, two)))
        assert sorted(answers) == ["saw 1", "saw 3", "saw 5", "saw 7"]


async def test_the_lease_ends_with_a_run_that_fails() -> None:
    """The framework calls nothing after a model's error: the lease ends with the run's context, or with its task."""
    async with perdure.open("memory:") as store:

        def fail() -> None:
            raise ValueError("the model failed")

        for end in ("context", "task"):
            call = ask(store, Counting(fail), lease=True)
            with pytest.raises(Exception, match="the model failed"):
                await (asyncio.create_task(call) if end == "task" else call)
            gc.collect()
            await free(store)
        assert (await ask(store, lease=RunLease(wait=0))).startswith("saw")


@pytest.mark.parametrize(
    "options",
    [{"lease": "yes"}, {"lease": RunLease(ttl=0)}, {"lease": True, "load_messages": False}, {"expire_after": 0}, {"keep": 0, "drop": True}],
)
async def test_values_that_make_no_sense(options: dict[str, Any]) -> None:
    """They are `Invalid` when the object is made."""
    async with perdure.open("memory:") as store:
        with pytest.raises(perdure.Invalid):
            PerdureHistoryProvider(store, **options)
        if "lease" not in options:
            with pytest.raises(perdure.Invalid):
                PerdureCheckpointStorage(store, **options)


DYING = """
import asyncio, sys
import perdure
from perdure.adapters.agent_framework import RunLease
from tests.adapters.agent_framework.test_lifecycle import Counting, ask
from tests.support.adapters.run_leases import hang

async def main(url):
    async with perdure.open(url) as store:
        await ask(store, Counting(hang), lease=RunLease(owner="dead", ttl=3))

asyncio.run(main(sys.argv[1]))
"""


async def test_a_worker_that_was_killed_is_followed(file_url: str) -> None:
    """Killed in its run: the next worker waits for its ttl, takes over, and calls its model once."""
    async with perdure.open(file_url) as store:
        with worker_in_its_run(DYING, file_url) as process:
            with pytest.raises(perdure.Held) as refused:
                await ask(store, lease=RunLease(wait=0))
            assert refused.value.owner == "dead"
            kill(process)
        model = Counting()
        assert await ask(store, model, lease=RunLease(ttl=3, wait=120)) == "saw 1"
        assert model.calls == 1
