"""Sessions that expire, keep their newest messages, and are held by one run at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from typing import Any

import pytest
from strands import Agent
from strands.models import Model
from strands.multiagent import GraphBuilder
from strands.session.repository_session_manager import RepositorySessionManager
from strands.types.exceptions import EventLoopException, SessionException
from strands.types.session import Session, SessionAgent, SessionMessage, SessionType

import perdure
from perdure.adapters.strands import PerdureSessionManager, PerdureSessionRepository, PerdureStorage, RunLease
from tests.support.adapters.run_leases import free, kill, worker_in_its_run
from tests.support.ops.scenarios import DAY, swept
from tests.support.ops.simulated_clock import SimulatedClock

NAME = "strands/sessions/s"


class Counting(Model):
    """A model that is paid by the call, and says how many messages it was shown. `during` runs in each call."""

    def __init__(self, during: Callable[[], Any] = lambda: None) -> None:
        self.calls = 0
        self._during = during

    def update_config(self, **model_config: Any) -> None: ...

    def get_config(self) -> Any:
        return {}

    def structured_output(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def stream(self, messages: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        self.calls += 1
        waited = self._during()
        if waited is not None:
            await waited
        yield {"messageStart": {"role": "assistant"}}
        yield {"contentBlockStart": {"start": {}}}
        yield {"contentBlockDelta": {"delta": {"text": f"saw {len(messages)}"}}}
        yield {"contentBlockStop": {}}
        yield {"messageStop": {"stopReason": "end_turn"}}


def clerk(manager: Any, model: Model | None = None) -> Agent:
    return Agent(model=model or Counting(), agent_id="clerk", session_manager=manager, callback_handler=None)


async def ask(agent: Agent, text: str = "hello") -> str:
    return str(await agent.invoke_async(text)).strip()


def stored(store: perdure.Store) -> list[str]:
    repository = PerdureSessionRepository(store)
    return [message.to_message()["content"][0]["text"] for message in repository.list_messages("s", "clerk")]


async def test_a_session_begins_with_the_policy_and_expires() -> None:
    """It is in the first append, and what is set by hand stays; an expired session is not there, and a new manager begins it again."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        agent = clerk(PerdureSessionManager("s", store, expire_after=DAY))
        assert await ask(agent) == "saw 1"
        assert [commit.kind.name async for commit in store.history(NAME, limit=2)] == ["configure", "data"]
        assert await swept(store) == [(NAME, "looked")]
        clock.advance(days=1, minutes=1)
        assert await swept(store) == [(NAME, "expired")]
        assert PerdureSessionRepository(store).read_session("s") is None
        with pytest.raises(SessionException, match="does not exist"):
            await ask(agent)
        again = clerk(PerdureSessionManager("s", store, expire_after=DAY))
        assert again.messages == [] and await ask(again) == "saw 1"
        assert (await store.policy(NAME)).expire_after == DAY
        await store.configure(NAME, expire_after=2 * DAY)
        assert await ask(again) == "saw 3"
        assert (await store.policy(NAME)).expire_after == 2 * DAY
        await store.verify(NAME)


@pytest.mark.parametrize("keep", [4, timedelta(days=30)], ids=["commits", "age"])
async def test_older_messages_go_and_the_agent_goes_on(keep: int | timedelta) -> None:
    """With `drop` a new agent has the messages that are left, though it be none, and its state; its next messages are stored."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        agent = clerk(PerdureSessionManager("s", store, keep=keep, drop=True))
        agent.state.set("mood", "good")
        for number in range(6):
            await ask(agent, f"{number}")
        clock.advance(days=40)
        assert await swept(store) == [(NAME, "trimmed")]
        left = stored(store)
        assert len(left) < 12 and (left == [] if keep != 4 else left[-1] == "saw 11")
        other = clerk(RepositorySessionManager("s", PerdureSessionRepository(store)))
        assert len(other.messages) == len(left) and other.state.get("mood") == "good"
        assert await ask(other, "back") == f"saw {len(left) + 1}"
        assert await ask(other, "more") == f"saw {len(left) + 3}"
        assert len(stored(store)) == len(left) + 4
        with pytest.raises(SessionException, match="another writer"):
            await ask(agent, "an old agent, whose next id is taken")
        await store.verify(NAME)


async def test_a_second_writer_after_everything_was_dropped_is_refused() -> None:
    """Two agents that both found no message left: the first one's message gets the next id, the second one's is refused."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        repository = PerdureSessionRepository(store, keep=timedelta(days=1), drop=True)
        repository.create_session(Session(session_id="s", session_type=SessionType.AGENT))
        repository.create_agent("s", SessionAgent(agent_id="clerk", state={}, conversation_manager_state={}))
        for number in range(9):
            repository.create_message("s", "clerk", SessionMessage.from_message({"role": "user", "content": [{"text": "x"}]}, number))
        clock.advance(days=3)
        assert await swept(store) == [(NAME, "trimmed")]
        first, second = (SessionMessage.from_message({"role": "user", "content": [{"text": text}]}, 0) for text in ("one", "two"))
        repository.create_message("s", "clerk", first)
        assert first.message_id == 9
        with pytest.raises(SessionException, match="another writer"):
            repository.create_message("s", "clerk", second)
        assert stored(store) == ["one"]


