"""Conversations that expire, keep their newest items, and are held by one worker at a time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, Model, ModelResponse, Runner, Usage
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

import perdure
from perdure.adapters.openai_agents import PerdureSession, RunLease
from tests.support.adapters.run_leases import free, kill, worker_in_its_run
from tests.support.ops.scenarios import DAY, swept
from tests.support.ops.simulated_clock import SimulatedClock

NAME = "openai/trip-42"


class Counting(Model):
    """A model that is paid by the call. `during` runs in each call."""

    def __init__(self, during: Callable[[], Any] = lambda: None) -> None:
        self.inputs: list[Any] = []
        self._during = during

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        self.inputs.append(input)
        waited = self._during()
        if waited is not None:
            await waited
        content = [ResponseOutputText(type="output_text", text=f"answer {len(input)}", annotations=[])]
        message = ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=content)
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


async def ask(model: Model, session: PerdureSession, text: str = "hello") -> str:
    return str((await Runner.run(Agent(name="clerk", model=model), text, session=session)).final_output)


async def test_a_conversation_begins_with_the_policy_and_expires() -> None:
    """It is in the first append; what expired is empty, and begins again; what was deleted by hand stays deleted."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        session = PerdureSession("trip-42", store, expire_after=DAY)
        model = Counting()
        await ask(model, session)
        assert [commit.kind.name async for commit in store.history(NAME, limit=2)] == ["configure", "data"]
        assert await swept(store) == [(NAME, "looked")]
        clock.advance(days=1, minutes=1)
        assert await swept(store) == [(NAME, "expired")]
        fresh = PerdureSession("trip-42", store, expire_after=DAY)
        for each in (session, fresh):
            assert await each.get_items() == [] and await each.get_items(3) == [] and await each.pop_item() is None
        assert await ask(model, session) == "answer 1"
        assert len(await session.get_items()) == len(await fresh.get_items()) == len(await fresh.get_items(5)) == 2
        assert (await store.policy(NAME)).expire_after == DAY
        await store.configure(NAME, expire_after=2 * DAY)
        assert await ask(model, session) == "answer 3"
        assert (await store.policy(NAME)).expire_after == 2 * DAY
        await store.delete(NAME)
        for call in (session.get_items(), fresh.get_items(3), session.add_items([{"role": "user", "content": "x"}])):
            with pytest.raises(perdure.Deleted):
                await call
        await store.verify(NAME)


