"""Values of workflow checkpoints as JSON that a person can read, and back. Data only: no pickle.

    plain JSON                       as it is
    dict with other keys, tuple, …   {"$": "dict", "items": [[key, value], …]}, {"$": "tuple", "items": […]}
    bytes, datetime, UUID, …         {"$": "bytes", "value": …}
    a member of an enum              {"$": "module:Class", "member": "NAME"}
    a dataclass, pydantic model, …   {"$": "module:Class", "state": {…}}: what a copy of it is made of, without empty members
    a class, list[str]               {"$": "class", "value": "module:Class"}, {"$": "generic", "items": [class, parameter, …]}

Objects come back as they were, without a call of their constructor. A class is looked up among those that the program allowed: the
framework's data classes, those registered with `register_checkpoint_type`, and those given to the storage. It is never imported.
"""

from __future__ import annotations

import base64
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite
from types import GenericAlias
from typing import Any, NoReturn
from uuid import UUID

from agent_framework import Content, WorkflowCheckpointException, WorkflowEvent
from agent_framework._workflows._checkpoint_encoding import _REGISTERED_CHECKPOINT_TYPE_KEYS
from pydantic import BaseModel

from perdure.adapters.common.class_names import class_name, find_class
from perdure.model.values import DEPTH_MAX

TAG = "$"
"""The key by which an object says that it stands for another value."""
FRAMEWORK = ("agent_framework.", "agent_framework_orchestrations.")
_SEQUENCES: dict[str, Any] = {"tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}
_MAPPINGS: dict[str, Any] = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter}
_SCALARS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "float": (float, repr, float),
    "bytes": (bytes, lambda value: base64.b64encode(value).decode(), lambda text: base64.b64decode(text, validate=True)),
    "bytearray": (bytearray, lambda value: base64.b64encode(value).decode(), lambda text: bytearray(base64.b64decode(text, validate=True))),
    "datetime": (
        datetime,
        lambda value: [value.isoformat(), value.fold],
        lambda pair: datetime.fromisoformat(pair[0]).replace(fold=pair[1]),
    ),
    "date": (date, date.isoformat, date.fromisoformat),
    "time": (time, time.isoformat, time.fromisoformat),
    "timedelta": (timedelta, lambda value: [value.days, value.seconds, value.microseconds], lambda parts: timedelta(*parts)),
    "UUID": (UUID, str, UUID),
    "Decimal": (Decimal, str, Decimal),
    "complex": (complex, repr, complex),
}
_NAMES = {kind: name for table in (_SEQUENCES, _MAPPINGS) for name, kind in table.items()} | {
    kind: name for name, (kind, _, _) in _SCALARS.items()
}
_NAMED: dict[str, type] = {class_name(kind): kind for kind in (*_NAMES, str, int, bool, list, object) if isinstance(kind, type)}
"""Classes that may be named, as the type of an answer that a workflow waits for, and of which no object is made by name."""
_BLANK: dict[type, dict[str, None]] = {Content: {name: None for name, value in Content("text").__getstate__().items() if value is None}}
"""Of a class with many members: those that are mostly empty, and then not stored."""
_ABSENT = object()


