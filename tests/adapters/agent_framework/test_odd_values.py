"""Values in messages, sessions and checkpoints: text of any kind is kept, and the rest comes back or is refused by name."""

from __future__ import annotations

import math
from typing import Any

import pytest
from agent_framework import (
    AgentSession,
    Content,
    Executor,
    Message,
    WorkflowBuilder,
    WorkflowCheckpoint,
    WorkflowCheckpointException,
    WorkflowContext,
    handler,
)

import perdure
from perdure.adapters.agent_framework import PerdureCheckpointStorage, PerdureHistoryProvider
from tests.adapters.agent_framework.test_sessions import keeping
from tests.support.adapters import unusual_values

pytestmark = [
    pytest.mark.filterwarnings("ignore:.SESSION_STORE."),
    pytest.mark.filterwarnings("ignore:AgentSession state value"),  # the framework says so too, before the store refuses it
]

HALVES = pytest.mark.parametrize("half", unusual_values.HALVES)
NAMES = pytest.mark.parametrize("name", unusual_values.NAMES)


def made(**more: Any) -> WorkflowCheckpoint:
    return WorkflowCheckpoint(**{"workflow_name": "trips", "graph_signature_hash": "h", **more})


@HALVES
async def test_half_an_emoji_in_messages(url: str, half: str) -> None:
    """In text, calls, results, properties and ids: equal when it is read, and a run that is stored again is there once."""
    contents = [
        Content("text", text=half),
        Content("function_call", call_id=half, name=half, arguments={half: half}),
        Content("function_result", call_id=half, result=half),
    ]
    messages = [
        Message("assistant", contents, author_name=half, message_id=half, additional_properties={half: [half]}),
        Message("user", ["x"]),
    ]
    async with perdure.open(url) as store:
        for _ in range(2):
            await PerdureHistoryProvider(store, half).save_messages(f"s{half}", messages)
        found = await PerdureHistoryProvider(store, half).get_messages(f"s{half}")
        assert [message.to_dict() for message in found] == [message.to_dict() for message in messages]
        assert found[0].text.startswith(half)


@HALVES
async def test_half_an_emoji_in_a_session(url: str, half: str) -> None:
    """In ids, keys and values: equal when it is got, and set again it writes what changed."""
    async with perdure.open(url) as store:
        sessions = keeping(store)
        given = AgentSession(session_id=half, service_session_id={half: half})
        given.state.update({half: {half: [half]}, "history": {"messages": [Message("user", [half])]}})
        await sessions.set("trip", given)
        got = await sessions.get("trip")
        assert (got.to_dict(), got.session_id) == (given.to_dict(), half)
        got.state[f"{half} more"] = half
        await sessions.set("trip", got)
        assert (await keeping(store).get("trip")).state[f"{half} more"] == half


@HALVES
async def test_half_an_emoji_in_a_checkpoint(url: str, half: str) -> None:
    """In its id and name, in keys, sets and tuples, through a chain and a branch: loaded, listed and deleted as others."""
    async with perdure.open(url) as store:
        storage = PerdureCheckpointStorage(store)
        name = f"w{half}"
        first = made(
            workflow_name=name, checkpoint_id=f"1{half}", graph_signature_hash=half, state={half: {half: (half, {half})}, "$": half}
        )
        chain = [first]
        for number in ("2", "3", "2b"):
            before = f"1{half}" if number != "3" else f"2{half}"
            chain.append(made(workflow_name=name, checkpoint_id=f"{number}{half}", previous_checkpoint_id=before, state={half: number}))
        for checkpoint in chain:
            assert await storage.save(checkpoint) == await storage.save(checkpoint) == checkpoint.checkpoint_id
        ids = [checkpoint.checkpoint_id for checkpoint in chain]
        other = PerdureCheckpointStorage(store)
        assert [await other.load(id) for id in ids] == chain
        assert sorted(await other.list_checkpoint_ids(workflow_name=name)) == sorted(ids)
        assert await other.get_latest(workflow_name=name) == chain[-1]
        assert await other.delete(ids[1])
        assert not await storage.delete(ids[1])
        assert sorted(one.checkpoint_id for one in await storage.list_checkpoints(workflow_name=name)) == sorted([ids[0], *ids[2:]])


