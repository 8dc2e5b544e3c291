"""Writing threads: one commit for each checkpoint and the writes that led to it, and the checks between workers on one thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint

from perdure.adapters.common.transactions import lost_race, transact
from perdure.adapters.langgraph.compare import compare
from perdure.adapters.langgraph.history import LATE_WRITE_WINDOW, find_version, fold_range, is_removed, read_older
from perdure.adapters.langgraph.holds import lease_of
from perdure.adapters.langgraph.layout import (
    LATE,
    check_layout,
    checkpoint_key,
    count_after,
    current_checkpoint,
    is_guarded,
    newest_id,
    put_events,
    slot,
    write_events,
)
from perdure.adapters.langgraph.memory import KnownVersions, RecentCheckpoints
from perdure.adapters.langgraph.refusals import Refused
from perdure.adapters.langgraph.threads import Place, is_run, place
from perdure.adapters.langgraph.tuples import decode_checkpoint, encode_checkpoint, encode_writes, replaces
from perdure.adapters.langgraph.values import Codec
from perdure.adapters.langgraph.write_batching import PendingCall, WriteBatcher
from perdure.engine.leasing.lease import Lease
from perdure.engine.store import Store
from perdure.errors import AlreadyExists, Conflict, Deleted, Error, Invalid, NotFound, Unavailable, Unknown
from perdure.model.events import Event
from perdure.model.ops import Op
from perdure.model.state import apply
from perdure.model.values import same

OnRace = Literal["refuse", "branch"]


class Put(PendingCall):
    """A checkpoint to be stored. `orphan` lets it name a parent that is not there. `lease`: see `_submit`."""

    lease: Lease | None = None

    def __init__(self, here: Place, config: RunnableConfig, metadata: Any, new: dict[str, Any], *, orphan: bool) -> None:
        super().__init__()
        self.here, self.config, self.metadata, self.new, self.orphan = here, config, metadata, new, orphan
        self.id: str = new["checkpoint"]["id"]


class Writes(PendingCall):
    """What a task wrote on the checkpoint `id`, to be stored; with `replace` in place of what is there.

    `recent` is given for what may wait for the checkpoint that follows, as long as that one has not been put. `lease`: see `_submit`.
    """

    lease: Lease | None = None

    def __init__(
        self, here: Place, id: str, task: str, entries: dict[str, Any], *, replace: bool, recent: RecentCheckpoints | None
    ) -> None:
        super().__init__()
        self.here, self.id, self.task, self.entries, self.replace, self._recent = here, id, task, entries, replace, recent

    def may_wait(self) -> bool:
        """Whether it may be held now."""
        if self._recent is None:
            return False
        newest = self._recent.newest(self.here.session, self.here.ns)
        return newest is None or newest <= self.id


class Writer(NamedTuple):
    """What a saver writes with."""

    store: Store
    codec: Codec
    recent: RecentCheckpoints
    seen: KnownVersions
    batcher: WriteBatcher[Put | Writes]
    on_race: OnRace = "refuse"


class _Now(NamedTuple):
    """A thread as it is known. `life` marks the new life to be started, if the session was deleted."""

    state: Mapping[str, Any]
    version: int
    life: str | None


async def put(writer: Writer, config: RunnableConfig, checkpoint: Checkpoint, metadata: Any, *, orphan: bool = False) -> RunnableConfig:
    """Store a checkpoint, applied once however often it is sent: one commit, which is shared by writes that wait for it.

    `orphan` lets it name a parent that is not there. Raises `Conflict` for a lost race (see `_check_parent`), `NotFound` for a parent
    that is gone, `Deleted` if the thread was deleted since the run loaded it, `Invalid` for what cannot be stored.
    """
    here = place(config)
    call = Put(here, config, metadata, encode_checkpoint(writer.codec, config, here.id, checkpoint, metadata), orphan=orphan)
    await _submit(writer, call, config)
    return {"configurable": {"thread_id": config["configurable"]["thread_id"], "checkpoint_ns": here.ns, "checkpoint_id": call.id}}


async def put_writes(writer: Writer, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str) -> None:
    """Store a task's writes on a checkpoint: one commit, or none if they are all there. A checkpoint may be put after its writes.

    Errors, interrupts and the like replace earlier ones of the task; its output is stored once: a second run of the task changes nothing.
    The output of a run's task waits a moment for the checkpoint that follows it, and shares its commit.
    """
    here = place(config)
    if here.id is None:
        raise Invalid("The config has no checkpoint_id: writes belong to a checkpoint.")
    special = replaces(writes)
    entries = encode_writes(writer.codec, writes, task_path)
    recent = writer.recent if is_run(config) and not special else None
    await _submit(writer, Writes(here, here.id, task_id, entries, replace=special, recent=recent), config)


async def put_entries(writer: Writer, here: Place, id: str, task_id: str, entries: dict[str, Any], *, replace: bool) -> None:
    """Store a task's encoded writes on the checkpoint `id`; with `replace` in place of those that are there."""
    await _submit(writer, Writes(here, id, task_id, entries, replace=replace, recent=None))


