"""Errors as RFC 9457 problem documents, and back. Pure.

{"type": "urn:perdure:error:Conflict", "title": what the kind means and what to do, "status": 409, "detail": what happened,
 "code": "conflict", "retryable": false, "facts": {"session": …, "expected": 3, …}, "trace_id": "4bf9…"}

`advice` is what to do in this case, as it follows the detail; it is left out where the detail says all.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from perdure import errors
from perdure.errors import Error
from perdure.model.commit import Commit
from perdure.model.timestamps import moment

TYPE = "urn:perdure:error:"
"""What the `type` of each problem begins with; the error's class follows."""
KINDS: dict[str, type[Error]] = {
    kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Error)
}
"""Each kind of error by its name."""


def problem(error: Error, trace_id: str | None = None) -> dict[str, Any]:
    """The document for an error. Facts that JSON cannot say are left out."""
    title = advice_of(type(error))
    advice = error.facts.get("advice", title) if error.detail else ""
    said: dict[str, Any] = {
        "type": TYPE + type(error).__name__,
        "title": title,
        "status": error.http_status,
        "detail": error.detail or title,
        "code": error.code,
        "retryable": error.retryable,
        "facts": {name: plain for name, fact in error.facts.items() if name != "advice" and (plain := _plain(fact)) is not _NOTHING},
    }
    if advice:
        said["advice"] = advice
    if trace_id is not None:
        said["trace_id"] = trace_id
    return said


def error_of(document: Any) -> Error | None:
    """The error that a problem document says; `None` if it is none of ours. A kind that this version does not know is an `Error`."""
    if not isinstance(document, Mapping):
        return None
    type_, detail, facts = (document.get(name) for name in ("type", "detail", "facts"))
    if not isinstance(type_, str) or not type_.startswith(TYPE) or not isinstance(detail, str):
        return None
    named = {name: fact for name, fact in facts.items() if isinstance(name, str)} if isinstance(facts, Mapping) else {}
    if isinstance(document.get("trace_id"), str):
        named.setdefault("trace_id", document["trace_id"])
    kind = KINDS.get(type_.removeprefix(TYPE), Error)
    own, advice = advice_of(kind), document.get("advice", "")
    if detail == own:
        return kind("", **named)
    if advice != own:
        named["advice"] = advice if isinstance(advice, str) else ""
    return kind(detail, **named)


def advice_of(kind: type[Error]) -> str:
    """What a kind of error means, and what to do."""
    return " ".join((kind.__doc__ or "").partition("\n\n")[0].split())


_NOTHING = object()


def _plain(fact: Any) -> Any:
    match fact:
        case None | bool() | int() | float() | str():
            return fact
        case bytes():
            return fact.hex()
        case datetime():
            return moment(fact)
        case Commit():
            return fact.to_dict()
        case list() | tuple():
            found = [_plain(item) for item in fact]
            return _NOTHING if _NOTHING in found else found
        case dict():
            return {str(name): plain for name, item in fact.items() if (plain := _plain(item)) is not _NOTHING}
        case _:
            return _NOTHING
