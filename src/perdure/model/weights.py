"""Where the bytes of a value are: how much each part of it takes, written as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.model.pointer import escape

_encode = msgspec.json.encode
LARGE_SHARE = 0.5
"""The heaviest path goes down while one member has more than this part of its container."""


class Weight(msgspec.Struct, frozen=True):
    """A part of a value: its JSON Pointer, its bytes as JSON, and how many members it has (`None`: it is no container)."""

    path: str
    bytes: int
    members: int | None


def weigh(value: Any) -> int:
    """The bytes of a value as JSON. Time is linear in what it holds."""
    return len(_encode(value))


def heaviest_path(value: Any) -> Weight:
    """The deepest part that has most of what its container has: each container on the way has one member that outweighs all others.

    Each level is weighed once, so time is linear in the value times the depth of that path.
    """
    found = Weight("", weigh(value), _members(value))
    while found.members:
        part, inner = max(((part, member) for part, member in _parts(value)), key=lambda each: weigh(each[1]))
        size = weigh(inner)
        if size <= LARGE_SHARE * found.bytes:
            break
        found, value = Weight(f"{found.path}/{part}", size, _members(inner)), inner
    return found


def heavy_parts(value: Any, *, least: float, limit: int) -> list[Weight]:
    """The parts with at least the share `least` of the whole, heaviest first and each after its container: `limit` at most.

    A list of members that are each light is one part, whatever it holds.
    """
    whole = Weight("", weigh(value), _members(value))
    found: list[Weight] = []
    waiting = [(whole, value)]
    while waiting and len(found) < limit:
        weight, inner = max(waiting, key=lambda each: each[0].bytes)
        waiting.remove((weight, inner))
        found.append(weight)
        for part, member in _parts(inner):
            size = weigh(member)
            if size >= least * whole.bytes:
                waiting.append((Weight(f"{weight.path}/{part}", size, _members(member)), member))
    return found


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(escape(key), member) for key, member in value.items()]
    return [(str(index), member) for index, member in enumerate(value)] if isinstance(value, list) else []


def _members(value: Any) -> int | None:
    return len(value) if isinstance(value, (dict, list)) else None
