"""The contract of checkpoint storages, in our words: on Perdure, and on the framework's own storage, so that it is not misread."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from agent_framework import (
    Executor,
    FileCheckpointStorage,
    WorkflowBuilder,
    WorkflowCheckpoint,
    WorkflowCheckpointException,
    WorkflowContext,
    WorkflowEvent,
    handler,
    register_checkpoint_type,
    response_handler,
)
from agent_framework._workflows._runner_context import WorkflowMessage

import perdure
from perdure.adapters.agent_framework import PerdureCheckpointStorage

TRIPS = "agent-framework/workflows/trips/"


@dataclass
class Unlike:
    """A value that pickles and does not copy."""

    text: str

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("not to be copied")

    def __reduce__(self) -> Any:
        return Unlike, (self.text,)


register_checkpoint_type(Unlike)


@pytest.fixture(params=["perdure memory", "perdure sqlite", "perdure sync", "framework"])
def kind(request: pytest.FixtureRequest) -> str:
    """Whose storage it is."""
    return str(request.param)


@asynccontextmanager
async def opened(kind: str, place: Path) -> AsyncIterator[Any]:
    """A fresh storage of a kind."""
    if kind == "framework":
        yield FileCheckpointStorage(place / "checkpoints")
    elif kind == "perdure sync":
        with perdure.sync.open(f"sqlite:///{place}/store.db") as store:
            yield PerdureCheckpointStorage(store)
    else:
        async with perdure.open("memory:" if kind == "perdure memory" else f"sqlite:///{place}/store.db") as store:
            yield PerdureCheckpointStorage(store)


def made(name: str = "trips", **more: Any) -> WorkflowCheckpoint:
    return WorkflowCheckpoint(workflow_name=name, graph_signature_hash="g", **more)


NESTED = [
    ("state", {"key": "original"}, lambda held: held.state.update(key="changed")),
    ("state", {"a": {"b": {"c": "original"}}}, lambda held: held.state["a"]["b"].update(c="changed")),
    ("state", {"a": [[1, 2]]}, lambda held: held.state["a"][0].append("changed")),
    ("metadata", {"a": {"b": 1}}, lambda held: held.metadata["a"].clear()),
    ("messages", {"x": [WorkflowMessage(source_id="s", data="original")]}, lambda held: setattr(held.messages["x"][0], "data", "changed")),
    (
        "pending_request_info_events",
        {"r": WorkflowEvent("request_info", data="original")},
        lambda held: setattr(held.pending_request_info_events["r"], "data", "changed"),
    ),
]


@pytest.mark.parametrize(("field", "value", "change"), NESTED, ids=["state", "deep", "list", "metadata", "message", "request"])
@pytest.mark.parametrize("how", ["given", "loaded", "latest", "listed"])
async def test_what_is_stored_is_nobodys_to_change(kind: str, tmp_path: Path, how: str, field: str, value: Any, change: Any) -> None:
    """A checkpoint that is changed after saving it, or after any way of getting it, changes nothing that is stored, at any depth."""
    async with opened(kind, tmp_path) as storage:
        given = made(**{field: copy.deepcopy(value)})
        id = await storage.save(given)
        before = repr((await storage.load(id)).to_dict()[field]) if field not in {"messages", "pending_request_info_events"} else None
        match how:
            case "given":
                change(given)
            case "loaded":
                change(await storage.load(id))
            case "latest":
                change(await storage.get_latest(workflow_name="trips"))
            case _:
                change((await storage.list_checkpoints(workflow_name="trips"))[0])
        again = await storage.load(id)
        assert before is None or repr(again.to_dict()[field]) == before
        if field == "messages":
            assert again.messages["x"][0].data == "original"
        if field == "pending_request_info_events":
            assert again.pending_request_info_events["r"].data == "original"


async def test_a_checkpoint_comes_back_with_every_field(kind: str, tmp_path: Path) -> None:
    """The id is returned, and all fields are as they were."""
    async with opened(kind, tmp_path) as storage:
        given = made(
            previous_checkpoint_id="gone", iteration_count=7, state={"n": 1, "f": 0.5, "t": None}, metadata={"m": True}, version="1.0"
        )
        assert await storage.save(given) == given.checkpoint_id
        assert await storage.load(given.checkpoint_id) == given


async def test_checkpoints_are_listed_by_workflow(kind: str, tmp_path: Path) -> None:
    """Names that contain one another, separators and all, do not mix; an unknown one has none, and no latest."""
    async with opened(kind, tmp_path) as storage:
        for name in ("a", "a/b", "a", "a b%2F"):
            await storage.save(made(name))
        for name, count in (("a", 2), ("a/b", 1), ("a b%2F", 1), ("b", 0), ("A", 0)):
            listed = await storage.list_checkpoints(workflow_name=name)
            assert [found.workflow_name for found in listed] == [name] * count
            assert sorted(await storage.list_checkpoint_ids(workflow_name=name)) == sorted(found.checkpoint_id for found in listed)
        assert await storage.get_latest(workflow_name="b") is None


async def test_the_latest_is_the_one_with_the_latest_time(kind: str, tmp_path: Path) -> None:
    """Whatever was saved last, and across runs; when it is deleted it is the next."""
    async with opened(kind, tmp_path) as storage:
        times = ["2026-11-23T12:00:00+00:00", "2026-11-23T14:30:00+02:00", "2026-11-23T11:00:00+00:00"]
        saved = [made(timestamp=time) for time in times]
        saved.append(made(timestamp="2026-11-23T12:15:00+00:00", previous_checkpoint_id=saved[2].checkpoint_id))
        for checkpoint in saved:
            await storage.save(checkpoint)
        for expected in (saved[1], saved[3], saved[0], saved[2]):
            latest = await storage.get_latest(workflow_name="trips")
            assert latest.checkpoint_id == expected.checkpoint_id
            assert await storage.delete(latest.checkpoint_id)
        assert await storage.get_latest(workflow_name="trips") is None


async def test_what_is_not_there_is_said(kind: str, tmp_path: Path) -> None:
    """Loading an unknown or deleted id raises; deleting says whether there was one."""
    async with opened(kind, tmp_path) as storage:
        with pytest.raises(WorkflowCheckpointException, match="No checkpoint found"):
            await storage.load("nobody")
        assert not await storage.delete("nobody")
        id = await storage.save(made())
        assert await storage.delete(id)
        assert not await storage.delete(id)
        with pytest.raises(WorkflowCheckpointException, match="No checkpoint found"):
            await storage.load(id)
        assert await storage.list_checkpoint_ids(workflow_name="trips") == []


async def test_a_chain_goes_on_behind_a_deleted_checkpoint(kind: str, tmp_path: Path) -> None:
    """The next checkpoint may follow one that was deleted; a deleted one that is saved again is there again."""
    async with opened(kind, tmp_path) as storage:
        first = made(state={"n": 1})
        await storage.save(first)
        await storage.delete(first.checkpoint_id)
        second = made(state={"n": 2}, previous_checkpoint_id=first.checkpoint_id)
        await storage.save(second)
        assert await storage.list_checkpoint_ids(workflow_name="trips") == [second.checkpoint_id]
        third = made(state={"n": 3})
        await storage.save(third)
        await storage.delete(third.checkpoint_id)
        await storage.save(third)
        assert await storage.load(third.checkpoint_id) == third


async def test_a_checkpoint_saved_again_is_there_once(kind: str, tmp_path: Path) -> None:
    """A retried save changes nothing, also when others follow; the newest one may be replaced by other content."""
    async with opened(kind, tmp_path) as storage:
        first = made(state={"n": 1})
        second = made(state={"n": 2}, previous_checkpoint_id=first.checkpoint_id)
        for checkpoint in (first, first, second, first, second):
            await storage.save(checkpoint)
        assert sorted(found.state["n"] for found in await storage.list_checkpoints(workflow_name="trips")) == [1, 2]
        second.state["n"] = 3
        await storage.save(second)
        assert (await storage.load(second.checkpoint_id)).state == {"n": 3}
        assert len(await storage.list_checkpoint_ids(workflow_name="trips")) == 2


async def test_a_registered_class_comes_back_whatever_it_says_of_copies(kind: str, tmp_path: Path) -> None:
    """A value that pickles and does not copy survives, on Perdure without a pickle."""
    assert pickle.loads(pickle.dumps(Unlike("x"))) == Unlike("x")
    async with opened(kind, tmp_path) as storage:
        id = await storage.save(made(state={"own": Unlike("original")}))
        loaded = await storage.load(id)
        assert loaded.state == {"own": Unlike("original")}
        loaded.state["own"].text = "changed"
        assert (await storage.load(id)).state["own"].text == "original"


class Counting(Executor):
    """Adds what it was given to a list, and passes the next number on."""

    @handler
    async def count(self, number: int, context: WorkflowContext[int, str]) -> None:
        """Up to six."""
        context.set_state("seen", [*(context.get_state("seen") or []), {"number": number, "text": "x" * 200}])
        if number == 6:
            await context.yield_output(f"seen {len(context.get_state('seen'))}")
        else:
            await context.send_message(number + 1)


class Asking(Executor):
    """Asks a person, and answers with what the person said."""

    @handler
    async def ask(self, question: str, context: WorkflowContext[int, str]) -> None:
        """Wait for the answer."""
        await context.request_info(question, str)

    @response_handler
    async def answered(self, question: str, answer: str, context: WorkflowContext[int, str]) -> None:
        """Go on."""
        await context.yield_output(f"{question} {answer}")


def counting(storage: Any) -> Any:
    one, two = Counting(id="one"), Counting(id="two")
    builder = WorkflowBuilder(name="trips", start_executor=one, checkpoint_storage=storage)
    return builder.add_edge(one, two).add_edge(two, one).build()


async def test_a_workflow_goes_on_from_any_checkpoint_in_another_process(kind: str, tmp_path: Path) -> None:
    """From every checkpoint of a run a new workflow object comes to the same end, and each run's checkpoints stay."""
    async with opened(kind, tmp_path) as storage:
        assert (await counting(storage).run(1)).get_outputs() == ["seen 6"]
        listed = sorted(await storage.list_checkpoints(workflow_name="trips"), key=lambda found: found.timestamp)
        for found in listed[:-1]:
            assert (await counting(storage).run(checkpoint_id=found.checkpoint_id)).get_outputs() == ["seen 6"]
        again = [await storage.load(found.checkpoint_id) for found in listed]
        assert [found.state for found in again] == [found.state for found in listed]


