"""Conversion between LangGraph's checkpoint tuples and the parts of the document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import WRITES_IDX_MAP, Checkpoint, CheckpointTuple, PendingWrite, get_checkpoint_metadata
from langgraph.checkpoint.serde.types import ERROR

from perdure.adapters.langgraph.history import Tasks
from perdure.adapters.langgraph.threads import Place
from perdure.adapters.langgraph.values import Codec
from perdure.errors import Invalid

_PARTS = frozenset({"id", "channel_values", "channel_versions", "versions_seen"})


def encode_checkpoint(codec: Codec, config: RunnableConfig, parent: str | None, checkpoint: Checkpoint, metadata: Any) -> dict[str, Any]:
    """A checkpoint as the document holds it. Raises `Invalid`, naming the channel or field, for what cannot be stored."""
    id = checkpoint.get("id")
    if not isinstance(id, str) or not id:
        raise Invalid(f"A checkpoint's id must be a non-empty string, not {id!r:.60}.")
    head: dict[str, Any] = {"id": id}
    if parent is not None:
        head["parent"] = parent
    for name, value in checkpoint.items():
        if name not in _PARTS and not (name == "updated_channels" and value is None):
            head[name] = codec.plain(value, f"The checkpoint's {name!r}")
    whole = get_checkpoint_metadata(config, metadata)
    head["metadata"] = {name: codec.plain(value, f"The metadata's {name!r}") for name, value in whole.items()}
    return {
        "checkpoint": head,
        "versions": codec.plain(dict(checkpoint.get("channel_versions", {})), "channel_versions"),
        "seen": codec.plain({node: dict(seen) for node, seen in checkpoint.get("versions_seen", {}).items()}, "versions_seen"),
        "values": {channel: codec.encode(value, f"Channel {channel!r}") for channel, value in checkpoint.get("channel_values", {}).items()},
    }


def decode_checkpoint(
    codec: Codec,
    here: Place,
    slot: Mapping[str, Any],
    tasks: Tasks,
    *,
    given: Callable[[str], str] = str,
    shared: dict[int, Any] | None = None,
) -> CheckpointTuple:
    """The tuple of a checkpoint. `given` makes the ids in its configs; `shared`: see `Codec.decode`."""
    head = slot["checkpoint"]
    checkpoint = {name: codec.decode(value) for name, value in head.items() if name not in ("parent", "metadata")}
    checkpoint.setdefault("updated_channels", None)
    checkpoint["channel_values"] = {channel: codec.decode(value, shared) for channel, value in slot["values"].items()}
    checkpoint["channel_versions"] = codec.decode(slot["versions"])
    checkpoint["versions_seen"] = codec.decode(slot["seen"])
    parent = head.get("parent")
    return CheckpointTuple(
        config=here.config(given(head["id"])),
        checkpoint=checkpoint,  # type: ignore[arg-type]
        metadata=decode_metadata(codec, slot),
        parent_config=None if parent is None else here.config(given(parent)),
        pending_writes=decode_writes(codec, tasks, shared),
    )


def decode_metadata(codec: Codec, slot: Mapping[str, Any]) -> Any:
    """A checkpoint's metadata."""
    return codec.decode(slot["checkpoint"]["metadata"])


def encode_writes(codec: Codec, writes: Sequence[tuple[str, Any]], path: str) -> dict[str, Any]:
    """A task's writes by index: its place in the list, or the framework's own number for errors, interrupts and the like."""
    entries: dict[str, Any] = {"path": path} if path else {}
    for index, (channel, value) in enumerate(writes):
        kept = repr(value) if channel == ERROR and isinstance(value, BaseException) else value  # the framework keeps an exception's text
        entries[str(WRITES_IDX_MAP.get(channel, index))] = [channel, codec.encode(kept, f"A write to {channel!r}")]
    return entries


def replaces(writes: Sequence[tuple[str, Any]]) -> bool:
    """Whether these writes replace earlier ones: errors, interrupts and the like do, a node's output is stored once."""
    return all(channel in WRITES_IDX_MAP for channel, _ in writes)


def decode_writes(codec: Codec, tasks: Tasks, shared: dict[int, Any] | None = None, channel: str | None = None) -> list[PendingWrite]:
    """The writes in the framework's order: by the task's path, its id, the write's index. `channel` chooses one channel's."""
    found = [
        ((entries.get("path", ""), task, int(index)), entry)
        for task, entries in tasks.items()
        for index, entry in entries.items()
        if index != "path" and channel in (None, entry[0])
    ]
    found.sort(key=lambda pair: pair[0])
    return [(task, entry[0], codec.decode(entry[1], shared)) for (_, task, _), entry in found]
