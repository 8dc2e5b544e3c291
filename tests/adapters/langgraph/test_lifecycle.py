"""Threads that expire, and threads that keep some of their checkpoints: `expire_after=` and `keep=` of the saver and the store."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import GetOp

import perdure
from perdure.adapters.langgraph import PerdureSaver, PerdureStore
from tests.support.adapters.langgraph_chats import chat, comparable, config, say
from tests.support.ops.scenarios import DAY, swept
from tests.support.ops.simulated_clock import SimulatedClock

SESSION = "langgraph/trip-42"


async def history(graph: Any, **options: Any) -> list[Any]:
    return [snapshot async for snapshot in graph.aget_state_history(config(), **options)]


async def test_a_thread_begins_with_the_policy() -> None:
    """A thread has it from its first commit on, whether a run, a hold or a copy starts it, and keeps what `configure` sets."""
    async with perdure.open("memory:") as store:
        saver = PerdureSaver(store, expire_after=DAY, keep=100, drop=True)
        await chat(saver).ainvoke(say("hello"), config())
        await saver.acopy_thread("trip-42", "copy")
        async with saver.hold("held", owner="one"):
            pass
        for thread in ("trip-42", "copy", "held"):
            policy = await store.policy(f"langgraph/{thread}")
            assert (policy.expire_after, policy.keep, policy.drop) == (DAY, 100, True)
        first = [commit async for commit in store.history(SESSION, limit=1)]
        assert first[0].kind is perdure.Kind.configure
        await store.configure(SESSION, expire_after=3 * DAY)
        await chat(saver).ainvoke(say("again"), config())
        assert (await store.policy(SESSION)).expire_after == 3 * DAY


async def test_an_expired_thread_is_not_there_and_begins_again() -> None:
    """After the sweeper the graph finds no state, no history and no thread; the next run begins it anew, with the policy."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        saver = PerdureSaver(store, expire_after=DAY)
        graph = chat(saver)
        await graph.ainvoke(say("hello"), config())
        assert await swept(store) == [(SESSION, "looked")]
        clock.advance(days=1, minutes=1)
        assert await swept(store) == [(SESSION, "expired")]
        assert (await graph.aget_state(config())).values == {}
        assert await history(graph) == [] and [found async for found in saver.alist(None)] == []
        await graph.ainvoke(say("back"), config())
        assert [message.content for message in (await graph.aget_state(config())).values["messages"]] == ["back", "answer 1"]
        assert (await store.policy(SESSION)).expire_after == DAY
        await store.verify(SESSION)


async def test_older_checkpoints_go_and_the_rest_reads_as_before() -> None:
    """With `drop` the history ends at the oldest checkpoint that is left; each that is listed can be read, continued and branched from."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        saver = PerdureSaver(store, keep=6, drop=True)
        graph = chat(saver)
        for number in range(10):
            await graph.ainvoke(say(f"question {number}"), config())
        before = await history(graph)
        assert await swept(store) == [(SESSION, "trimmed")]
        after = await history(graph)
        assert 1 < len(after) < len(before)
        assert comparable(after) == comparable(before)[: len(after)]
        for snapshot in after:
            found = await saver.aget_tuple(snapshot.config)
            assert found is not None and found.checkpoint["id"] == snapshot.config["configurable"]["checkpoint_id"]
        assert len(await history(graph, limit=2)) == 2
        assert await saver.aget_tuple(before[-1].config) is None
        assert len((await graph.ainvoke(None, after[-1].config))["messages"]) == len(after[-1].values["messages"])
        await graph.ainvoke(say("more"), config())
        await store.verify(SESSION)


async def test_the_newest_checkpoint_stays_whatever_its_age() -> None:
    """A thread that was idle for longer than `keep` has its state, is listed with it, and goes on."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        saver = PerdureSaver(store, keep=timedelta(days=30), drop=True)
        graph = chat(saver)
        for number in range(5):
            await graph.ainvoke(say(f"question {number}"), config())
        state, before = await graph.aget_state(config()), await history(graph)
        clock.advance(days=40)
        assert await swept(store) == [(SESSION, "trimmed")]
        assert comparable(await history(graph)) == comparable(before)[:1]
        assert (await graph.aget_state(config())).values == state.values
        fresh = chat(PerdureSaver(store))
        assert comparable([await fresh.aget_state(state.config)]) == comparable([state])
        await fresh.ainvoke(say("back"), config())
        assert len((await graph.aget_state(config())).values["messages"]) == 12
        assert len(await history(graph)) == 4


async def test_with_an_archive_nothing_is_lost(tmp_path: Path) -> None:
    """Without `drop` older commits move to the archive, and the whole history is read as before."""
    async with perdure.open("memory:", archive=f"file://{tmp_path}") as store:
        graph = chat(PerdureSaver(store, keep=6))
        for number in range(6):
            await graph.ainvoke(say(f"question {number}"), config())
        before = await history(graph)
        assert await swept(store) == [(SESSION, "trimmed")]
        assert comparable(await history(graph)) == comparable(before)
        assert (await graph.aget_state(before[-1].config)).config == before[-1].config


async def test_a_namespace_of_the_store_expires_as_a_whole() -> None:
    """PerdureStore's namespaces have the policy too: an idle one is gone for the framework, and a put begins it again."""
    clock = SimulatedClock()
    async with perdure.open("memory:", clock=clock) as store:
        memory = PerdureStore(store, expire_after=DAY, keep=50, drop=True)
        await memory.aput(("users", "42"), "name", {"is": "Ann"})
        await swept(store)
        clock.advance(days=2)
        assert await swept(store) == [("langgraph-store/users.42", "expired")]
        assert await memory.abatch([GetOp(("users", "42"), "name")]) == [None]
        assert await memory.alist_namespaces() == []
        await memory.aput(("users", "42"), "name", {"is": "Eve"})
        found = await memory.aget(("users", "42"), "name")
        assert found is not None and found.value == {"is": "Eve"}
        assert (await store.policy("langgraph-store/users.42")).keep == 50


@pytest.mark.parametrize("made", [PerdureSaver, PerdureStore])
async def test_values_that_make_no_sense(made: Any) -> None:
    """They are refused when the object is made."""
    async with perdure.open("memory:") as store:
        with pytest.raises(perdure.Invalid):
            made(store, expire_after=-1)
        with pytest.raises(perdure.Invalid):
            made(store, keep=0, drop=True)
        with pytest.raises(perdure.Unsupported, match="archive="):
            made(store, keep=10)
