"""How a session stores a thread: one document with the newest checkpoint, one commit for each checkpoint that was put.

The writes that made a checkpoint are in its commit, before it, if they came with it; else in commits of their own.

    {"langgraph": 1,                                    the version of this layout
     "checkpoint": {id, parent, ts, metadata, …},       the newest checkpoint of the graph itself
     "values": {channel: value},                        … its channels
     "versions": {…}, "seen": {…}, "n": …,              … and their versions; n counts the puts
     "subgraphs": {node: {"ns": …, the same five}},     the newest checkpoint of each node that is a graph of its own
     "namespaces": {ns: id},                            newest checkpoints of other runs of such nodes
     "writes": {ns: {id: {task: {index: [channel, value], "path": …}}}},
     "late": {ns: {id: true}}, "removed": {ns: {id: true}}, "pruned": {"version": n, "kept": {ns: id}}, "life": …}

A put changes only what changed. A subgraph's namespace names the task that runs it (`node:task|inner:task`); its document is kept under
the nodes' names alone, so that the next run of the node is written as its difference from the last one, and the document stays small.
Older checkpoints are the document at an older version.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from perdure.errors import Invalid, Unsupported
from perdure.model.diff import diff
from perdure.model.events import Event
from perdure.model.ops import Op
from perdure.model.pointer import escape
from perdure.model.values import same

LAYOUT = 1
"""The version of the layout that this adapter writes, and the newest that it reads."""
CHECKPOINT, VALUES, WRITES, LATE = "checkpoint", "values", "writes", "late"
"""Types of events: a checkpoint, what it did to the channels, what tasks wrote on it, and the mark that they wrote late."""
BEGUN = "begun"
"""The type of the event that starts a thread which is held before it has a checkpoint."""
SECTIONS = ("checkpoint", "versions", "seen")
"""The parts of a checkpoint of which each step changes a little."""


def check_layout(state: Mapping[str, Any], session: str) -> None:
    """Raise `Invalid` unless the document is a thread's, `Unsupported` if a newer adapter wrote it."""
    layout = state.get("langgraph")
    if type(layout) is not int:
        raise Invalid(f"Session {session!r} is not a LangGraph thread: something else wrote it.", session=session)
    if layout > LAYOUT:
        raise Unsupported(
            f"Session {session!r} was written by a newer adapter (layout {layout}; this one knows {LAYOUT}): upgrade perdure."
        )


def begun_event(life: str | None) -> Event:
    """The start of a thread without a checkpoint. `life` as in `put_events`."""
    root: dict[str, Any] = {"langgraph": LAYOUT}
    if life is not None:
        root["life"] = life
    return Event(BEGUN, None, (Op("merge", "", root),))


def slot_of(ns: str) -> str:
    """The nodes that a namespace leads through, without the tasks."""
    return "|".join(part.partition(":")[0] for part in ns.split("|"))


def slot(state: Mapping[str, Any], ns: str) -> Mapping[str, Any] | None:
    """The part of the document that holds a namespace's checkpoint, of whichever run it is."""
    found = state if not ns else state.get("subgraphs", {}).get(slot_of(ns))
    return found if found is not None and "checkpoint" in found else None


def namespaces_of(state: Mapping[str, Any]) -> list[str]:
    """The namespaces whose newest checkpoints the document names."""
    return [*(part.get("ns", "") for part in state.get("subgraphs", {}).values()), *state.get("namespaces", {})]


def newest_id(state: Mapping[str, Any], ns: str) -> str | None:
    """The id of the namespace's newest checkpoint."""
    found = slot(state, ns)
    if found is not None and found.get("ns", "") == ns:
        return str(found["checkpoint"]["id"])
    other: str | None = state.get("namespaces", {}).get(ns)
    return other


def current_checkpoint(state: Mapping[str, Any], ns: str, id: str) -> Mapping[str, Any] | None:
    """The namespace's checkpoint with this id, if it is the one in the document."""
    found = slot(state, ns)
    return found if found is not None and found.get("ns", "") == ns and found["checkpoint"]["id"] == id else None


def checkpoint_key(state: Mapping[str, Any], ns: str, id: str) -> str:
    """The idempotency key of a checkpoint: short and valid, whatever characters the ids have."""
    text = "\0".join([str(state.get("life", "")), ns, id])
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:15]).decode()


def count_after(state: Mapping[str, Any], ns: str, id: str) -> int:
    """The count of a checkpoint that is put on this document."""
    found = slot(state, ns)
    return int(found["n"]) + 1 if found is not None else zlib.crc32(id.encode("utf-8", "surrogatepass")) % 1_000_000