async def test_a_key_of_the_storage_expires() -> None:
    """PerdureStorage takes the policy too: an expired key is `None`, and is written again."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        storage = PerdureStorage(store, expire_after=DAY, keep=9, drop=True)
        for _ in range(2):
            await storage.write("a/b", b'{"n": 1}')
            assert await storage.read("a/b") == b'{"n": 1}'
            await swept(store)
            clock.advance(days=2)
            assert [action for _, action in await swept(store)] == ["expired"]
            assert await storage.read("a/b") is None and await storage.list() == []


async def test_a_second_worker_is_refused_before_its_model_is_called(file_url: str) -> None:
    """With wait=0 it is `Held`; one without a lease is `Fenced`; after the run the other goes on, with the first one's turn."""
    async with perdure.open(file_url) as one, perdure.open(file_url) as two:
        paid = Counting()
        clerk(PerdureSessionManager("s", one))
        waiting = clerk(PerdureSessionManager("s", two, lease=RunLease(owner="two", wait=0)), paid)
        outside = clerk(PerdureSessionManager("s", two), Counting())

        async def meanwhile() -> None:
            with pytest.raises(perdure.Held) as refused:
                await ask(waiting)
            assert refused.value.owner == "one"
            with pytest.raises(perdure.Fenced):
                await ask(outside)

        model = Counting(meanwhile)
        agent = clerk(PerdureSessionManager("s", one, lease=RunLease(owner="one")), model)
        agent.state.set("mood", "good")
        assert await ask(agent) == "saw 1"
        assert (model.calls, paid.calls) == (1, 0)
        assert [info async for info in one.leases()] == []
        assert await ask(waiting) == "saw 3"
        assert waiting.state.get("mood") == "good"
        assert agent("blocking").message["content"] == [{"text": "saw 5"}]
        assert await ask(waiting) == "saw 7"
        await one.verify(NAME)


async def test_a_second_worker_waits_and_goes_on_with_the_newest_messages(file_url: str) -> None:
    """Four agents that were made before any of them ran: one after the other, and each is shown all turns before."""
    async with perdure.open(file_url) as one, perdure.open(file_url) as two:
        agents = [clerk(PerdureSessionManager("s", store, lease=RunLease(ttl=3))) for store in (one, two, one, two)]
        answers = await asyncio.gather(*(ask(agent) for agent in agents))
        assert sorted(answers) == ["saw 1", "saw 3", "saw 5", "saw 7"]
        assert len(stored(one)) == 8
        await free(one)


async def test_the_lease_ends_with_the_run() -> None:
    """After a model's error, and in a task that was cancelled, nobody has to wait for the ttl."""
    async with perdure.open("memory:") as store:
        running = asyncio.Event()

        def fail() -> None:
            raise ValueError("the model failed")

        async def hang() -> None:
            running.set()
            await asyncio.Event().wait()

        with pytest.raises(ValueError, match="the model failed"):
            await ask(clerk(PerdureSessionManager("s", store, lease=True), Counting(fail)))
        await free(store)
        task = asyncio.create_task(ask(clerk(PerdureSessionManager("s", store, lease=True), Counting(hang))))
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await free(store)
        assert (await ask(clerk(PerdureSessionManager("s", store, lease=RunLease(wait=0))))).startswith("saw")