async def test_a_question_to_a_person_outlives_the_process(kind: str, tmp_path: Path) -> None:
    """A workflow that waits for an answer is restored in a new object, and takes the answer."""
    async with opened(kind, tmp_path) as storage:
        workflow = WorkflowBuilder(name="asking", start_executor=Asking(id="ask"), checkpoint_storage=storage).build()
        (request,) = (await workflow.run("Where to?")).get_request_info_events()
        latest = await storage.get_latest(workflow_name="asking")
        again = WorkflowBuilder(name="asking", start_executor=Asking(id="ask"), checkpoint_storage=storage).build()
        done = await again.run(checkpoint_id=latest.checkpoint_id, responses={request.request_id: "Rome"})
        assert done.get_outputs() == ["Where to? Rome"]


async def test_a_step_writes_what_it_changed(url: str) -> None:
    """In a state of 2 MB a step that adds one item commits that item; the step's operations are found by content."""
    async with perdure.open(url) as store:
        storage = PerdureCheckpointStorage(store)
        items = [{"number": number, "text": "x" * 1000} for number in range(2000)]
        first = made(state={"items": items, "count": 2000})
        await storage.save(first)
        changed = [{**items[0], "text": "edited"}, *copy.deepcopy(items[1:]), {"number": 2000, "text": "new"}]
        second = made(state={"items": changed, "count": 2001}, previous_checkpoint_id=first.checkpoint_id)
        await storage.save(second)
        (commit,) = [commit async for commit in store.history(TRIPS + first.checkpoint_id, newest_first=True, limit=1)]
        touched = {op.path: op.value for op in commit.events[0].ops if op.path.startswith("/checkpoint/state")}
        assert touched == {
            "/checkpoint/state/items/0/text": "edited",
            "/checkpoint/state/items": [{"number": 2000, "text": "new"}],
            "/checkpoint/state/count": 2001,
        }
        assert await storage.load(first.checkpoint_id) == first