async def _submit(writer: Writer, call: Put | Writes, config: RunnableConfig | None = None) -> None:
    # Here, in the caller's context: another caller may store it.
    call.lease = lease_of(writer.store, call.here.session, config)
    await writer.batcher.store(call.here.session, call, _choose, partial(_store, writer))


def _choose(waiting: Sequence[Put | Writes]) -> list[Put | Writes]:
    """The first checkpoint with the writes that came before it, without those on itself and later ones, which go with the next ones.

    One commit has one lease: calls of a context that holds the thread do not go with those of one that does not.
    """
    chosen: list[Put | Writes] = []
    for call in (call for call in waiting if call.lease is waiting[0].lease):
        chosen.append(call)
        if isinstance(call, Put):
            return [other for other in chosen if other is call or other.here.ns != call.here.ns or _is_on_earlier(other, call)]
    return chosen


def _is_on_earlier(writes: Put | Writes, put: Put) -> bool:
    return writes.id < put.id or writes.id == put.here.id


async def _store(writer: Writer, calls: Sequence[Put | Writes]) -> None:
    """Store these calls in one commit, or each in its own if they cannot be stored together: an error of one is not the others'."""
    put = next((call for call in calls if isinstance(call, Put)), None)
    writes = [call for call in calls if isinstance(call, Writes)]
    try:
        await _commit(writer, writes, put)
    except (Unknown, Unavailable) as error:
        for call in calls:
            call.done(error)
    except Error as error:
        if len(calls) == 1:
            calls[0].done(error)
            return
        for call in calls:
            await _store(writer, [call])
    else:
        for call in calls:
            call.done()


async def _commit(writer: Writer, writes: Sequence[Writes], put: Put | None) -> None:
    """One commit, decided on the present thread. The writes come first: those on the checkpoint before this one go with it."""
    await transact((put or writes[0]).here.session, partial(_try_commit, writer, writes, put))


async def _try_commit(writer: Writer, writes: Sequence[Writes], put: Put | None, again: bool) -> None:
    store, here, lease = writer.store, (put or writes[0]).here, (put or writes[0]).lease
    now = await _now(store, here, strong=again)
    state = now.state
    events: list[Event] = []
    fresh: list[Writes] = []
    for call in writes:
        added = await _write_events(writer, state, now.life, call)
        if added:
            fresh.append(call)
            events += added
            state = apply(state, [op for event in added for op in event.ops])
    made, key = ((), None) if put is None else await _put_events(writer, now, state, put)
    if not (events or made):
        return
    # Writes, and a checkpoint with a guard, fit any state of a thread that is there. A thread's first commit must be its first.
    expect = None if now.version and (not made or is_guarded(made)) else now.version
    try:
        with lost_race(Conflict, AlreadyExists, Deleted, NotFound):
            receipt = await store.append(here.session, *events, *made, expect=expect, key=key, recreate=now.life is not None, lease=lease)
    except Invalid:
        if put is None or key is None or writes or not await _is_there(store, writer.codec, put.here, put.id, put.new):
            raise
        return
    if put is not None and made:
        writer.recent.put(here.session, put.here.ns, put.id, count_after(now.state, put.here.ns, put.id))
        writer.seen.made(put.id, put.here.id, receipt.version)
    if receipt.version != now.version + 1:
        await _mark_late(writer, now, fresh, receipt.version)


async def _put_events(writer: Writer, now: _Now, state: Mapping[str, Any], put: Put) -> tuple[tuple[Event, ...], str | None]:
    """The events that put a checkpoint on `state`, which is that of `now` and the writes before it; and the commit's idempotency key."""
    here, id = put.here, put.id
    if now.life is not None and here.id is not None and not put.orphan:
        raise Deleted(f"Thread {here.thread!r} was deleted during this run.", session=here.session)
    again = newest_id(now.state, here.ns) == id and current_checkpoint(now.state, here.ns, id) is not None
    if not again and not put.orphan:
        await _check_parent(writer, now, put)
    events = put_events(state, here.ns, put.new, now.life)
    if not again:
        return events, checkpoint_key(now.state if now.life is None else {"life": now.life}, here.ns, id)
    if events:
        events = (Event(events[0].type, {**events[0].data, "again": True}, events[0].ops), *events[1:])
    return events, None


async def _write_events(writer: Writer, state: Mapping[str, Any], life: str | None, call: Writes) -> tuple[Event, ...]:
    """The events that add a task's writes to `state`; none if they are all there."""
    ns, id, task, entries = call.here.ns, call.id, call.task, call.entries
    held = state.get("writes", {}).get(ns, {}).get(id, {}).get(task, {})
    fresh = {index: entry for index, entry in entries.items() if index not in held or (call.replace and not same(held[index], entry))}
    if fresh.keys() <= {"path"}:
        return ()
    return write_events(state, ns, id, task, fresh, life=life, late=await _is_late(writer, call.here, state, id))


