"""A value as JSON (see `values` for the forms). What is neither plain nor a message is read back and compared before it is stored."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import msgspec
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from perdure.adapters.langgraph import arrays, messages, scalars
from perdure.adapters.langgraph.classes import Classes
from perdure.adapters.langgraph.compare import compare
from perdure.adapters.langgraph.decoding import FACTORIES, Decoder, content_of
from perdure.adapters.langgraph.lost import Lost, aside, plain
from perdure.adapters.langgraph.memory import MessageCache
from perdure.adapters.langgraph.memory import content_of as content_of_message
from perdure.adapters.langgraph.messages import NAME_OF, TAG
from perdure.adapters.langgraph.objects import GROUPS, Family, family
from perdure.adapters.langgraph.refusals import Refused, not_data, would_lose
from perdure.adapters.langgraph.sealing import Sealer
from perdure.model.values import DEPTH_MAX, same

DEPTH = DEPTH_MAX - 10
"""How many containers of JSON may be nested: the document around a value needs the rest."""
TRIES = 3
"""How often a value is written if it reads back otherwise: the engine may give a message in it its id meanwhile, in another thread."""
_SEQUENCES: dict[Any, str] = {set: "set", frozenset: "frozenset", tuple: "tuple", deque: "deque"}
_MAPPINGS: dict[Any, str] = {defaultdict: "defaultdict", OrderedDict: "OrderedDict", Counter: "Counter"}
_FACTORY_NAMES = {factory: name for name, factory in FACTORIES.items()}


class Encoder:
    """One value's encoding. Raises `Refused`. `foreign` seals what is not known here, and `unseal` opens it to compare."""

    __slots__ = ("_classes", "_foreign", "_fresh", "_kinds", "_memory", "_trusting", "_unseal")

    def __init__(
        self, classes: Classes, memory: MessageCache, foreign: Sealer | None = None, unseal: Callable[[dict[str, Any]], Any] | None = None
    ) -> None:
        self._classes, self._memory, self._foreign, self._unseal = classes, memory, foreign, unseal
        self._kinds: dict[str, type] = {}
        """The classes that were met, by name, so that a class that cannot be found by its name is read back, too."""
        self._fresh = False
        """Whether what is being encoded was just read, so that it is unchanged."""
        self._trusting = False
        """Whether what is being encoded is read back when it is complete."""

    def encode(self, value: Any, room: int = DEPTH) -> Any:
        """The value as JSON of at most `room` containers inside one another."""
        kind = type(value)
        if kind is str:
            return value if value.isascii() else scalars.text(value)
        if value is None or kind is bool or kind is int:
            return value
        if room <= 0:
            raise Refused(kind, f"is nested too deep: at most {DEPTH} containers inside one another can be stored")
        if kind in NAME_OF:
            return self._message(value, kind, room - 1)
        if kind is list:
            return self._list(value, room - 1)
        if kind is dict:
            return self._dict(value, room)
        scalar = scalars.encode(value, kind)
        if scalar is not None:
            return scalar
        if kind in _SEQUENCES:
            return self._sequence(value, kind, room - 2)
        if isinstance(value, Lost):
            return self._lost(value, kind, room)
        if kind is _DeltaSnapshot:
            return {TAG: "delta", "value": self.encode(value.value, room - 1)}
        return self._whole(value, kind, room)

    def _message(self, message: BaseMessage, kind: type, room: int) -> Any:
        known = self._memory.get(message)
        if known is None:
            content = content_of_message(message)
            known = messages.encode(message, kind, lambda value: self.encode(value, room))
            self._memory.put(message, known, content)
        return known

    def _list(self, values: Iterable[Any], room: int) -> list[Any]:
        encoded: list[Any] = []
        try:
            for value in values:
                encoded.append(self.encode(value, room))  # noqa: PERF401 - how many there are says which was refused
        except Refused as refused:
            raise refused.within(f"[{len(encoded)}]") from None
        return encoded

    def _dict(self, value: dict[Any, Any], room: int) -> Any:
        if not all(type(key) is str and key != TAG and (key.isascii() or type(scalars.text(key)) is str) for key in value):
            return {TAG: "dict", "items": self._pairs(value, room - 3)}
        return self._named(value, room - 1, "[{!r}]")

    def _named(self, values: dict[str, Any], room: int, part: str) -> dict[str, Any]:
        encoded = {}
        name = ""
        try:
            for name, value in values.items():
                encoded[name] = self.encode(value, room)
        except Refused as refused:
            raise refused.within(part.format(name)) from None
        return encoded

    def _pairs(self, values: dict[Any, Any], room: int) -> list[list[Any]]:
        encoded = []
        key: Any = None
        try:
            for key, value in values.items():
                encoded.append([self.encode(key, room), self.encode(value, room)])
        except Refused as refused:
            raise refused.within(f"[{key!r:.60}]") from None
        return encoded

    def _sequence(self, value: Any, kind: type, room: int) -> dict[str, Any]:
        items = self._list(value, room)
        if kind is set or kind is frozenset:
            items.sort(key=msgspec.json.encode)  # a set has no order, and the same set must always look the same
        encoded = {TAG: _SEQUENCES[kind], "items": items}
        return encoded if getattr(value, "maxlen", None) is None else encoded | {"maxlen": value.maxlen}

    def _lost(self, value: Any, kind: type, room: int) -> Any:
        """The JSON of an object whose class was not found when it was read: as it was stored, unless its content changed."""
        stored = value.stored
        if not (self._fresh or self._unchanged(self.encode(plain(value), room), stored, room)):
            raise Refused(
                kind,
                f"holds the content of a {stored[TAG]}, whose class was not found when it was read, and was changed since: as a plain "
                "value the object would be lost. Import its class, or pass it in allow=[…]. To store a plain value, make one of it",
            )
        return stored

    def _unchanged(self, encoded: Any, stored: dict[str, Any], room: int) -> bool:
        content = content_of(stored)
        if not (isinstance(encoded, dict) and TAG in encoded) and same(encoded, content):
            return True
        # A dict with unusual keys, an older form, a member with another name now: compare with what would be written if it were read now.
        self._fresh = True
        try:
            decode = self._decoder().decode
            held = {name: decode(item) for name, item in content.items()} if "fields" in stored else decode(content)
            return same(encoded, self.encode(plain(held) if isinstance(held, Lost) else held, room))
        finally:
            self._fresh = False

    def _whole(self, value: Any, kind: type, room: int) -> Any:
        """A value with more than plain containers and messages. The outermost one is read back."""
        if self._trusting:
            return self._typed(value, kind, room)
        for left in reversed(range(TRIES)):
            self._trusting = True
            try:
                encoded = self._typed(value, kind, room)
            finally:
                self._trusting = False
            try:
                compare(value, self._decoder().decode(encoded))
                break
            except Refused:
                if not left:
                    raise
            except Exception as error:  # from the value's own comparison or hash, or from reading
                raise would_lose(kind, f"reading it back fails ({error!r:.200})") from error
        return encoded

    def _typed(self, value: Any, kind: type, room: int) -> Any:
        if kind in _MAPPINGS:
            return self._mapping(value, kind, room - 3)
        scalar = arrays.encode(value)
        if scalar is not None:
            return scalar
        how = family(kind)
        if how is None:
            return self._other(value, kind)
        try:
            key = self._classes.key(kind)
        except Refused:
            if self._foreign is None:
                raise
            return self._foreign.seal(value)
        self._kinds[key] = kind
        encoded: dict[str, Any] = {TAG: key}
        for part, content in _taken(how, value, kind).items():
            if part in GROUPS:
                encoded[part] = self._named(content, room - 2, ".{}")
            elif isinstance(value, Enum) and part == "value":
                encoded |= self._value(content, room - 1)
            else:
                encoded[part] = self.encode(content, room - 1)
        if gone := aside.get(value):
            encoded["fields"] = {**gone, **encoded["fields"]}
        return encoded

    def _value(self, content: Any, room: int) -> dict[str, Any]:
        """The value of an enum's member, if it can be stored: its name alone identifies it."""
        try:
            return {"value": self.encode(content, room)}
        except Refused:
            return {}

    def _mapping(self, value: Any, kind: type, room: int) -> dict[str, Any]:
        encoded: dict[str, Any] = {TAG: _MAPPINGS[kind], "items": self._pairs(value, room)}
        if kind is defaultdict and value.default_factory is not None:
            name = _FACTORY_NAMES.get(value.default_factory)
            if name is None:
                raise would_lose(kind, f"its default_factory {value.default_factory!r:.60} is none of {', '.join(FACTORIES)}")
            encoded["factory"] = name
        return encoded

    def _decoder(self) -> Decoder:
        return Decoder(self._classes, self._memory, {}, self._kinds, self._unseal)

    def _other(self, value: Any, kind: type) -> Any:
        if self._foreign is not None:
            return self._foreign.seal(value)
        if isinstance(value, BaseException):
            raise would_lose(kind, "the framework keeps the text of an exception. Store repr(error)")
        for base in (date, time, timedelta, UUID, Decimal, PurePath, deque):
            if isinstance(value, base):
                raise would_lose(kind, f"it would become a plain {base.__name__}. Convert it")
        raise not_data(kind)


def _taken(how: Family, value: Any, kind: type) -> dict[str, Any]:
    try:
        return how.take(value)
    except Refused:
        raise
    except Exception as error:  # the object was never completed, or an attribute fails
        raise would_lose(kind, f"its parts cannot be read ({error!r:.200})") from error
