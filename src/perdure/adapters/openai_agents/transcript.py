"""A conversation as events of the log: each item is an event without operations, and what removes items is an event too.

    message, tool_call, tool_result, reasoning, item   an item, as the SDK made it
    popped      {"version", "index"}                    the item at that place is removed from the end
    cleared     null                                    all that came before
    compacted   {"from", "until"}                       items from the place `from` on (and up to `until`) give way to those after
                                                        it in this commit
    items_added {"versions": [7, 8]}                    items that one commit cannot hold: those of the parts at these versions
    items_part  {"text"}                                a part of the JSON of such items; no reader sees them without `items_added`

An item's place is [version, index of its event in the commit]. It is the same after a retry, in a fork and for a reader that is late.
`items_added` is its commit's last event, and the items that it stands for are numbered from its index on.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from perdure.adapters.common.surrogates import escape, unescape
from perdure.model.commit import Commit
from perdure.model.events import Event

POPPED, CLEARED, COMPACTED = "popped", "cleared", "compacted"
ITEMS, PART = "items_added", "items_part"
TYPES = frozenset({"message", "tool_call", "tool_result", "reasoning", "item"})
Place = tuple[int, int]
Fetch = Callable[[Event], Awaitable[list[dict[str, Any]]]]
"""Reads the items that an event `items_added` stands for."""
_END: Place = (1 << 62, 0)
_START: Place = (0, 0)


class Entry(NamedTuple):
    """An item and its place. The item is shared: copy it before anyone may change it."""

    place: Place
    item: dict[str, Any]


def event(item: Mapping[str, Any]) -> Event:
    """The event of an item."""
    return Event(_type(item), escape(item))


def _type(item: Mapping[str, Any]) -> str:
    match item.get("type", "message" if "role" in item else None):
        case "message":
            return "message"
        case "reasoning":
            return "reasoning"
        case str() as kind if kind.endswith(("_call_output", "_response")):
            return "tool_result"
        case str() as kind if kind.endswith(("_call", "_request")):
            return "tool_call"
    return "item"


def popped(entry: Entry) -> Event:
    """The event that takes the last item away."""
    return Event(POPPED, {"version": entry.place[0], "index": entry.place[1]})


def compacted(first: Entry, until: Entry | None) -> Event:
    """The event by which items from `first` on, and up to `until`, give way to others."""
    data: dict[str, Any] = {"from": list(first.place)}
    return Event(COMPACTED, data if until is None else data | {"until": list(until.place)})


def removes_items(commit: Commit) -> bool:
    """Whether the commit removes items that were there before it."""
    return any(logged.type in {POPPED, CLEARED, COMPACTED} for logged in commit.events)


async def forward(entries: list[Entry], commit: Commit, fetch: Fetch) -> list[Entry]:
    """The items after a commit, given those before it."""
    added: list[Entry] = []
    for index, logged in enumerate(commit.events):
        if is_item(logged):
            added.append(Entry((commit.version, index), unescape(logged.data)))
        elif is_items(logged):
            added += _numbered(commit.version, index, await fetch(logged))
        elif logged.type == CLEARED:
            entries, added = [], []
        elif logged.type == POPPED and _has(logged, "version", "index"):
            place = (logged.data["version"], logged.data["index"])
            entries = entries[:-1] if entries and entries[-1].place == place else [entry for entry in entries if entry.place != place]
        elif logged.type == COMPACTED and _has(logged, "from"):
            first, last = _span(logged)
            entries = [entry for entry in entries if last < entry.place < first]
    return [*entries, *added] if added else entries


async def newest(commits: AsyncIterable[Commit], count: int, fetch: Fetch) -> tuple[int, list[Entry]]:
    """The newest `count` items, oldest first, of commits that come newest first, and the version of the first of these.

    Reads no further than it must.
    """
    version = 0
    found: list[Entry] = []
    gone: set[Place] = set()
    end, start = _END, _START
    async for commit in commits:
        version = version or commit.version
        for index, logged in reversed(list(enumerate(commit.events))):
            if is_item(logged):
                entries = [Entry((commit.version, index), unescape(logged.data))]
            else:
                entries = _numbered(commit.version, index, await fetch(logged)) if is_items(logged) else []
            found += [entry for entry in reversed(entries) if start < entry.place < end and entry.place not in gone]
            if logged.type == CLEARED:
                return version, found[:count][::-1]
            if logged.type == POPPED and _has(logged, "version", "index"):
                gone.add((logged.data["version"], logged.data["index"]))
            elif logged.type == COMPACTED and _has(logged, "from"):
                first, last = _span(logged)
                end, start = min(end, first), max(start, last)
        if len(found) >= count:
            break
    return version, found[:count][::-1]


def items_at(versions: list[int]) -> Event:
    """The event by which the parts at these versions become items."""
    return Event(ITEMS, {"versions": versions})


def is_items(logged: Event) -> bool:
    """Whether an event stands for items that were written before it in parts."""
    return logged.type == ITEMS and _has(logged, "versions")


def _numbered(version: int, index: int, items: Sequence[dict[str, Any]]) -> list[Entry]:
    return [Entry((version, number), unescape(item)) for number, item in enumerate(items, index)]


def is_item(logged: Event) -> bool:
    """Whether an event is an item of the conversation, and not one that something else added."""
    return logged.type in TYPES and isinstance(logged.data, dict)


def _has(logged: Event, *names: str) -> bool:
    return isinstance(logged.data, dict) and all(name in logged.data for name in names)


def _span(logged: Event) -> tuple[Place, Place]:
    first, last = logged.data["from"], logged.data.get("until", _START)
    return (first[0], first[1]), (last[0], last[1])