async def test_workers_that_go_on_from_one_checkpoint_are_all_kept(url: str) -> None:
    """Six workers save a successor of one checkpoint at once: one goes on in the run's session, the others in forks; none is lost."""
    async with perdure.open(url) as store:
        first = made(state={"n": 0, "long": "x" * 1000})
        await PerdureCheckpointStorage(store).save(first)
        rivals = [made(state={"n": number, "long": "x" * 1000}, previous_checkpoint_id=first.checkpoint_id) for number in range(1, 7)]
        await asyncio.gather(*[PerdureCheckpointStorage(store).save(rival) for rival in rivals])
        fresh = PerdureCheckpointStorage(store)
        assert sorted(found.state["n"] for found in await fresh.list_checkpoints(workflow_name="trips")) == list(range(7))
        for rival in rivals:
            assert await fresh.load(rival.checkpoint_id) == rival
        assert len([info async for info in store.list(prefix=TRIPS)]) == 6
        more = [made(state={"n": 9}, previous_checkpoint_id=rival.checkpoint_id) for rival in rivals]
        for checkpoint in more:
            await fresh.save(checkpoint)
        assert len([info async for info in store.list(prefix=TRIPS)]) == 6
        assert len(await fresh.list_checkpoint_ids(workflow_name="trips")) == 13


