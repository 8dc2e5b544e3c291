"""What changed between two JSON texts, found by their bytes: parts with the same bytes are not parsed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from perdure.errors import Invalid
from perdure.lru import LruMap
from perdure.model import ops as op
from perdure.model.ops import Op
from perdure.model.pointer import join

CHANGED_MAX = 4
"""How many elements of a list may be changed in their places; if there are more it may be a window that slid."""
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_OBJECT, _LIST = msgspec.json.Decoder(dict[str, msgspec.Raw]), msgspec.json.Decoder(list[msgspec.Raw])


class _NeedsValueDiff(Exception):
    """Only a comparison of values finds this change."""


def dumps(value: Any) -> bytes:
    """JSON text as Strands writes its snapshots."""
    return _ENCODER.encode(value).encode()


def diff_json_text(old: bytes, new: bytes, path: Sequence[str]) -> list[Op] | None:
    """Operations that change the value at `path`, whose text is `old`, into the one whose text is `new`, down to the order of members.

    `None` if `dumps` would write `new` otherwise, or if only a comparison of values finds the change.
    """
    try:
        return list(_between(old, new, path))
    except (_NeedsValueDiff, Invalid, msgspec.DecodeError, ValueError, RecursionError):
        return None


def _between(old: bytes, new: bytes, path: Sequence[str]) -> Iterator[Op]:
    opening = old[:1], new[:1]
    if opening == (b"{", b"{"):
        yield from _members(old, new, path)
    elif opening == (b"[", b"["):
        yield from _elements(old, new, path)
    elif old != new:
        yield op.set(join(path), _value(new))


def _members(old: bytes, new: bytes, path: Sequence[str]) -> Iterator[Op]:
    before, after = _OBJECT.decode(old), _OBJECT.decode(new)
    if b"{%b}" % b", ".join([b"%b: %b" % (dumps(name), raw) for name, raw in after.items()]) != new:
        raise _NeedsValueDiff
    kept = [name for name in before if name in after]
    if list(after)[: len(kept)] != kept:
        raise _NeedsValueDiff
    for name in before:
        if name not in after:
            yield op.remove(join([*path, name]))
    for name, raw in after.items():
        if name not in before:
            yield op.set(join([*path, name]), _value(raw))
        elif before[name] != raw:
            yield from _between(bytes(before[name]), bytes(raw), [*path, name])


def _elements(old: bytes, new: bytes, path: Sequence[str]) -> Iterator[Op]:
    before, after = _LIST.decode(old), _LIST.decode(new)
    if b"[%b]" % b", ".join(after) != new:
        raise _NeedsValueDiff
    shorter = min(len(before), len(after))
    start = next((index for index in range(shorter) if before[index] != after[index]), shorter)
    end = next((index for index in range(shorter - start) if before[-1 - index] != after[-1 - index]), shorter - start)
    gone, came = before[start : len(before) - end], after[start : len(after) - end]
    if len(gone) == len(came) <= CHANGED_MAX:
        for index, (one, other) in enumerate(zip(gone, came, strict=True), start):
            yield from _between(bytes(one), bytes(other), [*path, str(index)])
    elif gone and came:
        raise _NeedsValueDiff
    elif start == len(before):
        yield op.append(join(path), [_value(raw) for raw in came])
    else:
        yield op.splice(join(path), start, len(gone), [_value(raw) for raw in came])


def _value(raw: bytes | msgspec.Raw) -> Any:
    value = msgspec.json.decode(raw)
    if dumps(value) != bytes(raw):
        raise _NeedsValueDiff
    return value


class RecentTexts:
    """The texts that were last written to sessions, as long as they are the newest; safe from any thread."""

    def __init__(self, bytes_max: int) -> None:
        self._held = LruMap[str, tuple[bytes, bytes]](bytes_max, lambda held: len(held[1]))
        self._lock = threading.Lock()

    def get(self, session: str, hash: bytes) -> bytes | None:
        """What was written by the commit with this hash, if it is remembered."""
        with self._lock:
            found = self._held.get(session)
        return found[1] if found is not None and found[0] == hash else None

    def put(self, session: str, hash: bytes, data: bytes) -> None:
        """Remember it, and forget what was not used for the longest time when it gets too much."""
        with self._lock:
            self._held.put(session, (hash, data))
