"""Values from the JSON that an encoder wrote. Classes are looked up, never imported; no constructor of theirs runs."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from perdure.adapters.langgraph import arrays, messages, scalars
from perdure.adapters.langgraph.calls import call_constructor
from perdure.adapters.langgraph.classes import Classes, warn_once
from perdure.adapters.langgraph.lost import aside, lost
from perdure.adapters.langgraph.memory import MessageCache
from perdure.adapters.langgraph.memory import content_of as content_of_message
from perdure.adapters.langgraph.messages import BY_NAME, TAG
from perdure.adapters.langgraph.objects import GROUPS, Unfit, family
from perdure.errors import Corrupt, Invalid

FACTORIES: dict[str, Any] = {
    kind.__name__: kind for kind in (list, dict, set, int, float, str, tuple, bool, bytes, deque, Counter, OrderedDict)
}
"""The default factories that a defaultdict may have."""
_SETS: dict[str, Any] = {"set": set, "frozenset": frozenset, "tuple": tuple}
_MAPPINGS: dict[str, Any] = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter}
_ABSENT = object()


class Decoder:
    """Makes values.

    `shared` maps messages (by the identity of their JSON, which the caller keeps alive) to objects: with it each message is made once.
    `kinds` are classes that are looked up before others; with it no warnings are logged, for the caller compares the value. `unseal` opens
    what a serialiser of the user's wrote.
    """

    __slots__ = ("_classes", "_kinds", "_memory", "_quiet", "_shared", "_unseal")

    def __init__(
        self,
        classes: Classes,
        memory: MessageCache,
        shared: dict[int, Any] | None,
        kinds: Mapping[str, type] | None = None,
        unseal: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        self._classes, self._memory, self._shared, self._kinds, self._unseal = classes, memory, shared, kinds or {}, unseal
        self._quiet = kinds is not None

    def decode(self, value: Any) -> Any:
        """The value that was encoded. Raises `Corrupt` for what no encoder wrote, `Unsupported` for what only a newer one writes."""
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        tag = value.get(TAG, _ABSENT)
        if tag is _ABSENT:
            return {key: self.decode(item) for key, item in value.items()}
        if self._shared is not None and (made := self._shared.get(id(value))) is not None:
            return made
        try:
            if tag not in BY_NAME:
                return self._make(tag, value)
            return self._message(BY_NAME[tag], value)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
            raise Corrupt(f"A stored value of type {tag!r:.60} is not what was written ({error}).") from error

    def _message(self, kind: type[BaseMessage], value: dict[str, Any]) -> BaseMessage:
        message, texts = messages.decode(kind, value, self.decode)
        if self._shared is None:
            self._memory.put(message, value, content_of_message(message) if texts is None else texts)
        else:
            self._shared[id(value)] = message
        return message

    def _make(self, tag: Any, value: dict[str, Any]) -> Any:
        if "ext" in value:
            return self._called(tag, value)
        if ":" in tag:
            return self._object(tag, value)
        if tag == "sealed":
            if self._unseal is None:
                raise Invalid(
                    f"A stored value was sealed by a serialiser (type {value['type']!r:.60}), with a key if it is encrypted: pass the same "
                    "serialiser with the same key, PerdureSaver(store, serde=…)."
                )
            return self._unseal(value)
        if tag in _MAPPINGS:
            return _MAPPINGS[tag](self._pairs(value))
        if tag == "defaultdict":
            return defaultdict(FACTORIES[value["factory"]] if "factory" in value else None, self._pairs(value))
        if tag in _SETS:
            return _SETS[tag]([self.decode(item) for item in value["items"]])
        if tag == "deque":
            return deque([self.decode(item) for item in value["items"]], value.get("maxlen"))
        if tag == "delta":
            return _DeltaSnapshot(self.decode(value["value"]))
        if tag in (arrays.ARRAY, arrays.NUMBER):
            return arrays.decode(value)
        return scalars.decode(tag, value)

    def _pairs(self, value: dict[str, Any]) -> dict[Any, Any]:
        return {_hashable(self.decode(key)): self.decode(item) for key, item in value["items"]}

    def _object(self, key: str, value: dict[str, Any]) -> Any:
        parts = {
            part: {name: self.decode(item) for name, item in content.items()} if part in GROUPS else self.decode(content)
            for part, content in value.items()
            if part != TAG
        }
        kind = self._kinds.get(key) or self._classes.find(key)
        if kind is None:
            return self._lost(value, parts, "its class is not allowed or not imported")
        how: Any = family(kind)
        try:
            made = how.make(kind, parts)
        except Exception as misfit:  # noqa: BLE001 - a default of the class's may be made by any code
            return self._lost(value, parts, f"it does not fit its class ({misfit})")
        held = getattr(made, "__pydantic_extra__", None) or {}
        gone = {name: value["fields"][name] for name in parts.get("fields", ()) if name not in how.names(kind) and name not in held}
        if not gone:
            return made
        name = min(gone)
        if not aside.put(made, gone):
            return self._lost(value, parts, f"its class no longer has a field {name!r}")
        if not self._quiet:
            warn_once(
                key,
                f"field {name}",
                "A stored %s has a field %r that its class no longer has: it is kept, and stored again with the others.",
                key,
                name,
            )
        return made

    def _called(self, tag: str, value: dict[str, Any]) -> Any:
        """A value that the framework's serialiser writes as a call: a class, a code, and arguments."""
        content = self.decode(value["value"])
        try:
            return call_constructor(self._classes, tag, value["ext"], content)
        except Unfit as misfit:
            return self._lost(value, {"value": content}, str(misfit))

    def _lost(self, value: dict[str, Any], parts: dict[str, Any], why: str) -> Any:
        tag = str(value[TAG])
        if not self._quiet:
            warn_once(
                tag, "lost", "A stored value of type %.200s comes back as plain data: %s. It will be stored again as it was.", tag, why
            )
        return lost(content_of(parts), value, why)


def content_of(parts: dict[str, Any]) -> Any:
    """What an object holds, without its class, as in the framework's strict mode."""
    if "fields" in parts:
        return {**parts["fields"], **parts.get("extra", {})}
    for part in ("root", "value", "member"):
        if part in parts:
            return parts[part]
    raise ValueError("it has no content")


def _hashable(key: Any) -> Any:
    """Tuples among keys, which older versions wrote as lists."""
    return tuple(map(_hashable, key)) if isinstance(key, list) else key
