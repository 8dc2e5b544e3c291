"""Where a page of a history ends: what came before a checkpoint, by the chain. Ids only follow the clocks of their writers."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from perdure.adapters.common.kept import kept
from perdure.adapters.langgraph.history import StoredCheckpoint, find_version_in
from perdure.adapters.langgraph.layout import CHECKPOINT, checkpoint_key, namespaces_of
from perdure.engine.store import Store


class Bound(NamedTuple):
    """The checkpoint before which a page ends: its namespace and the version at which it was put, `None` if the thread does not have it.

    `later`: the keys of the checkpoints that were put from that version on.
    """

    id: str
    ns: str | None
    version: int
    later: AbstractSet[str | None]

    def is_after(self, state: Mapping[str, Any], entry: StoredCheckpoint) -> bool:
        """Whether a checkpoint comes before this one.

        One of another namespace names the checkpoint that it ran under: a subgraph's first checkpoint may be stored before that of the
        graph, which is stored in the background. One that is not in the thread is compared by its id, as the framework does.
        """
        if self.ns is None:
            return entry.id < self.id
        parents = entry.slot["checkpoint"]["metadata"].get("parents")
        parent = parents.get(self.ns) if entry.ns != self.ns and isinstance(parents, dict) else None
        if isinstance(parent, str):
            return checkpoint_key(state, self.ns, parent) not in self.later
        return entry.version < self.version


async def bound_of(store: Store, session: str, state: Mapping[str, Any], ns: str | None, before: Mapping[str, Any] | None) -> Bound | None:
    """The bound that a config sets to a listing of the namespace `ns`, or of all of them (`None`); `None` if it names no checkpoint.

    The config may name one of another namespace without the namespace: to find a subgraph's checkpoint, the engine asks with its parent's.
    The content of a config may come without `configurable`, as LangGraph's server passes on what its clients send.
    """
    named = (before or {}).get("configurable") or before or {}
    id = named.get("checkpoint_id")
    if id is None:
        return None
    path = (ns or "").split("|")
    enclosing = ["|".join(path[:depth]) for depth in range(len(path), -1, -1)]
    asked = [named["checkpoint_ns"]] if named.get("checkpoint_ns") else []
    place = await find_version_in(store, session, state, [*asked, *enclosing, *namespaces_of(state)], id)
    if place is None:
        return Bound(id, None, 0, frozenset())
    later: AbstractSet[str | None] = frozenset()
    if place[0] != ns:
        later = {commit.key async for commit in kept(store, session, after=place[1] - 1, types={CHECKPOINT})}
    return Bound(id, *place, later)
