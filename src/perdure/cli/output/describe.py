"""A commit in the words of a person: who said what, which tool, which step; for what nobody knows, the data or the operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from perdure.cli.output import graph
from perdure.cli.output.rows import CommitRow, EventRow, OpRow
from perdure.cli.output.shapes import Line, any_event, fields, operations, put, speeches, words
from perdure.cli.output.speech import compact, part_of, spoken
from perdure.cli.output.text import one_line

WIDTH = 200
"""Characters of a line at most; the terminal cuts it further."""


def describe(row: CommitRow) -> list[Line]:
    """What a commit says, a line for each thing; at least one."""
    kinds = {event.type for event in row.events}
    lines: list[Line] = []
    for event in row.events:
        if event.type == "writes" and "checkpoint" in kinds:
            continue  # the checkpoint shows what became of them
        lines += _KNOWN.get(event.type, any_event)(event)
    shown = [Line(one_line(line.label, 60), one_line(line.text, WIDTH)) for line in lines]
    return shown or [Line(", ".join(event.type for event in row.events) or row.kind, "")]


def _member(event: EventRow, *names: str) -> list[Any]:
    return [event.data.get(name) if isinstance(event.data, dict) else None for name in names]


def _pinned(event: EventRow) -> list[Line]:
    fork, version = _member(event, "fork", "version")
    if fork is None:
        return any_event(event)
    return [Line("forked", f"{fork} goes on from version {version}")]


def _forked(event: EventRow) -> list[Line]:
    parent, version = _member(event, "session", "version")
    if parent is None:
        return any_event(event)
    return [Line("fork", f"goes on from {parent} version {version}")]


def _merged_fork(event: EventRow) -> list[Line]:
    source, version = _member(event, "session", "version")
    if source is None:
        return any_event(event)
    return [Line("merged", f"{source} version {version}"), *([Line("values", operations(event.ops))] if event.ops else [])]


def _configured(event: EventRow) -> list[Line]:
    (tags,) = _member(event, "tags")
    if not isinstance(tags, dict):
        return any_event(event)
    return [Line("tags", ", ".join(f"{name}={value}" for name, value in tags.items()) or "none")]


def _archive(event: EventRow) -> list[Line]:
    """What happened between a session and its archive."""
    (control,) = _member(event, "control")
    anchor, preparing = (control.get(name) if isinstance(control, dict) else None for name in ("anchor", "preparing"))
    match event.type:
        case "preparing" if isinstance(preparing, dict):
            return [Line("archive", f"versions {preparing.get('first')} to {preparing.get('last')} are about to move")]
        case "voided" if isinstance(control, dict):
            return [Line("archive", "the move was given up")]
        case "compacted" if isinstance(anchor, dict):
            what = "moved to the archive" if anchor.get("segment") else "dropped"
            return [Line("archive", f"versions up to {anchor.get('version')} were {what}")]
        case "archived" if isinstance(anchor, dict):
            return [Line("archived", f"all {anchor.get('version')} versions so far")]
        case "restored" if event.data is None and not event.ops:
            return [Line("restored", "the session is live again")]
    return any_event(event)


def _leased(event: EventRow) -> list[Line]:
    """A commit of a lease; a caller's own event of that name has no such sections."""
    sections, owner = _member(event, "control", "owner")
    if not isinstance(sections, dict):
        return [Line(event.type, f"by {owner}")] if event.type == "challenged" and isinstance(owner, str) else any_event(event)
    lease = sections.get("lease")
    if not isinstance(lease, dict):
        return [Line(event.type, "free again")] if "life" in sections else any_event(event)
    return [Line(event.type, f"by {lease.get('owner')}, token {lease.get('grant')}, ttl {lease.get('ttl')} s")]


def _popped(event: EventRow) -> list[Line]:
    version, index = _member(event, "version", "index")
    return any_event(event) if index is None else [Line("popped", f"the message of version {version}")]


def _cleared(event: EventRow) -> list[Line]:
    return any_event(event) if event.data is not None or event.ops else [Line("cleared", "all messages so far")]


