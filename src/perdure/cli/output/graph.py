"""The commits of a graph's thread or a workflow in the words of a person: the step, the nodes, what they said and set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from perdure.cli.output.rows import EventRow, OpRow
from perdure.cli.output.shapes import SHOWN, Line, any_event, fields, found_messages, operations, put, speeches
from perdure.cli.output.speech import compact

_CHANNEL = re.compile(r"(?:/subgraphs/[^/]+)?/values/(.+)")
_HIDDEN = re.compile(r"__|branch:")
"""Channels with which a graph's steps work, and in which nothing is said."""
_SILENT = frozenset({"__no_writes__", "__return__", "__scheduled__"})


def checkpoint(event: EventRow) -> list[Line]:
    """A step of a graph or a workflow."""
    data = event.data if isinstance(event.data, dict) else {}
    if "iteration_count" in data:
        return [Line("checkpoint", f"iteration {data['iteration_count']}"), *speeches(put(event))]
    if "step" not in data:
        return any_event(event)
    nodes, source = data.get("nodes"), data.get("source")
    where = [str(data["ns"]).split(":", 1)[0]] if data.get("ns") else []
    if source != "loop":
        where.append(str(source or ""))
    elif isinstance(nodes, list):
        where.append(", ".join(map(str, nodes)))
    return [Line(f"step {data['step']}", " / ".join(filter(None, where)) + (" (again)" if data.get("again") else ""))]


def values(event: EventRow) -> list[Line]:
    """What a step did to the channels: what was said, then the other values. Of a run's input: what came in."""
    if event.data is not None:
        return any_event(event)
    lines, set_ = [], []
    for op in event.ops:
        given = _input(op)
        if given is not None:
            lines += speeches(found_messages(given)) or [Line("input", fields(plain(given)))]
        elif said := speeches(put(EventRow("", None, [op]))):
            lines += said
        elif shown := _change(op):
            set_.append(shown)
    more = f"; and {len(set_) - SHOWN} more" if len(set_) > SHOWN else ""
    return [*lines, *([Line("values", "; ".join(set_[:SHOWN]) + more)] if set_ else [])]


def _input(op: OpRow) -> Any:
    """The input of a run, if this operation sets it."""
    if op.op == "set" and op.path.endswith("/values/__start__"):
        return op.value
    return op.value.get("__start__") if op.path.endswith("/values") and isinstance(op.value, dict) else None


def _change(op: OpRow) -> str:
    """What an operation does to a channel; "" for what no person asks about."""
    channel = _CHANNEL.fullmatch(op.path)
    if channel is None:
        return "" if op.op == "test" or op.value in ({}, None) else operations([op])
    name = channel[1]
    if _HIDDEN.match(name):
        return ""
    match op.op:
        case "set" | "init":
            return f"{name} = {compact(plain(op.value))}"
        case "append" | "union":
            return f"{name} += {compact(plain(op.value))}"
        case "remove":
            return f"{name} removed"
        case "splice" if isinstance(op.value, (list, tuple)) and len(op.value) == 3 and not op.value[2]:
            return f"{op.value[1]} of {name} removed"
        case _:
            return operations([OpRow(op.op, name, op.value)])


def writes(event: EventRow) -> list[Line]:
    """What tasks of a step wrote before the step was over."""
    if event.data is not None:
        return any_event(event)
    lines: list[Line] = []
    for task in _tasks(event):
        node = str(task.get("path") or "task").rsplit(",", 1)[-1].strip()
        node = "update" if node.isdecimal() else node
        entries = [entry for index, entry in task.items() if index != "path" and isinstance(entry, (list, tuple)) and len(entry) == 2]
        wrote = [line for channel, value in entries for line in _wrote(node, str(channel), value)]
        lines += wrote or [Line(node, "done")]
    return lines or any_event(event)


def _tasks(event: EventRow) -> Iterator[dict[str, Any]]:
    for op in event.ops:
        levels = [op.value] if op.op == "merge" and isinstance(op.value, dict) else []
        levels = [level["writes"] for level in levels if isinstance(level.get("writes"), dict)]
        for _ in range(2):
            levels = [inner for level in levels for inner in level.values() if isinstance(inner, dict)]
        for level in levels:
            yield from (task for task in level.values() if isinstance(task, dict))


def _wrote(node: str, channel: str, value: Any) -> list[Line]:
    if channel.startswith("branch:") or channel in _SILENT:
        return []
    value = plain(value)
    if channel.startswith("__"):
        shown = value if isinstance(value, str) else "; ".join(map(_inner, value if isinstance(value, list) else [value]))
        return [Line(channel.strip("_"), shown if node == "task" else f"{node}: {shown}")]
    return speeches(found_messages(value)) or [Line(node, f"{channel} = {compact(value)}")]


def _inner(value: Any) -> str:
    """An interrupt's question, or whatever else was written."""
    asked = value["value"] if isinstance(value, dict) and "value" in value else value
    return fields(asked) if isinstance(asked, dict) else asked if isinstance(asked, str) else compact(asked)


def plain(value: Any, depth: int = 0) -> Any:
    """A stored value without the wrapping that names its type."""
    if depth > 8:
        return value
    if isinstance(value, list):
        return [plain(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("$"), str) and isinstance(value.get("items"), list):
        return plain(value["items"], depth + 1)
    if isinstance(value.get("$"), str) and "ext" in value and "value" in value:
        return plain(value["value"], depth + 1)
    if isinstance(value.get("$"), str) and ":" in value["$"]:  # an object: what it holds
        held = value.get("fields", value.get("root", value.get("value", value.get("member"))))
        return plain(held, depth + 1)
    if value.get("$") == "remove":
        return f"remove {value.get('id')}"
    return {name: plain(item, depth + 1) for name, item in value.items()}