class Codec:
    """Values for one storage. `allowed` are classes, or "module:qualname" as the framework spells them. Safe from any thread."""

    def __init__(self, allowed: Iterable[type | str] = ()) -> None:
        self._classes: dict[str, type] = {}
        self._keys: set[str] = set()
        self._sound: dict[type, str] = {}
        for item in allowed:
            if isinstance(item, type):
                self._classes[class_name(item)] = item
            else:
                self._keys.add(item)

    def encode(self, value: Any, where: str) -> Any:
        """The value as JSON; `where` names it in messages. Raises `WorkflowCheckpointException` naming a type that is not allowed."""
        return self._encode(value, where, DEPTH_MAX - 10)

    def _encode(self, value: Any, where: str, room: int) -> Any:
        kind = type(value)
        if value is None or kind is str or kind is bool or kind is int or (kind is float and isfinite(value)):
            return value
        if room <= 0:
            raise WorkflowCheckpointException(f"{where} holds too many containers inside one another, or itself.")
        if kind is list:
            return [self._encode(item, where, room - 1) for item in value]
        if kind is dict and TAG not in value and all(type(key) is str for key in value):
            return {key: self._encode(item, f"{where}.{key}", room - 1) for key, item in value.items()}
        name = _NAMES.get(kind)
        if name in _MAPPINGS:
            return {TAG: name, "items": [[self._encode(part, where, room - 3) for part in pair] for pair in value.items()]}
        if name in _SEQUENCES and getattr(value, "maxlen", None) is None:
            items = [self._encode(item, where, room - 2) for item in value]
            return {TAG: name, "items": sorted(items, key=repr) if isinstance(value, (set, frozenset)) else items}
        if name in _SCALARS:
            if getattr(getattr(value, "tzinfo", None), "key", None) is not None:
                _refuse(where, kind, "in a named time zone cannot be stored: give it a fixed offset, for instance UTC")
            return {TAG: name, "value": _SCALARS[name][1](value)}
        if kind is GenericAlias:
            return {TAG: "generic", "items": self._encode([value.__origin__, *value.__args__], where, room - 1)}
        if isinstance(value, type):
            key = class_name(value)
            return {TAG: "class", "value": key if _NAMED.get(key) is value else self._known(value, where)}
        return self._object(value, kind, where, room - 2)

    def _object(self, value: Any, kind: type, where: str, room: int) -> Any:
        key = self._sound.get(kind) or self._known(kind, where)
        if isinstance(value, Enum):
            return {TAG: key, "member": value.name}
        if kind not in self._sound:
            try:
                object.__new__(kind)
            except TypeError:
                _refuse(where, kind, "extends a built-in class, and would not come back whole")
            self._sound[kind] = key
        state = value.__getstate__()
        if isinstance(state, tuple) and len(state) == 2 and not hasattr(kind, "__setstate__"):  # members, and those in slots
            state = {**(state[0] or {}), **(state[1] or {})}
        blank = _BLANK.get(kind)
        if blank is not None:
            state = {name: item for name, item in state.items() if item is not None or name not in blank}
        return {TAG: key, "state": self._encode(state, f"{where}<{kind.__name__}>", room)}

    def _known(self, kind: type, where: str) -> str:
        """The class's key, if the class can be looked up by it later."""
        key = class_name(kind)
        if self._class(key) is not kind:
            _refuse(where, kind, "is not allowed: call register_checkpoint_type with the class, or give it to the storage")
        return key

    def decode(self, value: Any) -> Any:
        """The value that was encoded. Raises `WorkflowCheckpointException` for what is not allowed, or not of this codec."""
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        tag = value.get(TAG, _ABSENT)
        if tag is _ABSENT:
            return {key: self.decode(item) for key, item in value.items()}
        try:
            return self._made(tag, value)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise WorkflowCheckpointException(
                f"A stored value of type {tag!r:.80} is not one that this version wrote: {error!r}."
            ) from error

    def _made(self, tag: str, value: dict[str, Any]) -> Any:
        if tag in _MAPPINGS:
            return _MAPPINGS[tag]({self.decode(key): self.decode(item) for key, item in value["items"]})
        if tag in _SEQUENCES:
            return _SEQUENCES[tag](map(self.decode, value["items"]))
        if tag in _SCALARS:
            return _SCALARS[tag][2](value["value"])
        if tag == "generic":
            origin, *parts = self.decode(value["items"])
            return GenericAlias(origin, tuple(parts))
        key = value["value"] if tag == "class" else tag
        kind = (_NAMED.get(key) if tag == "class" else None) or self._class(key)
        if kind is None:
            raise WorkflowCheckpointException(
                f"A stored value has the type {key!r:.80}, which this program did not allow or has not imported: import its module, "
                f"and call register_checkpoint_type with the class or give it to the storage."
            )
        if tag == "class":
            return kind
        if "member" in value:
            return kind[value["member"]]  # type: ignore[index]
        return _restored(kind, self.decode(value["state"]))

    def _class(self, key: str) -> type | None:
        """The class that a key names, among those allowed and imported."""
        found = self._classes.get(key)
        if found is not None:
            return found
        listed = key in self._keys or key in _REGISTERED_CHECKPOINT_TYPE_KEYS
        if not listed and not key.startswith(FRAMEWORK):
            return None
        place = find_class(key)
        return place if place is not None and (listed or _is_data(place)) else None


def _is_data(kind: type) -> bool:
    """Whether a class of the framework's is one of values; agents, clients and tools are not."""
    return is_dataclass(kind) or issubclass(kind, (Enum, BaseModel, WorkflowEvent)) or kind.__module__ == Content.__module__


def _restored(kind: type, state: Any) -> Any:
    """An object with this state, by what its class says of copies, or member by member."""
    made: Any = object.__new__(kind)
    if isinstance(state, dict) and kind in _BLANK:
        state = {**_BLANK[kind], **state}
    if hasattr(made, "__setstate__"):
        made.__setstate__(state)
    elif state is not None:
        for name, item in state.items():
            object.__setattr__(made, name, item)
    return made


def _refuse(where: str, kind: type, why: str) -> NoReturn:
    raise WorkflowCheckpointException(f"{where} holds a value of type {class_name(kind)}, which {why}. Nothing was written.")
