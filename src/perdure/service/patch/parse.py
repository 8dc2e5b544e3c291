"""A JSON Patch document, checked before any state is looked at."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.errors import Invalid
from perdure.model.pointer import parse

OPERATIONS_MAX = 10_000
"""Most operations of a patch."""
_NEEDS = {
    "add": ("value",),
    "remove": (),
    "replace": ("value",),
    "move": ("from",),
    "copy": ("from",),
    "test": ("value",),
}


class Step(msgspec.Struct, frozen=True):
    """One operation of a patch."""

    op: str
    path: str
    value: Any = None
    source: str = ""
    """What `from` says."""


def parse_patch(document: Any) -> list[Step]:
    """The operations. Members that RFC 6902 does not know are passed over. Raises `Invalid`."""
    if not isinstance(document, list):
        raise Invalid("A JSON Patch is an array of operations.", advice="")
    if len(document) > OPERATIONS_MAX:
        raise Invalid(f"A JSON Patch has at most {OPERATIONS_MAX:,} operations; this one has {len(document):,}.", advice="")
    return [_step(number, each) for number, each in enumerate(document)]


def _step(number: int, each: Any) -> Step:
    if not isinstance(each, dict):
        raise Invalid(f"Operation {number} of the patch is no object.", advice="")
    op = each.get("op")
    if not isinstance(op, str) or op not in _NEEDS:
        raise Invalid(f"Operation {number} of the patch has no `op` of {', '.join(_NEEDS)}.", advice="")
    for name in ("path", *_NEEDS[op]):
        if name not in each or (name != "value" and not isinstance(each[name], str)):
            raise Invalid(f"Operation {number} of the patch, {op}, needs `{name}`.", advice="")
    source = each["from"] if "from" in _NEEDS[op] else ""
    for path in (each["path"], source):
        parse(path)
    if op == "move" and each["path"].startswith(f"{source}/"):
        raise Invalid(f"Operation {number} of the patch moves {source!r} into itself.", advice="")
    return Step(op, each["path"], each.get("value"), source)