async def test_the_newest_items_are_kept() -> None:
    """With `keep` and `drop` the conversation begins with the oldest item that is left, for every object, and goes on."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        session = PerdureSession("trip-42", store, keep=6, drop=True)
        for number in range(20):
            await session.add_items([{"role": "user", "content": f"{number}"}])
        assert await swept(store) == [(NAME, "trimmed")]
        fresh = PerdureSession("trip-42", store)
        left = [item["content"] for item in await fresh.get_items()]  # type: ignore[typeddict-item]
        assert left == [f"{number}" for number in range(14, 20)]
        assert len(await fresh.get_items(100)) == 6 and len(await PerdureSession("trip-42", store).get_items(100)) == 6
        popped = await fresh.pop_item()
        assert popped is not None and popped["content"] == "19"  # type: ignore[typeddict-item]
        assert await ask(Counting(), fresh) == "answer 6"
        assert await PerdureSession("trip-42", store).get_items() == await fresh.get_items()


async def test_a_lease_between_items_loses_none() -> None:
    """The commits of leases are left out of histories: an object that reads on over them has all items."""
    async with perdure.open("memory:") as store:
        session = PerdureSession("trip-42", store)
        for number in range(3):
            await session.add_items([{"role": "user", "content": f"{number}"}])
            assert len(await session.get_items()) == number + 1
            async with store.lease(NAME, owner="other"):
                pass
        assert len(await session.get_items()) == 3


async def test_a_second_worker_is_refused_before_its_model_is_called(tmp_path: Path) -> None:
    """With wait=0 it is `Held`; one without a lease is `Fenced`; after the release both go on."""
    url = f"sqlite:///{tmp_path}/agents.db"
    async with perdure.open(url) as one, perdure.open(url) as two:
        second = Counting()

        async def meanwhile() -> None:
            for lease in (RunLease(owner="two", wait=0), RunLease(owner="two", wait=0, exclusive=False)):
                with pytest.raises(perdure.Held) as refused:
                    await ask(second, PerdureSession("trip-42", two, lease=lease))
                assert refused.value.owner == "one"
            with pytest.raises(perdure.Fenced):
                await ask(Counting(), PerdureSession("trip-42", two))

        first = Counting(meanwhile)
        async with PerdureSession("trip-42", one, lease=RunLease(owner="one")) as session:
            assert await ask(first, session, "from one") == "answer 1"
        assert (len(first.inputs), second.inputs) == (1, [])
        async with PerdureSession("trip-42", two, lease=RunLease(wait=0)) as session:
            assert await ask(second, session) == "answer 3"
        await one.verify(NAME)


async def test_a_second_worker_waits_and_sees_the_first_ones_turn(tmp_path: Path) -> None:
    """Two workers with `lease=True` at once: one after the other, and the later one's model is shown the earlier one's turn."""
    url = f"sqlite:///{tmp_path}/agents.db"
    async with perdure.open(url) as one, perdure.open(url) as two:

        async def work(store: perdure.Store) -> str:
            async with PerdureSession("trip-42", store, lease=True) as session:
                return await ask(Counting(lambda: asyncio.sleep(0)), session)

        answers = await asyncio.gather(work(one), work(two), work(one), work(two))
        assert sorted(answers) == ["answer 1", "answer 3", "answer 5", "answer 7"]


@pytest.mark.parametrize("end", ["task", "close", "awaited close", "forgotten", "release", "cancelled"])
async def test_the_lease_ends_with_the_run(end: str) -> None:
    """It is released with the task that took it, by close and release, and with the object; then nobody has to wait for its ttl."""
    async with perdure.open("memory:") as store:
        session: PerdureSession | None = PerdureSession("trip-42", store, lease=True)
        assert session is not None
        if end == "task":
            await asyncio.create_task(ask(Counting(), session))
        elif end == "cancelled":
            running = asyncio.Event()

            async def stuck() -> None:
                running.set()
                await asyncio.Event().wait()

            task = asyncio.create_task(ask(Counting(stuck), session))
            await running.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            await ask(Counting(), session)
            assert [info.session async for info in store.leases()] == [NAME]
        if end == "close":
            session.close()
        elif end == "awaited close":
            await session.close()
        elif end == "release":
            await session.release()
        session = session if end in ("task", "cancelled", "release") else None
        gc.collect()
        await free(store)
        if session is not None:
            await ask(Counting(), session)
            await session.release()
        async with PerdureSession("trip-42", store, lease=RunLease(wait=0)) as other:
            await ask(Counting(), other)


async def test_a_worker_that_lost_its_lease_stores_nothing() -> None:
    """The lease is broken while the model works: the run ends with `Fenced`, and the conversation is as the other worker left it."""
    async with perdure.open("memory:") as store:

        async def meanwhile() -> None:
            await store.break_lease(NAME)
            async with PerdureSession("trip-42", store, lease=True) as other:
                await ask(Counting(), other, "from two")

        async with PerdureSession("trip-42", store, lease=True) as session:
            with pytest.raises(perdure.Fenced):
                await ask(Counting(meanwhile), session, "from one")
            with pytest.raises(perdure.Fenced):
                await session.add_items([{"role": "user", "content": "late"}])
        contents = [item.get("content") for item in await PerdureSession("trip-42", store).get_items()]
        assert contents[-2] == "from two" and "late" not in contents


DYING = """
import asyncio, sys
import perdure
from perdure.adapters.openai_agents import PerdureSession, RunLease
from tests.adapters.openai_agents.test_lifecycle import Counting, ask
from tests.support.adapters.run_leases import hang

async def main(url):
    async with perdure.open(url) as store:
        session = PerdureSession("trip-42", store, lease=RunLease(owner="dead", ttl=3))
        await ask(Counting(hang), session, "from the dead")

asyncio.run(main(sys.argv[1]))
"""


async def test_a_worker_that_was_killed_is_followed(tmp_path: Path) -> None:
    """Killed with its lease: the next worker waits for its ttl, takes over, and answers with all that was stored."""
    url = f"sqlite:///{tmp_path}/agents.db"
    async with perdure.open(url) as store:
        with worker_in_its_run(DYING, url) as process:
            with pytest.raises(perdure.Held) as refused:
                await ask(Counting(), PerdureSession("trip-42", store, lease=RunLease(wait=0)))
            assert refused.value.owner == "dead"
            kill(process)
        model = Counting()
        async with PerdureSession("trip-42", store, lease=RunLease(ttl=3, wait=120)) as session:
            await ask(model, session)
        assert len(model.inputs) == 1 and model.inputs[0][0]["content"] == "from the dead"
        await store.verify(NAME)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lease": "yes"}, "RunLease"),
        ({"lease": RunLease(ttl=0.1)}, "ttl"),
        ({"lease": RunLease(wait=-1)}, "wait"),
        ({"expire_after": timedelta(0)}, "expire_after"),
        ({"keep": -1, "drop": True}, "keep"),
    ],
)
async def test_values_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    """They are `Invalid` when the object is made."""
    async with perdure.open("memory:") as store:
        with pytest.raises(perdure.Invalid, match=words):
            PerdureSession("trip-42", store, **options)
