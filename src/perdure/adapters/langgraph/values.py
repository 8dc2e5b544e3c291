"""LangGraph's values as JSON that a person can read, and back.

    plain JSON                     as it is
    dict, list, tuple, set         member by member; a dict with other keys than strings, or with the key "$", as a list of pairs
    a message of langchain_core    {"$": "human", "content": …}: its type and the fields that differ from their defaults
    anything else                  what the framework's own serialiser makes of it, spelled out: {"$": "module.Class", "ext": n, "value": …}

The last line is msgpack written as JSON. It is turned back into msgpack and given to the framework's serialiser, which decides by its
allow-list what may be made of it: nothing is imported here because stored bytes say so.
"""

from __future__ import annotations

import base64
from collections import Counter, deque
from datetime import datetime
from enum import Enum
from math import isfinite
from typing import Any, NamedTuple, NoReturn
from zoneinfo import ZoneInfo

import msgspec
import ormsgpack
from langchain_core import messages as lc
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from perdure.adapters.langgraph.memory import Memory, content_of
from perdure.errors import Corrupt, Invalid, Unsupported
from perdure.model.values import DEPTH_MAX

TAG = "$"
"""The key by which an object says that it stands for another value."""
_CLASSES: list[Any] = [
    kind for kind in (getattr(lc, name) for name in lc.__all__) if isinstance(kind, type) and issubclass(kind, BaseMessage)
]
_MESSAGES: dict[str, type[BaseMessage]] = {
    kind.model_fields["type"].default: kind for kind in _CLASSES if isinstance(kind.model_fields["type"].default, str)
}
"""The framework's messages by what they call themselves."""
_TYPE_OF: dict[Any, str] = {kind: name for name, kind in _MESSAGES.items()}
_DEFAULTS: dict[type, dict[str, Any]] = {
    kind: {name: field.get_default(call_default_factory=True) for name, field in kind.model_fields.items() if not field.is_required()}
    for kind in _TYPE_OF
}


class _Empty(NamedTuple):
    """A message without content; its fields that begin as a dict or list of its own, and the others, which can hold a text."""

    message: BaseMessage
    dicts: list[str]
    lists: list[str]
    others: frozenset[str]


def _empty(kind: type[BaseMessage]) -> _Empty:
    made = kind.model_construct(**{name: _DEFAULTS[kind].get(name) for name in kind.model_fields})
    named = {wanted: [name for name, value in made.__dict__.items() if type(value) is wanted] for wanted in (dict, list)}
    return _Empty(made, named[dict], named[list], frozenset(made.__dict__) - {*named[dict], *named[list]})


_EMPTY = {kind: _empty(kind) for kind in _TYPE_OF}
_set = object.__setattr__
_PLAIN: tuple[Any, ...] = (dict, list, tuple, str, int, float)
_SETS: dict[str, Any] = {"set": set, "frozenset": frozenset, "tuple": tuple, "deque": deque}
_SEQUENCES = {kind: name for name, kind in _SETS.items()}
_ABSENT = object()
_OPTION = ormsgpack.OPT_NON_STR_KEYS | ormsgpack.OPT_REPLACE_SURROGATES
_CLASS_CODES = frozenset(range(6))
"""The framework's msgpack extensions that name a class."""
_ARRAY = "numpy.ndarray"
"""The framework's extension 6. What comes back depends on the array: each one is read back before it is stored."""


class _Ext(NamedTuple):
    """A msgpack extension, its payload unpacked."""

    code: int
    payload: Any


