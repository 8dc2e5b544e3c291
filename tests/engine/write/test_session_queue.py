"""Slots of a session in this process: what may wait for what, and that nobody waits without an end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any

import pytest

import perdure
from perdure import Event, op, sync
from perdure.engine.write.session_queue import SessionQueue
from perdure.model.ids import SessionKey
from tests.support.crash.interrupts import interrupted, leftovers_collected

__all__ = ["leftovers_collected"]
S = SessionKey("t", "s")
ONE = Event("n", None, (op.add("/n", 1),))
WAIT = 30.0
"""Seconds after which what should have gone on counts as wedged."""


def goes_on(work: Callable[[], Any]) -> Any:
    """What a call returns that must not wait for ever, from a thread of its own."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(WAIT)
    assert not thread.is_alive(), "it waits for ever"
    return results[0]


async def held(store: perdure.Store, task: asyncio.Task[Any]) -> None:
    """Until the task is inside its slot, suspended."""
    queue = store._core.committer._queue
    while not queue._lines:
        assert not task.done()
        await asyncio.sleep(0)


def test_the_blocking_api_goes_on_beside_a_suspended_task_of_its_thread(file_url: str) -> None:
    """A task with an append under way cannot go on while its thread is blocked: the blocking call does not wait for it."""

    async def scenario() -> dict[str, int]:
        async with perdure.open(file_url) as store:
            task = asyncio.create_task(store.append("s", ONE))
            await held(store, task)
            sync.Store(store).append("s", ONE)
            with sync.Store(store).edit("s") as draft:
                draft.add("/n", 1)
            await task
            state: dict[str, int] = (await store.read("s")).state
            return state

    assert goes_on(lambda: asyncio.run(scenario())) == {"n": 3}


@pytest.mark.parametrize("ending", ["idle", "closed"])
def test_a_task_on_a_loop_that_does_not_run_holds_nobody_up(file_url: str, ending: str) -> None:
    """Its slot is passed over, and those of others that wait on that loop: by the blocking API, by another loop and by other threads."""

    def work() -> int:
        store = sync.open(file_url)
        loop = asyncio.new_event_loop()
        first = loop.create_task(store.asynchronous.append("s", ONE))
        loop.run_until_complete(held(store.asynchronous, first))
        more = [loop.create_task(store.asynchronous.append("s", ONE)) for _ in range(20)]
        loop.run_until_complete(asyncio.sleep(0))
        if ending == "closed":
            loop.close()
        store.append("s", ONE)
        asyncio.run(several(store.asynchronous))
        goes_on(lambda: store.append("s", ONE))
        if ending == "idle":
            loop.run_until_complete(asyncio.gather(first, *more))
            loop.close()
        count: int = store.read("s").state["n"]
        store.close()
        return count

    async def several(store: perdure.Store) -> None:
        await asyncio.gather(*[store.append("s", ONE) for _ in range(3)])

    count = goes_on(work)
    assert count == 26 if ending == "idle" else count in (5, 6)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_policy_may_write_to_its_own_session(url: str, blocking: bool) -> None:
    """An `on_conflict` callable that appends to its session by the blocking API is inside the slot already."""

    def work() -> list[str]:
        with sync.open(url) as store:
            store.append("s", Event("n", None, (op.set("/a", 0),)))

            def policy(clash: perdure.Clash) -> list[perdure.Op]:
                store.append("s", Event("asked", None, (op.add("/asked", 1),)))
                return []

            change = Event("mine", None, (op.set("/a", 2),))
            store.append("s", Event("n", None, (op.set("/a", 1),)))
            if blocking:
                store.append("s", change, expect=1, on_conflict=policy)
            else:
                asyncio.run(store.asynchronous.append("s", change, expect=1, on_conflict=policy))
            assert store.read("s").state["a"] == 1
            return [event.type for commit in store.history("s") for event in commit.events]

    types = goes_on(work)
    assert types[-1] == "mine" and "asked" in types


