"""Writing threads: one commit for each checkpoint, one for each task's writes, and what two workers on one thread may not do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint

from perdure.adapters.langgraph.history import GRACE, older, stretch
from perdure.adapters.langgraph.layout import (
    LATE,
    check_layout,
    count_after,
    guarded,
    key_of,
    newest_id,
    put_events,
    slot,
    standing,
    write_events,
)
from perdure.adapters.langgraph.memory import Recent
from perdure.adapters.langgraph.threads import Place, place
from perdure.adapters.langgraph.tuples import decode_checkpoint, encode_checkpoint, encode_writes, replaces
from perdure.adapters.langgraph.values import Codec
from perdure.engine.store import Store
from perdure.errors import AlreadyExists, Conflict, Deleted, Invalid, NotFound
from perdure.model.events import Event
from perdure.model.ops import Op
from perdure.model.values import same

OnRace = Literal["refuse", "branch"]
ATTEMPTS = 64
"""How often a write is decided anew because others came first."""


class Writer(NamedTuple):
    """What a saver writes with."""

    store: Store
    codec: Codec
    recent: Recent
    on_race: OnRace = "refuse"


class _Now(NamedTuple):
    """A thread as I know it. `life` is the mark of the new life if the session was deleted, or is to be started where one was."""

    state: Mapping[str, Any]
    version: int
    life: str | None


async def put(writer: Writer, config: RunnableConfig, checkpoint: Checkpoint, metadata: Any, *, orphan: bool = False) -> RunnableConfig:
    """Store a checkpoint: one commit, applied once however often it is sent.

    `orphan` lets it name a parent that is not there. Raises `Conflict` for a lost race (see `_check_parent`), `NotFound` for a parent
    that is gone, `Deleted` if the thread was deleted since the run loaded it, `Invalid` for what cannot be stored.
    """
    store, codec = writer.store, writer.codec
    here = place(config)
    new = encode_checkpoint(codec, config, here.id, checkpoint, metadata)
    id = new["checkpoint"]["id"]
    for attempt in range(ATTEMPTS):
        now = await _now(store, here, strong=attempt > 0)
        if now.life is not None and here.id is not None and not orphan:
            raise Deleted(f"Thread {here.thread!r} was deleted while this run was going on.", session=here.session)
        again = newest_id(now.state, here.ns) == id and standing(now.state, here.ns, id) is not None
        if not again and not orphan:
            await _check_parent(store, here, now, writer.on_race, config, metadata, id)
        events = put_events(now.state, here.ns, new, now.life)
        if again:
            if not events:
                break
            events = (Event(events[0].type, {**events[0].data, "again": True}, events[0].ops), *events[1:])
        key = None if again else key_of(now.state if now.life is None else {"life": now.life}, here.ns, id)
        try:
            expect = None if guarded(events) else now.version
            await store.append(here.session, *events, expect=expect, key=key, recreate=now.life is not None)
            writer.recent.put(here.session, here.ns, id, count_after(now.state, here.ns, id))
            break
        except (Conflict, AlreadyExists, Deleted, NotFound):
            continue
        except Invalid:
            if key is None or not await _is_there(store, codec, here, id, new):
                raise
            break
    else:
        raise Conflict(f"{ATTEMPTS} tries to put a checkpoint on thread {here.thread!r} were overtaken.", session=here.session)
    return {"configurable": {"thread_id": config["configurable"]["thread_id"], "checkpoint_ns": here.ns, "checkpoint_id": id}}


async def put_writes(writer: Writer, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str) -> None:
    """Store a task's writes on a checkpoint: one commit, or none if they are all there. A checkpoint may be put after its writes.

    Errors, interrupts and the like replace earlier ones of the task; its output is stored once: a second run of the task changes nothing.
    """
    here = place(config)
    if here.id is None:
        raise Invalid("The config has no checkpoint_id: writes belong to a checkpoint.")
    await put_entries(writer, here, here.id, task_id, encode_writes(writer.codec, writes, task_path), replace=replaces(writes))


async def put_entries(writer: Writer, here: Place, id: str, task_id: str, entries: dict[str, Any], *, replace: bool) -> None:
    """Store a task's encoded writes on the checkpoint `id`; with `replace` in place of those that are there."""
    store = writer.store
    for attempt in range(ATTEMPTS):
        now = await _now(store, here, strong=attempt > 0)
        held = now.state.get("writes", {}).get(here.ns, {}).get(id, {}).get(task_id, {})
        fresh = {index: entry for index, entry in entries.items() if index not in held or (replace and not same(held[index], entry))}
        if fresh.keys() <= {"path"}:
            return
        late = await _is_late(writer, here, now.state, id)
        events = write_events(now.state, here.ns, id, task_id, fresh, life=now.life, late=late)
        # Writes fit any state of a thread that is there. Its first commit must be its first.
        expect = None if now.version else 0
        try:
            receipt = await store.append(here.session, *events, expect=expect, recreate=now.life is not None)
        except (Conflict, AlreadyExists, Deleted, NotFound):
            continue
        if not late and receipt.version != now.version + 1:
            state = (await _now(store, here, strong=False)).state
            if await _is_late(writer, here, state, id):
                marked = Op("merge", "", {"late": {here.ns: {id: True}}})
                await store.append(here.session, Event(LATE, {"version": receipt.version}, (marked,)))
        return
    raise Conflict(f"{ATTEMPTS} tries to put writes on thread {here.thread!r} were overtaken.", session=here.session)