class Codec:
    """Values of one serialiser. Safe from any thread.

    With a serialiser other than the framework's JsonPlusSerializer (an encrypted one, say) every list item and every other value is its
    bytes: {"$": "sealed", "type": …, "base64": …}.
    """

    def __init__(self, serde: SerializerProtocol, memory: Memory) -> None:
        self._serde = serde
        self._memory = memory
        self._readable = isinstance(serde, JsonPlusSerializer)
        self._sound: set[type] = set()
        self._known: set[str] = set()

    def encode(self, value: Any, where: str) -> Any:
        """The value as JSON; `where` names it in messages. Raises `Invalid`, naming the type, for what could not be read back."""
        if self._readable:
            return self._encode(value, where, DEPTH_MAX - 10)
        if type(value) is list:
            return [self._seal(item, where) for item in value]
        return value if value is None else self._seal(value, where)

    def plain(self, value: Any, where: str) -> Any:
        """As `encode`, and readable with every serialiser: for metadata and versions, which are looked through."""
        return self._encode(value, where, DEPTH_MAX - 10)

    def _encode(self, value: Any, where: str, room: int) -> Any:
        kind = type(value)
        if kind is str:
            return value if value.isascii() else _text(value)
        if value is None or kind is bool or kind is int:
            return value
        if room <= 0:
            raise Invalid(f"{where} holds too many containers inside one another; at most {DEPTH_MAX - 10} can be stored.")
        if kind in _TYPE_OF:
            return self._message(value, kind, where, room - 1)
        if kind is list:
            return [self._encode(item, where, room - 1) for item in value]
        if kind is dict:
            return self._dict(value, where, room - 2)
        if kind is float:
            return value if isfinite(value) else {TAG: "float", "value": repr(value)}
        if kind is bytes or kind is bytearray:
            return {TAG: kind.__name__, "base64": base64.b64encode(value).decode()}
        if kind in _SEQUENCES and getattr(value, "maxlen", None) is None:
            items = [self._encode(item, where, room - 2) for item in value]
            if kind is set or kind is frozenset:
                items.sort(key=msgspec.json.encode)  # a set has no order, and the same set must always look the same
            return {TAG: _SEQUENCES[kind], "items": items}
        if kind is datetime:
            return _moment(value)
        if kind is _Ext:
            return self._spelled(value, where, room)
        if kind is _DeltaSnapshot:
            return {TAG: "delta", "value": self._encode(value.value, where, room - 1)}
        if isinstance(value, BaseException):
            return repr(value)  # what the framework keeps of an exception
        if not isinstance(value, Enum) and not hasattr(value, "_asdict"):
            for plain in _PLAIN:
                if isinstance(value, plain):
                    return self._encode(plain(value), where, room)  # as the framework does: a subclass comes back as what it holds
        return self._typed(value, where, room)

    def _dict(self, value: dict[Any, Any], where: str, room: int) -> Any:
        if all(type(key) is str and key != TAG and (key.isascii() or type(_text(key)) is str) for key in value):
            return {key: self._encode(item, where, room) for key, item in value.items()}
        pairs = [[self._encode(key, where, room), self._encode(item, where, room)] for key, item in value.items()]
        return {TAG: "dict", "items": pairs}

    def _message(self, message: BaseMessage, kind: type, where: str, room: int) -> Any:
        known = self._memory.get(message)
        if known is not None:
            return known
        content = content_of(message)
        encoded: dict[str, Any] = {TAG: _TYPE_OF[kind]}
        defaults = _DEFAULTS[kind]
        for name, value in (message.__dict__ | (message.__pydantic_extra__ or {})).items():
            default = defaults.get(name, _ABSENT)
            if value is default or (type(value) is type(default) and value == default):
                continue
            if name == TAG:
                raise Invalid(f"{where} holds a message with a field named {TAG!r}, which is taken.")
            encoded[name] = self._encode(value, where, room)
        self._memory.put(message, encoded, content)
        return encoded

    def _typed(self, value: Any, where: str, room: int) -> Any:
        """By the framework's serialiser. The first value of a type is read back: it must come out as what it was."""
        kind = type(value)
        try:
            name, packed = self._serde.dumps_typed(value)
        except (TypeError, ValueError) as error:
            _refuse(where, kind, f"cannot be written by the framework's serialiser ({error})")
        if name != "msgpack":
            _refuse(where, kind, f"would be written as {name}, which is more than data")
        tree = _tree(packed)
        names = _names(tree)
        if _ARRAY in names and _has_fields(tree):
            _refuse(where, kind, "holds a numpy array with named fields, whose names the framework's serialiser loses")
        if kind not in self._sound or not self._known.issuperset(names):
            again = self._serde.loads_typed((name, packed))
            kept = _names(_tree(self._serde.dumps_typed(again)[1])) if type(again) is kind else Counter()
            if type(again) is not kind or kept != names:
                lost = sorted(names - kept) or [f"{kind.__module__}.{kind.__qualname__}"]
                _refuse(where, kind, f"would not come back: {', '.join(lost)} is not on the serialiser's allow-list, or has lost something")
            self._sound.add(kind)
            self._known |= {known for known in names if known != _ARRAY}
        return self._encode(tree, where, room)

    def _spelled(self, ext: _Ext, where: str, room: int) -> Any:
        payload = ext.payload
        if ext.code in _CLASS_CODES:
            module, name, value, *method = payload
            spelled = {TAG: f"{module}.{name}", "ext": ext.code, "value": self._encode(value, where, room - 2)}
            return spelled | {"method": method[0]} if method else spelled
        return {TAG: "ext", "ext": ext.code, "value": self._encode(payload, where, room - 2)}

    def _seal(self, value: Any, where: str) -> Any:
        message = isinstance(value, BaseMessage)
        known = self._memory.get(value) if message else None
        if known is not None:
            return known
        content = content_of(value) if message else None
        try:
            name, packed = self._serde.dumps_typed(value)
        except (TypeError, ValueError) as error:
            _refuse(where, type(value), f"cannot be written by {type(self._serde).__name__} ({error})")
        if name.startswith("pickle"):
            _refuse(where, type(value), "would be pickled, which is more than data")
        sealed = {TAG: "sealed", "type": name, "base64": base64.b64encode(packed).decode()}
        if message:
            self._memory.put(value, sealed, content)
        return sealed

    def decode(self, value: Any, shared: dict[int, Any] | None = None) -> Any:
        """The value that was encoded. Raises `Corrupt` for what no encoder wrote, `Unsupported` for what only a newer one writes.

        `shared` maps messages (by the identity of their JSON, which the caller keeps alive) to objects: with it each is made once.
        """
        if isinstance(value, list):
            return [self.decode(item, shared) for item in value]
        if not isinstance(value, dict):
            return value
        tag = value.get(TAG, _ABSENT)
        if tag is _ABSENT:
            return {key: self.decode(item, shared) for key, item in value.items()}
        if shared is not None and (made := shared.get(id(value))) is not None:
            return made
        try:
            if tag not in _MESSAGES:
                return self._make(tag, value, shared)
            return self._make_message(_MESSAGES[tag], value, shared)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise Corrupt(f"A stored value of type {tag!r:.60} is not what was written ({error}).") from error

    def _make_message(self, kind: type[BaseMessage], value: dict[str, Any], shared: dict[int, Any] | None) -> BaseMessage:
        # What model_construct makes, at a tenth of its cost, and without the temporary objects of a copy, which the garbage collector
        # counts. Nothing is validated: what was valid when it was written comes back as it was.
        empty, dicts, lists, others = _EMPTY[kind]
        texts = empty.__dict__.copy()
        more = []
        for name, item in value.items():
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
            place[name] = self.decode(value[name], shared)
        message = kind.__new__(kind)
        _set(message, "__dict__", fields)
        _set(message, "__pydantic_extra__", extra)
        _set(message, "__pydantic_fields_set__", empty.__pydantic_fields_set__.copy())
        _set(message, "__pydantic_private__", None)
        if shared is None:
            self._memory.put(message, value, content_of(message) if more else texts)
        else:
            shared[id(value)] = message
        return message

    def _make(self, tag: Any, value: dict[str, Any], shared: dict[int, Any] | None) -> Any:
        if "ext" in value:
            return self._serde.loads_typed(("msgpack", ormsgpack.packb(_packable(value), option=_OPTION)))
        if tag == "sealed":
            made = self._serde.loads_typed((value["type"], _from_base64(value)))
            if shared is None and isinstance(made, BaseMessage):
                self._memory.put(made, value, content_of(made))
            return made
        if tag == "dict":
            return {self.decode(key, shared): self.decode(item, shared) for key, item in value["items"]}
        if tag == "delta":
            return _DeltaSnapshot(self.decode(value["value"], shared))
        if tag in _SETS:
            return _SETS[tag](self.decode(item, shared) for item in value["items"])
        return _plain(tag, value)