def test_a_function_may_write_to_its_own_session(url: str) -> None:
    """`update` holds the session from the second time on, yet what its function writes there, in tasks and threads too, does not wait."""

    def work() -> int:
        async def scenario() -> int:
            async with perdure.open(url) as store:
                runs = 0

                async def function(draft: perdure.Draft) -> None:
                    nonlocal runs
                    runs += 1
                    draft.add("/n", 1)
                    if runs == 1:
                        await store.append("s", ONE)
                    elif runs == 2:
                        await asyncio.gather(store.append("s", ONE), asyncio.to_thread(sync.Store(store).append, "s", ONE))

                await store.update("s", function)
                assert (await store.read("s")).state == {"n": 4}
                return runs

        return asyncio.run(scenario())

    assert goes_on(work) == 3


@pytest.mark.parametrize("kind", ["events", "operations", "edits"])
async def test_update_gets_through_beside_steady_writers(url: str, kind: str) -> None:
    """Whatever tasks of the same process write to the session without a pause, `update` needs a second try and hardly ever a third."""
    tries: list[int] = []

    async def steady(store: perdure.Store, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if kind == "edits":
                async with store.edit("s") as draft:
                    draft.add("/theirs", 1)
            else:
                await store.append("s", ONE if kind == "operations" else Event("n"))
            await asyncio.sleep(0)

    async def scenario() -> None:
        async with perdure.open(url) as store:
            stop = asyncio.Event()
            writers = [asyncio.create_task(steady(store, stop)) for _ in range(2)]
            for _ in range(25):
                runs = 0

                async def function(draft: perdure.Draft) -> None:
                    nonlocal runs
                    runs += 1
                    before = draft.state.get("mine", 0)
                    await asyncio.sleep(0.001)
                    draft.state["mine"] = before + 1

                await store.update("s", function)
                tries.append(runs)
            stop.set()
            await asyncio.gather(*writers)
            assert (await store.read("s")).state["mine"] == 25

    await scenario()
    assert sum(tries) <= 3 * len(tries), tries


async def test_slots_come_in_the_order_they_were_asked_for() -> None:
    """First come, first served; one that was cancelled is passed over."""
    queue, order = SessionQueue(), list[int]()

    async def pass_through(number: int) -> None:
        async with queue.slot(S):
            order.append(number)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(pass_through(number)) for number in range(6)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 1, 2, 4, 5]
    assert not queue._lines


async def test_a_slot_that_is_held_too_long_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who waited long enough go ahead, the newest of them holds the session, and what the former holder leaves is not its slot."""
    monkeypatch.setattr("perdure.engine.write.session_queue.PATIENCE", 0.05)
    queue = SessionQueue()

    release = asyncio.Event()

    async def hold() -> None:
        async with queue.slot(S):
            await release.wait()

    holder = asyncio.create_task(hold())
    await asyncio.sleep(0)
    async with queue.slot(S) as _:
        release.set()
        await holder
        assert queue._lines[S].holder is not None
        waiting = asyncio.create_task(hold(), context=Context())
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting
    assert not queue._lines


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("leftovers_collected")
def test_an_interrupted_batch_of_appends_is_answered(url: str) -> None:
    """Ctrl-C out of the loop while appends wait to go together: when the loop runs again each of them is stored or has its error."""

    def work() -> None:
        loop = asyncio.new_event_loop()
        opening = perdure.open(url)
        store = loop.run_until_complete(opening.__aenter__())
        for at in range(1, 4_000, 61):
            tasks = [loop.create_task(store.append(f"s{number}", Event("n"))) for number in range(4)]

            async def wait(tasks: list[asyncio.Task[Any]] = tasks) -> None:
                await asyncio.wait(tasks)

            interrupted(lambda wait=wait: loop.run_until_complete(wait()), at)  # type: ignore[misc]
            loop.run_until_complete(asyncio.wait_for(asyncio.wait(tasks), WAIT))
            for task in tasks:
                task.exception()
        loop.run_until_complete(store.close())
        loop.close()

    goes_on(work)
