"""Older checkpoints: the document at an older version, found by a checkpoint's key or by folding a range of the chain once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from perdure.adapters.common.kept import kept
from perdure.adapters.langgraph.layout import CHECKPOINT, WRITES, checkpoint_key, current_checkpoint, slot
from perdure.engine.store import Store
from perdure.errors import Corrupt, Truncated
from perdure.model.commit import Commit, Kind
from perdure.model.state import Fold, apply
from perdure.model.values import freeze

Tasks = Mapping[str, Mapping[str, Any]]
"""The writes on one checkpoint, by task: their indices and `path`."""


LATE_WRITE_WINDOW = 3
"""After how many later checkpoints of its namespace the search for writes on a checkpoint ends, unless it is marked as having late ones."""


class StoredCheckpoint(NamedTuple):
    """A checkpoint as it was put: where, and the part of the document that held it."""

    version: int
    ns: str
    id: str
    slot: Mapping[str, Any]


class FoldedRange(NamedTuple):
    """The checkpoints of a range of the chain, oldest first, and the writes on them that were made within it."""

    checkpoints: list[StoredCheckpoint]
    writes: dict[tuple[str, str], Tasks]

    def tasks(self, ns: str, id: str) -> Tasks:
        """The writes on a checkpoint."""
        return self.writes.get((ns, id), {})


def is_removed(state: Mapping[str, Any], version: int, ns: str, id: str) -> bool:
    """Whether a checkpoint was deleted or pruned: it is still in the chain, but no longer in the thread."""
    if id in state.get("removed", {}).get(ns, ()):
        return True
    pruned = state.get("pruned")
    return pruned is not None and version <= pruned["version"] and pruned["kept"].get(ns) != id


async def find_version(store: Store, session: str, state: Mapping[str, Any], ns: str, id: str) -> int | None:
    """The version at which a checkpoint was put, or `None`. One look-up by key; a thread that is a copy reads its log."""
    found = await find_version_in(store, session, state, [ns], id)
    return None if found is None else found[1]


async def find_version_in(
    store: Store, session: str, state: Mapping[str, Any], namespaces: Sequence[str], id: str
) -> tuple[str, int] | None:
    """In which of several namespaces, and at which version, a checkpoint was put."""
    keys = {checkpoint_key(state, ns, id): ns for ns in namespaces}
    for key, ns in keys.items():
        receipt = await store.find(session, key)
        if receipt is not None:
            return ns, receipt.version
    async for commit in kept(store, session, types={CHECKPOINT}, newest_first=True):
        if commit.key in keys:
            return keys[commit.key], commit.version
    return None


async def read_older(store: Store, session: str, state: Mapping[str, Any], ns: str, id: str) -> tuple[StoredCheckpoint, Tasks] | None:
    """A checkpoint that is no longer in the document `state`, with its writes; `None` if it is not there, or was deleted."""
    version = await find_version(store, session, state, ns, id)
    if version is None or is_removed(state, version, ns, id):
        return None
    try:
        then = (await store.read(session, at=version)).state
    except Truncated as error:
        version = error.first - 1
        then = (await store.read(session, at=version)).state
        if current_checkpoint(then, ns, id) is None:
            return None
    late = id in state.get("late", {}).get(ns, ())
    tasks: dict[str, Any] = {}
    _add(tasks, then.get("writes", {}).get(ns, {}).get(id, {}))
    beyond = 0
    async for commit in kept(store, session, after=version):
        for event in commit.events:
            if event.type == WRITES:
                made = apply({}, event.ops)
                _add(tasks, made["writes"].get(ns, {}).get(id, {}))
        if (ending := _put_in(commit, ns)) is not None:
            if ending.get("again"):
                then = (await store.read(session, at=commit.version)).state
            else:
                beyond += 1
                if beyond == LATE_WRITE_WINDOW and not late:
                    break
    return StoredCheckpoint(version, ns, id, _slot(session, version, then, ns)), tasks


async def fold_range(store: Store, session: str, *, after: int, ns: str | None, upto: int | None = None) -> FoldedRange:
    """Fold the commits with `after < version <= upto` once; `ns` chooses one namespace. States share what did not change.

    Where commits were dropped, it begins with what the last of them left: the checkpoints that were the newest ones then.
    """
    left = False
    while True:
        try:
            return await _fold(store, session, after, ns, upto, left=left)
        except Truncated as error:
            if error.first - 1 <= after:
                raise
            after, left = error.first - 1, True


async def _fold(store: Store, session: str, after: int, ns: str | None, upto: int | None, *, left: bool) -> FoldedRange:
    """`left`: the checkpoints of the state at `after` count too."""
    base: Any = (await store.read(session, at=after)).state if after else {}
    fold = Fold(freeze(base))
    found: list[StoredCheckpoint] = []
    if left:
        found += [StoredCheckpoint(after, name, part["checkpoint"]["id"], part) for name, part in _parts(fold.state) if ns in (None, name)]
    writes: dict[tuple[str, str], Tasks] = {}
    _collect(writes, base)
    async for commit in store.history(session, after=after, before=None if upto is None else upto + 1):
        if commit.kind is not Kind.data:
            continue
        for event in commit.events:
            fold.apply(event.ops)
            if event.type == WRITES:
                _collect(writes, fold.state)  # A checkpoint in the same commit drops them from the document.
        put = next((event.data or {} for event in commit.events if event.type == CHECKPOINT), None)
        if put is not None:
            name = put.get("ns", "")
            if ns is None or name == ns:
                part = _slot(session, commit.version, fold.state, name)
                _add_checkpoint(found, StoredCheckpoint(commit.version, name, part["checkpoint"]["id"], part), again=bool(put.get("again")))
    return FoldedRange(found, writes)


async def version_before(store: Store, session: str, ns: str, count: int, members: Mapping[str, Any], before: int | None) -> int:
    """The version before the `count`th newest checkpoint of the namespace whose event has these members; 0 if all are needed."""
    async for commit in kept(store, session, types={CHECKPOINT}, newest_first=True, before=before):
        put = _put_in(commit, ns)
        if put is not None and not put.get("again") and all(put.get(name) == value for name, value in members.items()):
            count -= 1
            if not count:
                return commit.version - 1
    return 0


def _parts(state: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The newest checkpoints of a document, by namespace."""
    if "checkpoint" in state:
        yield "", state
    for part in state.get("subgraphs", {}).values():
        yield part.get("ns", ""), part