async def test_of_many_who_delete_a_checkpoint_one_did(file_url: str) -> None:
    """Six calls on two stores: one is told that there was a checkpoint."""
    async with perdure.open(file_url) as one, perdure.open(file_url) as two:
        storages = [PerdureCheckpointStorage(store) for store in (one, two)]
        id = await storages[0].save(made())
        assert sorted(await asyncio.gather(*[storages[n % 2].delete(id) for n in range(6)])) == [False] * 5 + [True]


async def test_two_stores_on_one_file_share_their_checkpoints(file_url: str) -> None:
    """A storage in another process finds a checkpoint by its id alone, and goes on behind it."""
    async with perdure.open(file_url) as one, perdure.open(file_url) as two:
        first = made(state={"n": 1})
        await PerdureCheckpointStorage(one).save(first)
        second = made(state={"n": 2}, previous_checkpoint_id=first.checkpoint_id)
        await PerdureCheckpointStorage(two).save(second)
        storage = PerdureCheckpointStorage(one)
        assert await storage.load(second.checkpoint_id) == second
        with pytest.raises(WorkflowCheckpointException):
            await PerdureCheckpointStorage(one.for_tenant("other")).load(second.checkpoint_id)


async def test_bad_input_is_refused_in_the_frameworks_class(url: str) -> None:
    """Ids that are too long, a checkpoint of an id that others follow with other content, a foreign session, a closed store."""
    async with perdure.open(url) as store:
        storage = PerdureCheckpointStorage(store)
        with pytest.raises(WorkflowCheckpointException, match="at most 255"):
            await storage.save(made("x" * 250))
        first = made(state={"n": 1})
        await storage.save(first)
        await storage.save(made(previous_checkpoint_id=first.checkpoint_id))
        first.state["n"] = 2
        with pytest.raises(WorkflowCheckpointException, match="other content"):
            await storage.save(first)
        await store.append(f"{TRIPS}foreign", perdure.Event("note", None, (perdure.op.set("/x", 1),)))
        with pytest.raises(perdure.Invalid, match="foreign"):
            await storage.get_latest(workflow_name="trips")
    with pytest.raises(perdure.Closed):
        await storage.load(first.checkpoint_id)


async def test_a_run_whose_session_was_deleted_takes_no_more(url: str) -> None:
    """Saving after the run's session was deleted is refused in the framework's class, and what was deleted does not come back."""
    async with perdure.open(url) as store:
        storage = PerdureCheckpointStorage(store)
        first = made(state={"n": 1})
        await storage.save(first)
        await store.delete(TRIPS + first.checkpoint_id)
        for checkpoint in (made(previous_checkpoint_id=first.checkpoint_id), first, made(previous_checkpoint_id=first.checkpoint_id)):
            with pytest.raises(WorkflowCheckpointException, match="deleted"):
                await storage.save(checkpoint)
        assert await storage.list_checkpoint_ids(workflow_name="trips") == []


async def test_a_runs_session_is_readable_forkable_and_sound(url: str) -> None:
    """The state at a version is the checkpoint of that step, a fork of the session is a run of its own, and the chain verifies."""
    async with perdure.open(url) as store:
        storage = PerdureCheckpointStorage(store)
        await counting(storage).run(1)
        ids = await storage.list_checkpoint_ids(workflow_name="trips")
        session = TRIPS + ids[0]
        assert (await store.read(session, at=3)).state["checkpoint"]["state"]["seen"][1]["number"] == 2
        assert (await store.verify(session)).commits == len(ids)
        assert [event.data["checkpoint_id"] async for commit in store.history(session) for event in commit.events] == ids