def _text(value: str) -> Any:
    try:
        value.encode()
    except UnicodeEncodeError:
        return {TAG: "text", "base64": base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()}
    return value


def _moment(value: datetime) -> Any:
    """A datetime; one in a named zone keeps the name, where the framework's serialiser would keep the offset of that day."""
    zone = value.tzinfo
    encoded: dict[str, Any] = {TAG: "datetime"}
    if isinstance(zone, ZoneInfo) and zone.key is not None:
        encoded |= {"value": value.replace(tzinfo=None, fold=0).isoformat(), "zone": zone.key}
    else:
        encoded["value"] = value.isoformat()
    return encoded | {"fold": 1} if value.fold else encoded


def _plain(tag: Any, value: dict[str, Any]) -> Any:
    if tag == "bytes":
        return _from_base64(value)
    if tag == "bytearray":
        return bytearray(_from_base64(value))
    if tag == "text":
        return _from_base64(value).decode("utf-8", "surrogatepass")
    if tag == "float":
        return float(value["value"])
    if tag == "datetime":
        moment = datetime.fromisoformat(value["value"])
        return moment.replace(tzinfo=ZoneInfo(value["zone"]) if "zone" in value else moment.tzinfo, fold=value.get("fold", 0))
    raise Unsupported(f"A stored value has the type {tag!r:.60}, which this version of the adapter does not know: use a newer one.")