async def test_an_agent_that_calls_another_one_keeps_the_lease() -> None:
    """Two agents of one session: the lease is held until the outer run ends."""
    async with perdure.open("memory:") as store:
        manager = PerdureSessionManager("s", store, lease=RunLease(owner="one"))
        inner = Agent(model=Counting(), agent_id="inner", session_manager=manager, callback_handler=None)
        owners: list[str] = []

        async def call_inner() -> None:
            await ask(inner)
            owners.extend([info.owner async for info in store.leases()])

        await ask(clerk(manager, Counting(call_inner)))
        assert owners == ["one"]
        assert [info async for info in store.leases()] == []


async def test_a_graph_holds_its_session() -> None:
    """A multi-agent's run takes the lease, and releases it."""
    async with perdure.open("memory:") as store:
        owners: list[str] = []

        async def look() -> None:
            owners.extend([info.owner async for info in store.leases()])

        builder = GraphBuilder()
        builder.add_node(Agent(model=Counting(look), name="one", callback_handler=None), "one")
        builder.set_max_node_executions(3)
        builder.set_session_manager(PerdureSessionManager("s", store, lease=RunLease(owner="graph")))
        await builder.build().invoke_async("hello")
        assert owners == ["graph"]
        assert [info async for info in store.leases()] == []


async def test_a_held_agent_whose_session_expired_begins_it_again() -> None:
    """With a lease the run starts the session again, with what the agent has in memory."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        agent = clerk(PerdureSessionManager("s", store, expire_after=DAY, lease=True))
        await ask(agent)
        await swept(store)
        clock.advance(days=2)
        assert await swept(store) == [(NAME, "expired")]
        assert await ask(agent) == "saw 3"
        assert stored(store) == ["hello", "saw 1", "hello", "saw 3"]
        assert (await store.policy(NAME)).expire_after == DAY


async def test_a_worker_that_lost_its_session_stores_nothing() -> None:
    """The lease is broken while the model works: the run is refused, and the session is as the other worker left it."""
    async with perdure.open("memory:") as store:
        other = clerk(PerdureSessionManager("s", store, lease=True))

        async def meanwhile() -> None:
            await store.break_lease(NAME)
            await ask(other, "from two")

        with pytest.raises((perdure.Fenced, EventLoopException), match=r"another writer|no longer holds"):
            await ask(clerk(PerdureSessionManager("s", store, lease=True), Counting(meanwhile)), "from one")
        assert stored(store) == ["from one", "from two", "saw 2"]


@pytest.mark.parametrize("options", [{"lease": 1}, {"lease": RunLease(ttl=1)}, {"expire_after": 0}, {"keep": 0, "drop": True}])
async def test_values_that_make_no_sense(options: dict[str, Any]) -> None:
    """They are `Invalid` when the manager is made, and no session is started."""
    async with perdure.open("memory:") as store:
        with pytest.raises(perdure.Invalid):
            PerdureSessionManager("s", store, **options)
        assert [info async for info in store.list()] == []
        if "lease" not in options:
            for made in (PerdureSessionRepository, PerdureStorage):
                with pytest.raises(perdure.Invalid):
                    made(store, **options)  # type: ignore[operator]


DYING = """
import asyncio, sys
import perdure
from perdure.adapters.strands import PerdureSessionManager, RunLease
from tests.adapters.strands.test_lifecycle import Counting, ask, clerk
from tests.support.adapters.run_leases import hang

async def main(url):
    async with perdure.open(url) as store:
        await ask(clerk(PerdureSessionManager("s", store, lease=RunLease(owner="dead", ttl=3)), Counting(hang)), "from the dead")

asyncio.run(main(sys.argv[1]))
"""


async def test_a_worker_that_was_killed_is_followed(file_url: str) -> None:
    """Killed in its run: the next worker waits for its ttl, takes over, and sees what was stored."""
    async with perdure.open(file_url) as store:
        with worker_in_its_run(DYING, file_url) as process:
            with pytest.raises(perdure.Held) as refused:
                await ask(clerk(PerdureSessionManager("s", store, lease=RunLease(wait=0))))
            assert refused.value.owner == "dead"
            kill(process)
        model = Counting()
        await ask(clerk(PerdureSessionManager("s", store, lease=RunLease(ttl=3, wait=120)), model))
        assert model.calls == 1
        assert stored(store)[0] == "from the dead"
        await store.verify(NAME)