def put_events(state: Mapping[str, Any], ns: str, new: dict[str, Any], life: str | None) -> tuple[Event, ...]:
    """The commit that makes `new` (checkpoint, values, versions, seen) the namespace's newest checkpoint; none if it is that already.

    It fits the checkpoint that `state` holds there and no other: its first operation tests that (see `is_guarded`). `life` marks the first
    commit of a thread that was deleted before.
    """
    base = "" if not ns else f"/subgraphs/{escape(slot_of(ns))}"
    old: Mapping[str, Any] = slot(state, ns) or {}
    id = new["checkpoint"]["id"]
    patch: dict[str, Any] = {}
    ops: list[Op] = []
    for name in SECTIONS:
        changed = merge_patch(old.get(name, {}), new[name])
        if changed is None:
            ops += diff(old[name], new[name], f"{base}/{name}") if name in old else [Op("set", f"{base}/{name}", new[name])]
        elif changed or name not in old:
            patch[name] = changed
    values = diff(old["values"], new["values"], f"{base}/values") if "values" in old else [Op("set", f"{base}/values", new["values"])]
    if not (patch or ops or values) and old.get("ns", "") == ns:
        return ()
    if ns and old.get("ns") != ns:
        patch["ns"] = ns
    # The count begins at an arbitrary number, so that a thread that was deleted and begun again is not taken for the old one.
    patch["n"] = count_after(state, ns, id)
    guard = [Op("test", f"{base}/n", old["n"])] if old else []
    root: dict[str, Any] = {"subgraphs": {slot_of(ns): patch}} if ns else patch
    if "langgraph" not in state:
        root["langgraph"] = LAYOUT
    if life is not None:
        root["life"] = life
    namespaces: dict[str, Any] = {}
    if ns and old and old["ns"] != ns:
        namespaces[old["ns"]] = old["checkpoint"]["id"]
        if ns in state.get("namespaces", {}):
            namespaces[ns] = None
    if namespaces:
        root["namespaces"] = namespaces
    # Writes on a later checkpoint came before it: they stay until it is put. Ids rise, except between two clocks.
    replaced = old["checkpoint"]["id"] if old.get("ns", "") == ns and old else None
    if dropped := [other for other in state.get("writes", {}).get(ns, {}) if other < id or other == replaced != id]:
        root["writes"] = {ns: dict.fromkeys(dropped)}
    return _events(ns, new, patch.get("seen", {}), [*guard, Op("merge", "", root), *ops], values)


def _events(ns: str, new: dict[str, Any], seen: dict[str, Any], ops: list[Op], values: list[Op]) -> tuple[Event, ...]:
    metadata = new["checkpoint"]["metadata"]
    data = {name: metadata[name] for name in ("step", "source") if name in metadata}
    if ns:
        data["ns"] = ns
    if nodes := sorted(name for name in seen if seen[name] and not name.startswith("__")):
        data["nodes"] = nodes
    checkpoint = Event(CHECKPOINT, data, tuple(ops))
    return (checkpoint, Event(VALUES, None, tuple(values))) if values else (checkpoint,)


def is_guarded(events: Sequence[Event]) -> bool:
    """Whether a commit of `put_events` tests that it fits. Then it may be applied to any later state, for only writes came between."""
    return events[0].ops[0].kind == "test"


def merge_patch(old: Any, new: dict[str, Any]) -> dict[str, Any] | None:
    """The RFC 7396 patch that makes `old` into `new`, or `None` if there is none: such a patch cannot set null."""
    old = old if isinstance(old, dict) else {}
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        held = old.get(name)
        if name in old and same(held, value):
            continue
        if value is None:
            return None
        if isinstance(value, dict):
            inner = merge_patch(held, value)
            if inner is None:
                return None
            patch[name] = inner
        else:
            patch[name] = value
    return patch


def write_events(
    state: Mapping[str, Any], ns: str, id: str, task: str, writes: dict[str, Any], *, life: str | None, late: bool
) -> tuple[Event, ...]:
    """The commit that adds a task's writes to a checkpoint. `late`: the search for writes would end before them."""
    root: dict[str, Any] = {"writes": {ns: {id: {task: writes}}}}
    if "langgraph" not in state:
        root["langgraph"] = LAYOUT
    if life is not None:
        root["life"] = life
    if late:
        root["late"] = {ns: {id: True}}
    return (Event(WRITES, None, (Op("merge", "", root),)),)