def _from_base64(value: dict[str, Any]) -> bytes:
    return base64.b64decode(value["base64"], validate=True)


def _unpacked(code: int, data: bytes) -> _Ext:
    return _Ext(code, ormsgpack.unpackb(data, ext_hook=_unpacked, option=ormsgpack.OPT_NON_STR_KEYS))


def _tree(packed: bytes) -> Any:
    return ormsgpack.unpackb(packed, ext_hook=_unpacked, option=ormsgpack.OPT_NON_STR_KEYS)


def _names(tree: Any) -> Counter[str]:
    """How often each class stands in a msgpack tree."""
    names: Counter[str] = Counter()
    rest = [tree]
    while rest:
        node = rest.pop()
        if type(node) is _Ext:
            if node.code in _CLASS_CODES:
                names[f"{node.payload[0]}.{node.payload[1]}"] += 1
            elif node.code == 6:
                names[_ARRAY] += 1
            rest.append(node.payload)
        elif isinstance(node, dict):
            rest += [*node.keys(), *node.values()]
        elif isinstance(node, list):
            rest += node
    return names


def _has_fields(tree: Any) -> bool:
    """Whether an array's dtype is structured: the framework writes it as raw bytes."""
    if type(tree) is _Ext:
        return (tree.code == 6 and tree.payload[0].startswith("|V")) or _has_fields(tree.payload)
    return isinstance(tree, (list, dict)) and any(map(_has_fields, tree.values() if isinstance(tree, dict) else tree))


def _packable(value: Any) -> Any:
    """The msgpack tree that was spelled out, its extensions packed again."""
    if isinstance(value, list):
        return [_packable(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = value.get(TAG, _ABSENT)
    if tag is _ABSENT:
        return {key: _packable(item) for key, item in value.items()}
    if tag == "dict":
        return {_hashable(_packable(key)): _packable(item) for key, item in value["items"]}
    if "ext" not in value:
        return _plain(tag, value)
    payload = _packable(value["value"])
    if value["ext"] in _CLASS_CODES:
        module, _, name = tag.rpartition(".")
        payload = [module, name, payload, *([value["method"]] if "method" in value else [])]
    return ormsgpack.Ext(value["ext"], ormsgpack.packb(payload, option=_OPTION))


def _hashable(key: Any) -> Any:
    return tuple(map(_hashable, key)) if isinstance(key, list) else key


def _refuse(where: str, kind: type, why: str) -> NoReturn:
    raise Invalid(
        f"{where} holds a value of type {kind.__module__}.{kind.__qualname__}, which {why}. A class of yours is allowed by "
        f"PerdureSaver(store, allow=[{kind.__name__}])."
    )