async def _mark_late(writer: Writer, now: _Now, calls: Sequence[Writes], version: int) -> None:
    """Others came between: mark the writes that were in time when this was decided, and are late now that they are stored."""
    state = (await _now(writer.store, calls[0].here, strong=False)).state if calls else {}
    for call in calls:
        here, id = call.here, call.id
        if not await _is_late(writer, here, now.state, id) and await _is_late(writer, here, state, id):
            marked = Op("merge", "", {"late": {here.ns: {id: True}}})
            await writer.store.append(here.session, Event(LATE, {"version": version}, (marked,)), lease=call.lease)


async def _is_late(writer: Writer, here: Place, state: Mapping[str, Any], id: str) -> bool:
    """Whether the thread is so far ahead of a checkpoint that the search for writes on it ends before new ones: it is marked then.

    Tasks are stored while the thread's next steps are, so it is usual that writes come a little after the next checkpoint.
    """
    newest = newest_id(state, here.ns)
    if newest in (None, id):
        return False
    found, count = slot(state, here.ns), writer.recent.get(here.session, here.ns, id)
    if found is not None and found.get("ns", "") == here.ns and count is not None:
        return bool(found["n"] - count >= LATE_WRITE_WINDOW)
    # Not put yet, or put by another process, or long ago.
    return await writer.store.find(here.session, checkpoint_key(state, here.ns, id)) is not None


async def _now(store: Store, here: Place, *, strong: bool) -> _Now:
    """The thread as this process remembers it, for a first try, or as it is. A decision on an old state is rebased, or made again."""
    try:
        view = await store.read(here.session, consistency="strong" if strong else "eventual")
    except NotFound:
        return _Now({}, 0, None)
    except Deleted:
        return _Now({}, 0, store.new_id()[-12:])
    check_layout(view.frozen_state, here.session)
    return _Now(view.frozen_state, view.version, None)


async def _check_parent(writer: Writer, now: _Now, put: Put) -> None:
    """Refuse the put that would make a silent fork, and the one that follows a checkpoint that is gone.

    A checkpoint may follow the newest one of its namespace, or, as time travel and `update_state` do, an older one: that makes a branch
    on purpose. It is a lost race if the parent got a child that the run could not know of: after the run loaded the parent, as the saver
    remembers (`memory.KnownVersions`), else at any time. A run that found an empty thread has no parent: its first checkpoint is refused if
    the graph has one by now.
    """
    store, here = writer.store, put.here
    newest = newest_id(now.state, here.ns)
    if here.id == newest:
        return
    if here.id is None:
        starts = put.metadata.get("source") == "input" and is_run(put.config)
        if starts and not here.ns and writer.on_race == "refuse":
            raise _lost_race(here, 0, now, "found it empty, and another run has begun it since")
        return
    if (
        current_checkpoint(now.state, here.ns, here.id) is None
        and await read_older(store, here.session, now.state, here.ns, here.id) is None
    ):
        raise NotFound(
            f"Thread {here.thread!r} has no checkpoint {here.id!r} for this one to follow: it was deleted or pruned, or never stored.",
            session=here.session,
        )
    if writer.on_race == "refuse":
        seen = writer.seen.get(here.id)
        if seen is None:
            seen = await find_version(store, here.session, now.state, here.ns, here.id) or 0
        if await _has_child(store, here, now, seen, put.id):
            raise _lost_race(here, seen, now, f"continued from checkpoint {here.id}, and another run did so first")


async def _has_child(store: Store, here: Place, now: _Now, after: int, id: str) -> bool:
    """Whether a checkpoint other than `id` was put on the one at `here` after a version, and is still there."""
    if after >= now.version:
        return False
    since = await fold_range(store, here.session, after=after, ns=here.ns)
    return any(
        older.slot["checkpoint"].get("parent") == here.id
        and older.id != id
        and not is_removed(now.state, older.version, older.ns, older.id)
        for older in since.checkpoints
    )


def _lost_race(here: Place, seen: int, now: _Now, why: str) -> Conflict:
    where = f" (namespace {here.ns!r})" if here.ns else ""
    return Conflict(
        f"Two runs at once on thread {here.thread!r}{where}: this one {why}. Its checkpoint was not stored; run it again on the newest "
        'state, or allow such branches with PerdureSaver(store, on_race="branch").',
        session=here.session,
        expected=seen,
        actual=now.version,
        commits=(),
        paths=(),
    )


async def _is_there(store: Store, codec: Codec, here: Place, id: str, new: dict[str, Any]) -> bool:
    """Whether an older checkpoint of this id holds what is to be put: then this is a retry, and done."""
    now = await _now(store, here, strong=True)
    older = await read_older(store, here.session, now.state, here.ns, id)
    if older is None:
        return False
    stored, mine = (decode_checkpoint(codec, here, slot, {}).checkpoint for slot in (older[0].slot, new))
    try:
        compare(stored, mine)
    except Refused:
        return False
    return True
