"""Operations on whole threads: delete, copy, prune, and remove the checkpoints of some runs.

The chain keeps everything until the store's retention says otherwise. What is pruned or removed here is no longer found by any of the
framework's calls, and the audit still shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perdure.adapters.common.transactions import delete_if_there, lost_race, read_or_none, transact
from perdure.adapters.langgraph.history import FoldedRange, StoredCheckpoint, fold_range, is_removed
from perdure.adapters.langgraph.holds import lease_of
from perdure.adapters.langgraph.layout import SECTIONS, check_layout, current_checkpoint, slot_of
from perdure.adapters.langgraph.threads import PREFIX, session_of
from perdure.engine.store import Store
from perdure.engine.views import View
from perdure.errors import Conflict, Deleted, Invalid, NotFound
from perdure.model.diff import diff
from perdure.model.events import Event
from perdure.model.values import thaw


async def delete(store: Store, thread: str) -> None:
    """End a thread with a tombstone; nothing happens if there is none. A new run may begin it again; a late writer is refused."""
    session = session_of(thread)
    view = await read_or_none(store, session)
    if view is None:
        return
    check_layout(view.frozen_state, session)
    await delete_if_there(store, session)


async def copy(store: Store, source: str, target: str) -> None:
    """A new thread that begins with the present state of another: a fork, at a cost that does not grow with the history.

    Raises `NotFound` if there is no such thread, `AlreadyExists` if the target was ever there.
    """
    session = session_of(source)
    view = await read_or_none(store, session)
    if view is None:
        raise NotFound(f"There is no thread {source!r} to copy.", session=session)
    check_layout(view.frozen_state, session)
    await store.fork(session, at=view.version, id=session_of(target))


async def prune(store: Store, threads: Sequence[str], strategy: str) -> None:
    """`keep_latest` leaves each namespace its newest checkpoint; `delete` deletes the threads. Threads that are not there are ignored."""
    if strategy == "delete":
        for thread in threads:
            await delete(store, thread)
        return
    if strategy != "keep_latest":
        raise Invalid(f"There is no pruning strategy {strategy!r}: use 'keep_latest' or 'delete'.")
    for thread in threads:
        await _change(store, session_of(thread), _pruned)


async def delete_for_runs(store: Store, runs: Sequence[str]) -> None:
    """Remove the checkpoints whose metadata name one of these runs. Reads every thread: the framework does not say where they ran."""
    wanted = frozenset(runs)
    if not wanted:
        return

    async def without(store: Store, session: str, view: View) -> Event | None:
        return _without(wanted, view.frozen_state, await fold_range(store, session, after=0, ns=None, upto=view.version))

    async for info in store.list(prefix=PREFIX):
        await _change(store, info.session, without)


async def _change(store: Store, session: str, decide: Any) -> None:
    """Write the event that `decide` makes of a thread, on the very version that it saw."""

    async def attempt(_again: bool) -> None:
        view = await read_or_none(store, session)
        if view is None:
            return
        check_layout(view.frozen_state, session)
        event = await decide(store, session, view)
        if event is not None:
            with lost_race(Conflict, Deleted):
                await store.append(session, event, expect=view.version, on_conflict="raise", lease=lease_of(store, session))

    await transact(session, attempt)


async def _pruned(_store: Store, _session: str, view: View) -> Event | None:
    state = view.frozen_state
    kept = dict(state.get("namespaces", {}))
    for part in _parts(state).values():
        kept[part.get("ns", "")] = part["checkpoint"]["id"]
    if not kept or (state.get("pruned") or {}).get("kept") == kept:
        return None
    new = {**state, "pruned": {"version": view.version, "kept": kept}}
    return Event("pruned", {"strategy": "keep_latest"}, tuple(diff(state, new)))


def _without(runs: frozenset[str], state: Mapping[str, Any], found: FoldedRange) -> Event | None:
    """The change to a document without these runs' checkpoints. Where one of them is the newest, the one before it takes its place."""
    alive = [entry for entry in found.checkpoints if not is_removed(state, entry.version, entry.ns, entry.id)]
    gone = [entry for entry in alive if entry.slot["checkpoint"]["metadata"].get("run_id") in runs]
    if not gone:
        return None
    taken = {(entry.ns, entry.id) for entry in gone}
    newest = {entry.ns: entry for entry in alive if (entry.ns, entry.id) not in taken}
    new: dict[str, Any] = thaw(dict(state))
    for entry in gone:
        new.setdefault("removed", {}).setdefault(entry.ns, {})[entry.id] = True
        new.get("writes", {}).get(entry.ns, {}).pop(entry.id, None)
        left = newest.get(entry.ns)
        if current_checkpoint(state, entry.ns, entry.id) is not None:
            _replace(new, entry.ns, left)
        elif new.get("namespaces", {}).get(entry.ns) == entry.id:
            new["namespaces"].pop(entry.ns)
            if left is not None:
                new["namespaces"][entry.ns] = left.id
        if left is not None and (tasks := found.tasks(left.ns, left.id)):
            new.setdefault("writes", {}).setdefault(left.ns, {})[left.id] = thaw(dict(tasks))
    return Event("removed", {"runs": sorted(runs), "checkpoints": len(gone)}, tuple(diff(state, new)))


def _replace(new: dict[str, Any], ns: str, left: StoredCheckpoint | None) -> None:
    """Put an older checkpoint in the newest one's place. The count goes on, so that a writer that saw that one is refused here."""
    place = new if not ns else new["subgraphs"].pop(slot_of(ns))
    count = place["n"] + 1
    for name in (*SECTIONS, "values", "n"):
        place.pop(name, None)
    if left is not None:
        place |= {name: thaw(left.slot[name]) for name in (*SECTIONS, "values")} | {"n": count}
        if ns:
            new["subgraphs"][slot_of(ns)] = place


def _parts(state: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    parts: dict[str, Mapping[str, Any]] = dict(state.get("subgraphs", {}))
    if "checkpoint" in state:
        parts[""] = state
    return parts