def _add_checkpoint(found: list[StoredCheckpoint], entry: StoredCheckpoint, *, again: bool) -> None:
    """Add a checkpoint. One that was put again keeps its place in the order."""
    if again:
        for index, other in enumerate(found):
            if (other.ns, other.id) == (entry.ns, entry.id):
                found[index] = entry._replace(version=other.version)
                return
    found.append(entry)


def _slot(session: str, version: int, state: Mapping[str, Any], ns: str) -> Mapping[str, Any]:
    found = slot(state, ns)
    if found is None:
        raise Corrupt(f"Version {version} of session {session!r} puts a checkpoint that the state does not hold.", session=session)
    return found


def _put_in(commit: Commit, ns: str) -> Mapping[str, Any] | None:
    """The data of the event that put a checkpoint in this namespace, if the commit has one."""
    for event in commit.events:
        if event.type == CHECKPOINT and (event.data or {}).get("ns", "") == ns:
            return event.data or {}
    return None


def _collect(writes: dict[tuple[str, str], Tasks], state: Mapping[str, Any]) -> None:
    """Add the writes that the document holds now: a later put removes them from it."""
    for ns, checkpoints in state.get("writes", {}).items():
        for id, tasks in checkpoints.items():
            held = writes.get((ns, id))
            if held is None:
                writes[ns, id] = tasks
            elif held is not tasks:
                merged: dict[str, Any] = dict(held)
                _add(merged, tasks)
                writes[ns, id] = merged


def _add(tasks: dict[str, Any], more: Tasks) -> None:
    """Add later writes of the same tasks: a node's first output counts; errors and interrupts (indices below 0) are replaced."""
    for task, entries in more.items():
        held = tasks.get(task, {})
        tasks[task] = held | {index: entry for index, entry in entries.items() if index not in held or index.startswith("-")}
