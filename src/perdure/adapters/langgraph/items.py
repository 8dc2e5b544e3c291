"""Items of LangGraph's store: how a session stores a namespace, and which items a query chooses.

A namespace is one session, `langgraph-store/users.42`, whose document holds its items:

    {"langgraph_store": 1, "items": {key: {"value": …, "created": …, "updated": …, "ttl": minutes, "expires": …, "vectors": […]}}}

Times are RFC 3339 in UTC. Vectors are 64-bit floats, little-endian, in base64.
"""

from __future__ import annotations

import base64
import math
import operator
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from langgraph.store.base import MatchCondition

from perdure.errors import Invalid, Unsupported
from perdure.model.ids import check_name

LAYOUT = 1
"""The version of the layout that this adapter writes, and the newest that it reads."""
PREFIX = "langgraph-store/"
"""What the ids of namespaces' sessions begin with."""
Namespace = tuple[str, ...]


def session_of(namespace: Namespace) -> str:
    """The session that keeps a namespace. Labels hold no periods; what a session's id may not hold is percent-encoded."""
    return check_name("A namespace", PREFIX + ".".join(map(_escaped, namespace)))


def namespace_of(session: str) -> Namespace:
    """The namespace that a session keeps."""
    return tuple(re.sub(r"%([0-9a-f]+);", lambda found: chr(int(found[1], 16)), part) for part in session.removeprefix(PREFIX).split("."))


def _escaped(label: str) -> str:
    return "".join([char if char.isprintable() and char != "%" else f"%{ord(char):x};" for char in label])


def check_layout(state: Mapping[str, Any], session: str) -> None:
    """Raise `Invalid` unless the document is a namespace's, `Unsupported` if a newer adapter wrote it."""
    layout = state.get("langgraph_store")
    if type(layout) is not int:
        raise Invalid(f"Session {session!r} is no namespace of a LangGraph store: something else wrote it.", session=session)
    if layout > LAYOUT:
        raise Unsupported(
            f"Session {session!r} was written by a newer adapter (layout {layout}; this one knows {LAYOUT}): upgrade perdure."
        )


def current(state: Mapping[str, Any], now: datetime) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The items that have not expired."""
    for key, item in state.get("items", {}).items():
        if not is_expired(item, now):
            yield key, item


def is_expired(item: Mapping[str, Any], now: datetime) -> bool:
    """Whether an item has expired."""
    return "expires" in item and datetime.fromisoformat(item["expires"]) <= now


def expiry(minutes: float, now: datetime) -> str:
    """When an item expires that is put, or read, now. Raises `Invalid` for a time beyond the calendar."""
    try:
        return (now + timedelta(minutes=minutes)).isoformat()
    except OverflowError:
        raise Invalid(
            f"A ttl of {minutes:g} minutes ends after the last year of the calendar: use None for an item that does not expire."
        ) from None


def matches(namespace: Namespace, conditions: Sequence[MatchCondition]) -> bool:
    """Whether a namespace begins, or ends, as each condition says; "*" stands for any one label."""
    for condition in conditions:
        path = tuple(condition.path)
        if len(path) > len(namespace):
            return False
        part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
        if any(wanted not in ("*", label) for wanted, label in zip(path, part, strict=True)):
            return False
    return True


def pack_vectors(vectors: Sequence[Sequence[float]]) -> list[str]:
    """Vectors as they are stored."""
    return [base64.b64encode(array("d", vector).tobytes()).decode() for vector in vectors]


def similarity(item: Mapping[str, Any], query: Sequence[float]) -> float | None:
    """The largest cosine between the query and one of the item's vectors; `None` for an item without."""
    best: float | None = None
    for packed in item.get("vectors", ()):
        vector = array("d", base64.b64decode(packed))
        norm = math.hypot(*vector) * math.hypot(*query)
        score = sum(map(operator.mul, vector, query)) / norm if norm else 0.0
        best = score if best is None else max(best, score)
    return best