@NAMES
async def test_odd_values_come_back_or_are_refused(url: str, name: str) -> None:
    """In a message, a session and a checkpoint, and in place of each: what was accepted is read again, the rest is named."""
    async with perdure.open(url) as store:
        history, sessions, storage = PerdureHistoryProvider(store), keeping(store), PerdureCheckpointStorage(store)
        value = unusual_values.values()[name]
        for number, messages in enumerate(
            (
                [Message("user", ["x"], additional_properties={"a": value})],
                [Message("user", [Content("function_result", call_id="a", result=value)])],
            )
        ):
            try:
                await history.save_messages(f"s{number}", messages)
            except perdure.Invalid:
                assert await history.get_messages(f"s{number}") == []
            else:
                assert len(await history.get_messages(f"s{number}")) == 1
        session = AgentSession(session_id="s")
        session.state["x"] = value
        try:
            await sessions.set("s", session)
        except perdure.Invalid:
            assert await sessions.get("s") is None
        else:
            assert "x" in (await sessions.get("s")).state
        checkpoint = made(state={"x": value})
        try:
            await storage.save(checkpoint)
        except WorkflowCheckpointException:
            assert await storage.list_checkpoint_ids(workflow_name="trips") == []
        else:
            loaded = await PerdureCheckpointStorage(store).load(checkpoint.checkpoint_id)
            assert loaded == checkpoint or math.isnan(loaded.state["x"])


@pytest.mark.parametrize("given", [None, 3, "text", [3], object()], ids=lambda value: f"{type(value).__name__}")
async def test_what_is_of_another_class_is_refused(given: Any) -> None:
    """In place of messages, checkpoints and ids: an error of ours or the framework's, and nothing is stored."""
    async with perdure.open("memory:") as store:
        with pytest.raises(perdure.Invalid):
            await PerdureHistoryProvider(store).save_messages("s", given)
        storage = PerdureCheckpointStorage(store)
        with pytest.raises(WorkflowCheckpointException):
            await storage.save(given)
        with pytest.raises((perdure.Invalid, WorkflowCheckpointException)):
            await storage.load(given)
        assert [info async for info in store.list()] == []


@pytest.mark.long
async def test_any_number_of_messages_is_stored() -> None:
    """More than fit into sixteen commits: all are there, in their order."""
    messages = [Message("user", [str(number)]) for number in range(17_500)]
    async with perdure.open("memory:") as store:
        history = PerdureHistoryProvider(store)
        await history.save_messages("s", messages)
        found = await history.get_messages("s")
        assert [message.text for message in found] == [str(number) for number in range(17_500)]


class Unknown:
    """A class that nobody allowed."""


class Step(Executor):
    """Sends on what no checkpoint takes."""

    @handler
    async def go(self, number: int, context: WorkflowContext[int, int]) -> None:
        context.set_state("thing", {"inner": [Unknown()]})
        await context.send_message(number) if number else None
        await context.yield_output(number)


async def test_a_checkpoint_that_is_refused_is_named_in_the_frameworks_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The framework goes on without it and logs why: the place, the class and what to do are in its warning; nothing of it is stored."""
    async with perdure.open("memory:") as store:
        storage = PerdureCheckpointStorage(store)
        step = Step(id="step")
        workflow = WorkflowBuilder(start_executor=step, name="trips", checkpoint_storage=storage).build()
        await workflow.run(0)
        warnings = [record.getMessage() for record in caplog.records if "Failed to create checkpoint" in record.getMessage()]
        assert warnings
        for said in ("thing.inner", "Unknown", "register_checkpoint_type", "Nothing was written"):
            assert said in warnings[0]
        assert [one.state.get("thing") for one in await storage.list_checkpoints(workflow_name="trips")] in ([], [None])
