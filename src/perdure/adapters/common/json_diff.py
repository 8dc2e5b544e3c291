"""The difference of two JSON values from a framework, found by content: their containers are never the same objects."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.model.diff import diff
from perdure.model.ops import Op


def diff_json(old: Any, new: Any, path: str = "") -> list[Op]:
    """Operations that change `old`, which is the value at `path`, into `new`.

    Elements of lists are found wherever they moved to, so a window that slides, an insertion and an append cost what was added.
    """
    return diff(old, reuse_equal(old, new), path)


def reuse_equal(old: Any, new: Any) -> Any:
    """`new`, with the objects of `old` for elements of lists, where the list in the same place has equal ones: `diff` compares by identity.

    Elements are equal if their JSON texts are: members in the same order, `1` not `1.0`.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        return {key: reuse_equal(dict.get(old, key), value) for key, value in new.items()}
    if isinstance(old, list) and isinstance(new, list):
        held = {msgspec.json.encode(item): item for item in list.__iter__(old) if isinstance(item, (dict, list))}
        return [held.get(msgspec.json.encode(item), item) if isinstance(item, (dict, list)) else item for item in new]
    return new