def _compacted(event: EventRow) -> list[Line]:
    start, until, control = _member(event, "from", "until", "control")
    if control is not None:
        return _archive(event)
    if not isinstance(start, list) or not start:
        return any_event(event)
    ends = f" to {until[0]}" if isinstance(until, list) and until else " on"
    return [Line("compacted", f"the messages from version {start[0]}{ends}")]


def _items(event: EventRow) -> list[Line]:
    """What was put into a store of items, and what was taken out."""
    (deleted,) = _member(event, "deleted")
    lines = [
        Line("put", f"{op.path.removeprefix('/items/')} = {compact(op.value.get('value'))}")
        for op in event.ops
        if op.op == "set" and op.path.startswith("/items/") and isinstance(op.value, dict)
    ]
    if isinstance(deleted, list):
        lines.append(Line("deleted", ", ".join(map(str, deleted))))
    return lines or any_event(event)


def _step(event: EventRow) -> list[Line]:
    """A step of a run."""
    tool, step, state, agent = _member(event, "tool_name", "step_index", "state", "agent_name")
    if step is None:
        return any_event(event)
    state = state if state != "complete" else None
    parts = [tool, f"step {step}" if step else agent, state, *_member(event, "error")]
    return [Line(words(event.type), ", ".join(str(word) for word in parts if word))]


def _entry(event: EventRow) -> list[Line]:
    """A line of a transcript that is no message."""
    kind, summary, content = _member(event, "type", "summary", "content")
    if not isinstance(kind, str) or not isinstance(event.data, dict):
        return any_event(event)
    text = next((text for text in (summary, content) if isinstance(text, str)), None)
    return [Line(kind, text or fields({name: value for name, value in event.data.items() if name != "type"}))]


def _agent(event: EventRow) -> list[Line]:
    """What changed in an agent, but for the time at which it did."""
    (agent,) = _member(event, "agent")
    if not isinstance(agent, str):
        return any_event(event)
    place = f"/agents/{agent}/agent"
    changed = [OpRow(op.op, op.path.removeprefix(place), op.value) for op in event.ops if not op.path.endswith("/updated_at")]
    changes = operations(changed) if all(op.path for op in changed) else ""
    return [Line(words(event.type), f"{agent}: {changes}" if changes else agent)]


def _effect(event: EventRow) -> list[Line]:
    tool, status = _member(event, "tool_name", "status")
    return [Line(f"tool {tool}", str(status))] if tool and status else any_event(event)


def _registered(event: EventRow) -> list[Line]:
    run = next((op.value for op in event.ops if op.path == "/run" and isinstance(op.value, dict)), {})
    names = {name: run.get(f"{name}_{end}") for name, end in (("agent", "name"), ("conversation", "id"))}
    return [Line(words(event.type), fields(names) or operations(event.ops))]


def _artifact(event: EventRow) -> list[Line]:
    (part,) = _member(event, "part")
    return [Line(words(event.type), spoken(part_of(part)))] if part is not None else any_event(event)


def _written(event: EventRow) -> list[Line]:
    return speeches(put(event)) or any_event(EventRow(event.type, event.data, []))


_KNOWN: dict[str, Callable[[EventRow], list[Line]]] = {
    "checkpoint": graph.checkpoint,
    "values": graph.values,
    "writes": graph.writes,
    "pinned": _pinned,
    "forked": _forked,
    "merged": _merged_fork,
    "configured": _configured,
    **dict.fromkeys(("preparing", "voided", "archived", "restored"), _archive),
    **dict.fromkeys(("leased", "challenged", "released", "broken"), _leased),
    "popped": _popped,
    "cleared": _cleared,
    "compacted": _compacted,
    "written": _written,
    "entry": _entry,
    "agent_created": lambda event: _agent(msgspec.structs.replace(event, ops=[])),
    "agent_updated": _agent,
    "items": _items,
    "state_shared": lambda event: [Line(words(event.type), operations(event.ops))],
    "artifact_saved": _artifact,
    "run_registered": _registered,
    "snapshot": _step,
    "tool_effect": _effect,
    **dict.fromkeys(
        (f"{what}_{how}" for what in ("run", "model_request", "tool_call") for how in ("started", "completed", "failed")), _step
    ),
}
"""Events of the store and of the adapters that say more than their members do. A caller's own event of that name is shown by its shape."""
