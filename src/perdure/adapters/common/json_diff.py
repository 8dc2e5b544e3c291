"""The difference of two JSON values that come from a framework, whose containers are never the same objects: found by content."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.model.diff import diff
from perdure.model.ops import Op


def diff_json(old: Any, new: Any, path: str = "") -> list[Op]:
    """Operations that make `old`, standing at `path`, into `new`.

    Elements of lists are recognised wherever they moved to, so a window that slides, an insertion and an append cost what came in.
    """
    return diff(old, reuse_equal(old, new), path)


def reuse_equal(old: Any, new: Any) -> Any:
    """`new`, with elements of lists that the list in the same place of `old` holds too replaced by those: `diff` follows identity.

    An element is the same only if it is spelled alike: members in the same order, `1` not `1.0`.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        return {key: reuse_equal(dict.get(old, key), value) for key, value in new.items()}
    if isinstance(old, list) and isinstance(new, list):
        held = {msgspec.json.encode(item): item for item in list.__iter__(old) if isinstance(item, (dict, list))}
        return [held.get(msgspec.json.encode(item), item) if isinstance(item, (dict, list)) else item for item in new]
    return new