async def _is_late(writer: Writer, here: Place, state: Mapping[str, Any], id: str) -> bool:
    """Whether the thread has gone so far beyond a checkpoint that writes on it are no longer looked for behind it: to be marked then.

    Tasks are stored beside the thread's next steps, so writes that come a little after the next checkpoint are the rule.
    """
    newest = newest_id(state, here.ns)
    if newest in (None, id):
        return False
    found, count = slot(state, here.ns), writer.recent.get(here.session, here.ns, id)
    if found is not None and found.get("ns", "") == here.ns and count is not None:
        return bool(found["n"] - count >= GRACE)
    # Not put yet, or put by another process, or long ago.
    return await writer.store.find(here.session, key_of(state, here.ns, id)) is not None


async def _now(store: Store, here: Place, *, strong: bool) -> _Now:
    """The thread from memory, for a first try, or as it is. What was decided on an old state is carried over, or decided anew."""
    try:
        view = await store.read(here.session, consistency="strong" if strong else "eventual")
    except NotFound:
        return _Now({}, 0, None)
    except Deleted:
        return _Now({}, 0, store.new_id()[-12:])
    check_layout(view.shared, here.session)
    return _Now(view.shared, view.version, None)


async def _check_parent(store: Store, here: Place, now: _Now, on_race: OnRace, config: RunnableConfig, metadata: Any, id: str) -> None:
    """Refuse the put that would make a silent fork, and the one that follows a checkpoint that is gone.

    A checkpoint may follow the newest one of its namespace, or, as time travel and `update_state` do, an older one: that makes a branch
    on purpose. It is a lost race when the parent got another child after this run loaded the thread: both started from the same
    checkpoint and the other one was first. The version at the load travels in the run's config (`threads.SEEN`). A run that found an
    empty thread has no such version: its first checkpoint is refused if the graph has one by now.
    """
    newest = newest_id(now.state, here.ns)
    if here.id == newest:
        return
    if here.id is None:
        starts = metadata.get("source") == "input" and any(name.startswith("__pregel_") for name in config["configurable"])
        if starts and not here.ns and on_race == "refuse":
            raise _lost(here, now, "found it empty, and another run has begun it since")
        return
    if here.seen is not None and on_race == "refuse" and here.seen < now.version:
        since = await stretch(store, here.session, after=here.seen, ns=here.ns)
        if any(past.slot["checkpoint"].get("parent") == here.id and past.id != id for past in since.past):
            raise _lost(here, now, f"went on from checkpoint {here.id}, and another run did so first")
    if standing(now.state, here.ns, here.id) is None and await older(store, here.session, now.state, here.ns, here.id) is None:
        raise NotFound(
            f"Thread {here.thread!r} has no checkpoint {here.id!r} for this one to follow: it was deleted or pruned, or never stored.",
            session=here.session,
        )


def _lost(here: Place, now: _Now, why: str) -> Conflict:
    where = f" (namespace {here.ns!r})" if here.ns else ""
    return Conflict(
        f"Two runs at once on thread {here.thread!r}{where}: this one {why}. Its checkpoint was not stored; run it again on the newest "
        'state, or make such branches on purpose with PerdureSaver(store, on_race="branch").',
        session=here.session,
        expected=here.seen or 0,
        actual=now.version,
        commits=(),
        paths=(),
    )


async def _is_there(store: Store, codec: Codec, here: Place, id: str, new: dict[str, Any]) -> bool:
    """Whether an older checkpoint of this id holds what is to be put: then this is a retry, and done."""
    now = await _now(store, here, strong=True)
    past = await older(store, here.session, now.state, here.ns, id)
    if past is None:
        return False
    stored, mine = (decode_checkpoint(codec, here, slot, {}).checkpoint for slot in (past[0].slot, new))
    return bool(stored == mine)
