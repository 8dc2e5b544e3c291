"""Reading threads: the newest checkpoint, one by its id, all of them, and what a delta channel was made of."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple

from perdure.adapters.common.transactions import read_or_none
from perdure.adapters.langgraph.history import FoldedRange, StoredCheckpoint, fold_range, is_removed, read_older, version_before
from perdure.adapters.langgraph.layout import check_layout, current_checkpoint, newest_id
from perdure.adapters.langgraph.memory import KnownVersions
from perdure.adapters.langgraph.paging import bound_of
from perdure.adapters.langgraph.threads import Place, session_of
from perdure.adapters.langgraph.tuples import decode_checkpoint, decode_metadata, decode_writes
from perdure.adapters.langgraph.values import Codec
from perdure.engine.store import Store
from perdure.errors import Invalid

_IN_EVENTS = frozenset({"step", "source"})
"""Metadata that a checkpoint's event repeats, so that it can be searched for without folding."""


async def get(store: Store, codec: Codec, seen: KnownVersions, here: Place) -> CheckpointTuple | None:
    """The checkpoint that `here` names, or `None`. The newest costs one read; an older one a look-up and a read at its version."""
    view = await read_or_none(store, here.session)
    if view is None:
        return None
    state = view.frozen_state
    check_layout(state, here.session)
    id = here.id or newest_id(state, here.ns)
    if id is None:
        return None
    found = current_checkpoint(state, here.ns, id)
    if found is not None:
        return decode_checkpoint(codec, here, found, state.get("writes", {}).get(here.ns, {}).get(id, {}), given=seen.at(view.version))
    older = await read_older(store, here.session, state, here.ns, id)
    if older is None:
        return None
    stored, tasks = older
    if id == newest_id(state, here.ns):
        tasks = {**tasks, **state.get("writes", {}).get(here.ns, {}).get(id, {})}
    return decode_checkpoint(codec, here, stored.slot, tasks, given=seen.at(view.version))


async def _require_all(store: Store, session: str) -> None:
    """Raise `Truncated` if the beginning of the thread was dropped."""
    async for _ in store.history(session, limit=1):
        return


class Listing:
    """Checkpoints that were found, newest first, made into tuples one by one. Tuples of one listing share their messages."""

    def __init__(
        self, codec: Codec, thread: str, checkpoints: Sequence[StoredCheckpoint], found: FoldedRange, given: Callable[[str], str] = str
    ) -> None:
        self.ids = [entry.id for entry in checkpoints]
        self._codec, self._thread, self._checkpoints, self._found, self._given = codec, thread, checkpoints, found, given
        self._shared: dict[int, Any] = {}

    def __iter__(self) -> Iterator[CheckpointTuple]:
        return map(self.make, range(len(self._checkpoints)))

    def make(self, index: int) -> CheckpointTuple:
        """One of them."""
        entry = self._checkpoints[index]
        here = Place(self._thread, entry.ns, None)
        tasks = self._found.tasks(entry.ns, entry.id)
        return decode_checkpoint(self._codec, here, entry.slot, tasks, given=self._given, shared=self._shared)


async def find(
    store: Store,
    codec: Codec,
    seen: KnownVersions,
    thread: str,
    *,
    ns: str | None,
    id: str | None,
    filter: Mapping[str, Any] | None,
    before: Mapping[str, Any] | None,
    limit: int | None,
) -> Listing:
    """A thread's checkpoints, newest first: of one namespace or (`None`) all, with this id, this metadata, put before the one of a config.

    The order is that of the chain, for ids follow the clocks of their writers. The range of the chain that holds them is folded once.
    """
    if limit is not None and (type(limit) is not int or limit < 0):
        raise Invalid(f"limit must be an integer from 0, not {limit!r}.")
    session = session_of(thread)
    view = await read_or_none(store, session)
    if view is None or limit == 0:
        return Listing(codec, thread, [], FoldedRange([], {}))
    state = view.frozen_state
    check_layout(state, session)
    after = 0
    wanted = dict(filter or {})
    bound = await bound_of(store, session, state, ns, before)
    simple = id is None and wanted.keys() <= _IN_EVENTS and not ("removed" in state or "pruned" in state)
    if simple and ns is not None and limit is not None and (bound is None or bound.ns == ns):
        after = await version_before(store, session, ns, limit, wanted, None if bound is None else bound.version)
    found = await fold_range(store, session, after=after, ns=ns, upto=view.version)
    chosen: deque[StoredCheckpoint] = deque(maxlen=limit)
    for entry in found.checkpoints:
        if id is not None and entry.id != id:
            continue
        if bound is not None and not bound.is_after(state, entry):
            continue
        if is_removed(state, entry.version, entry.ns, entry.id):
            continue
        if wanted:
            metadata = decode_metadata(codec, entry.slot)
            if any(metadata.get(name) != value for name, value in wanted.items()):
                continue
        chosen.append(entry)
    return Listing(codec, thread, list(chosen)[::-1], found, seen.at(view.version))


async def delta_history(store: Store, codec: Codec, here: Place, channels: Sequence[str]) -> dict[str, Any]:
    """For each channel the nearest ancestor's value and the writes from there on, oldest first, along the parents of the checkpoint.

    The chain is read backwards in growing ranges, until the channels' values are found. Ancestors that were deleted or pruned count, for
    what was written on them made the value. Raises `Truncated` where those that made it were dropped.
    """
    result: dict[str, Any] = {channel: {"writes": []} for channel in channels}
    view = await read_or_none(store, here.session) if channels else None
    if view is None:
        return result
    state = view.frozen_state
    check_layout(state, here.session)
    id = here.id or newest_id(state, here.ns)
    found = current_checkpoint(state, here.ns, id) if id is not None else None
    if id is not None and found is None:
        older = await read_older(store, here.session, state, here.ns, id)
        found = None if older is None else older[0].slot
    parent = None if found is None else found["checkpoint"].get("parent")
    writes: dict[str, list[list[Any]]] = {channel: [] for channel in channels}
    open_channels, width, after = set(channels), 64, view.version
    part = FoldedRange([], {})
    known: dict[str, StoredCheckpoint] = {}
    while parent is not None and open_channels:
        if parent not in known:
            if not after:
                await _require_all(store, here.session)
                break
            after, width = max(0, after - width), width * 2
            part = await fold_range(store, here.session, after=after, ns=here.ns, upto=view.version)
            known = {entry.id: entry for entry in part.checkpoints}
            continue
        slot, tasks = known[parent].slot, part.tasks(here.ns, parent)
        for channel in list(open_channels):
            writes[channel].append(decode_writes(codec, tasks, channel=channel))
            if channel in slot["values"]:
                result[channel]["seed"] = codec.decode(slot["values"][channel])
                open_channels.discard(channel)
        parent = slot["checkpoint"].get("parent")
    for channel in channels:
        result[channel]["writes"] = [write for step in reversed(writes[channel]) for write in step]
    return result
