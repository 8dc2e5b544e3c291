"""Messages of langchain_core as JSON: their type and the fields that differ from their defaults, {"$": "human", "content": …}."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from langchain_core import messages as lc
from langchain_core.messages import BaseMessage

from perdure.adapters.langgraph.refusals import Refused, would_lose

TAG = "$"
"""The key by which an object says that it stands for another value."""
_CLASSES: list[Any] = [
    kind for kind in (getattr(lc, name) for name in lc.__all__) if isinstance(kind, type) and issubclass(kind, BaseMessage)
]
BY_NAME: dict[str, type[BaseMessage]] = {
    kind.model_fields["type"].default: kind for kind in _CLASSES if isinstance(kind.model_fields["type"].default, str)
}
"""The framework's classes of messages by their type names."""
NAME_OF: dict[Any, str] = {kind: name for name, kind in BY_NAME.items()}
_DEFAULTS: dict[type, dict[str, Any]] = {
    kind: {name: field.get_default(call_default_factory=True) for name, field in kind.model_fields.items() if not field.is_required()}
    for kind in NAME_OF
}
_ABSENT = object()
_set = object.__setattr__


class _Empty(NamedTuple):
    """A message without content; its fields whose default is a new dict or list, and the others, which can hold a text."""

    message: BaseMessage
    dicts: list[str]
    lists: list[str]
    others: frozenset[str]


def _empty(kind: type[BaseMessage]) -> _Empty:
    made = kind.model_construct(**{name: _DEFAULTS[kind].get(name) for name in kind.model_fields})
    named = {wanted: [name for name, value in made.__dict__.items() if type(value) is wanted] for wanted in (dict, list)}
    return _Empty(made, named[dict], named[list], frozenset(made.__dict__) - {*named[dict], *named[list]})


EMPTY = {kind: _empty(kind) for kind in NAME_OF}


def encode(message: BaseMessage, kind: type, encode: Callable[[Any], Any]) -> dict[str, Any]:
    """A message as JSON."""
    encoded: dict[str, Any] = {TAG: NAME_OF[kind]}
    defaults = _DEFAULTS[kind]
    name = ""
    try:
        for name, value in (message.__dict__ | (message.__pydantic_extra__ or {})).items():
            default = defaults.get(name, _ABSENT)
            if value is default or (type(value) is type(default) and value == default):
                continue
            if name == TAG:
                raise would_lose(kind, f"it has a field named {TAG!r}, which is taken")
            encoded[name] = encode(value)
    except Refused as refused:
        raise refused.within(f".{name}") from None
    return encoded


def decode(kind: type[BaseMessage], stored: dict[str, Any], decode: Callable[[Any], Any]) -> tuple[BaseMessage, dict[str, Any] | None]:
    """The message that was encoded, and all that it holds if it holds only texts.

    It is what `model_construct` makes, at a tenth of its cost, and without the temporary objects of a copy, which the garbage collector
    counts. Nothing is validated: a message that was valid when it was written comes back as it was.
    """
    empty, dicts, lists, others = EMPTY[kind]
    texts = empty.__dict__.copy()
    more = []
    for name, item in stored.items():
        if type(item) is str and name in others:
            texts[name] = item
        elif name != TAG:
            more.append(name)
    fields = texts.copy()
    for name in dicts:
        fields[name] = {}
    for name in lists:
        fields[name] = []
    extra: dict[str, Any] | None = None if empty.__pydantic_extra__ is None else {}
    for name in more:
        place: Any = fields if name in fields else extra
        place[name] = decode(stored[name])
    message = kind.__new__(kind)
    _set(message, "__dict__", fields)
    _set(message, "__pydantic_extra__", extra)
    _set(message, "__pydantic_fields_set__", empty.__pydantic_fields_set__.copy())
    _set(message, "__pydantic_private__", None)
    return message, None if more else texts
