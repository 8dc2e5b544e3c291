"""Objects of data types: their parts as plain values, and the objects made of these parts again.

An object is stored as the name of its class and its parts: `fields`, and where there are such `extra`, `private`, `more` (attributes
that are no fields), `unset` (fields that were not set); or one part that says all, `root`, `member` and `value`. It is made without a call
of its class's constructor, validators or `__setattr__`, so it comes back as it was, and stored bytes run nothing.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Collection, Iterable
from enum import Enum, Flag
from functools import cached_property, partial
from typing import Any, Protocol

import msgspec
from langchain_core.messages.base import TextAccessor
from langchain_core.runnables.utils import AddableDict
from langgraph.store.base import Item
from langgraph.types import Send
from pydantic import AnyUrl, BaseModel, ByteSize, PostgresDsn, SecretBytes, SecretStr
from pydantic_core import MultiHostUrl, PydanticUndefined, Url

from perdure.adapters.common.class_names import class_name
from perdure.adapters.langgraph.refusals import would_lose

GROUPS = ("fields", "extra", "private", "more")
"""The parts that hold values by name; the others hold one value."""
ALWAYS = frozenset(class_name(kind) for kind in (TextAccessor, ByteSize, AddableDict))
"""Classes of the framework that are not on its own list, and that are as safe."""
EXTENDED = (str, int, float, bytes, dict, list, tuple, set, frozenset)
"""Built-in classes whose subclasses can be taken as data, when they are listed."""
SECRETS = (SecretStr, SecretBytes)
TEXTS: tuple[Any, ...] = (AnyUrl, *PostgresDsn.__mro__[-2:-1], Url, MultiHostUrl, *SECRETS)
_SLOTS: dict[type, tuple[str, ...]] = {Send: ("node", "arg", "timeout"), Item: ("namespace", "key", "value", "created_at", "updated_at")}
_ABSENT = object()
_set = object.__setattr__


class Unfit(Exception):
    """The stored parts of an object no longer fit its class."""


class Family(Protocol):
    """Classes whose objects are taken apart in the same way. `make` ignores fields that the class does not have."""

    def names(self, kind: Any) -> Collection[str]:
        """The fields of a class."""

    def take(self, value: Any) -> dict[str, Any]:
        """The parts of an object."""

    def make(self, kind: Any, parts: dict[str, Any]) -> Any:
        """The object of these parts. Raises `Unfit`."""


class _Single:
    def names(self, kind: Any) -> Collection[str]:
        return ()


class _Enums(_Single):
    """A member by its name and value. A member that was renamed is found by its value, one with a new value by its name."""

    def take(self, value: Any) -> dict[str, Any]:
        return {"member": value.name, "value": value.value}

    def make(self, kind: Any, parts: dict[str, Any]) -> Any:
        named, held = kind.__members__.get(parts["member"]), parts.get("value", _ABSENT)
        if named is not None:
            return named
        for member in kind.__members__.values():
            if type(member.value) is type(held) and member.value == held:
                return member
        if issubclass(kind, Flag) and type(held) is int:
            try:
                return kind(held)
            except ValueError:
                pass
        raise Unfit(f"it has no member {parts['member']!r} and none with the value {held!r:.60}")


class _Models:
    """Pydantic's models."""

    def names(self, kind: Any) -> Collection[str]:
        fields: dict[str, Any] = kind.model_fields
        return fields

    def take(self, value: Any) -> dict[str, Any]:
        kind, held = type(value), value.__dict__
        fields = {name: held[name] for name in kind.model_fields if name in held}
        if kind.__pydantic_root_model__:
            return {"root": fields["root"]}
        parts: dict[str, Any] = {"fields": fields}
        if value.__pydantic_extra__:
            parts["extra"] = dict(value.__pydantic_extra__)
        if value.__pydantic_private__:
            parts["private"] = dict(value.__pydantic_private__)
        if unset := [name for name in fields if name not in value.__pydantic_fields_set__]:
            parts["unset"] = unset
        return parts

    def make(self, kind: Any, parts: dict[str, Any]) -> Any:
        stored = {"root": parts["root"]} if "root" in parts else parts["fields"]
        extra = dict(parts.get("extra", {}))
        if kind.model_config.get("extra") == "allow":
            extra |= {name: item for name, item in stored.items() if name not in kind.model_fields}
        fields = {}
        for name, field in kind.model_fields.items():
            if name in stored:
                fields[name] = stored[name]
            elif name in extra:
                fields[name] = extra.pop(name)
            elif field.is_required():
                raise Unfit(f"it asks for a field {name!r}, which was not stored")
            else:
                fields[name] = field.get_default(call_default_factory=True)
        made = object.__new__(kind)
        _set(made, "__dict__", fields)
        _set(made, "__pydantic_extra__", extra if kind.model_config.get("extra") == "allow" else None)
        _set(
            made,
            "__pydantic_fields_set__",
            {name for name in (*stored, *extra) if name in fields or name in extra} - {*parts.get("unset", ())},
        )
        _set(made, "__pydantic_private__", _private(kind, parts.get("private", {})))
        return made


def _private(kind: Any, stored: dict[str, Any]) -> dict[str, Any] | None:
    attributes: dict[str, Any] = kind.__private_attributes__
    if not attributes:
        return None
    made = dict(stored)
    for name, attribute in attributes.items():
        if name not in stored and (default := attribute.get_default()) is not PydanticUndefined:
            made[name] = default
    return made


class _OldModels:
    """Models of pydantic's first version."""

    def names(self, kind: Any) -> Collection[str]:
        fields: dict[str, Any] = kind.__fields__
        return fields

    def take(self, value: Any) -> dict[str, Any]:
        held, fields = value.__dict__, type(value).__fields__
        parts: dict[str, Any] = {"fields": {name: held[name] for name in fields if name in held}}
        if extra := {name: item for name, item in held.items() if name not in fields}:
            parts["extra"] = extra
        if private := _attributes(value, type(value).__private_attributes__):
            parts["private"] = private
        if unset := [name for name in held if name not in value.__fields_set__]:
            parts["unset"] = unset
        return parts

    def make(self, kind: Any, parts: dict[str, Any]) -> Any:
        stored = {**parts["fields"], **parts.get("extra", {})}
        fields = {}
        for name, field in kind.__fields__.items():
            if name not in stored and field.required:
                raise Unfit(f"it asks for a field {name!r}, which was not stored")
            fields[name] = stored[name] if name in stored else field.get_default()
        fields |= parts.get("extra", {})
        made = object.__new__(kind)
        _set(made, "__dict__", fields)
        _set(made, "__fields_set__", {name for name in stored if name in fields} - {*parts.get("unset", ())})
        for name, attribute in kind.__private_attributes__.items():
            _set(made, name, parts["private"][name] if name in parts.get("private", {}) else attribute.get_default())
        return made


class _Records:
    """Dataclasses and attrs classes."""

    def names(self, kind: Any) -> Collection[str]:
        return _defaults(kind)

    def take(self, value: Any) -> dict[str, Any]:
        kind = type(value)
        parts: dict[str, Any] = {"fields": _attributes(value, _defaults(kind))}
        more = {
            name: item
            for name, item in getattr(value, "__dict__", {}).items()
            if name not in parts["fields"] and name != "__orig_class__" and not isinstance(getattr(kind, name, None), cached_property)
        }
        return {**parts, "more": more} if more else parts

    def make(self, kind: Any, parts: dict[str, Any]) -> Any:
        made = object.__new__(kind)
        stored = parts["fields"]
        for name, default in _defaults(kind).items():
            if name in stored:
                _put(made, name, stored[name])
            elif default is None:
                raise Unfit(f"it asks for a field {name!r}, which was not stored")
            else:
                _put(made, name, default())
        for name, item in parts.get("more", {}).items():
            _put(made, name, item)
        return made


def _defaults(kind: Any) -> dict[str, Callable[[], Any] | None]:
    """The fields of a record, and what makes their defaults."""
    made: dict[str, Callable[[], Any] | None] = {}
    if hasattr(kind, "__attrs_attrs__"):
        for field in kind.__attrs_attrs__:
            factory = getattr(field.default, "factory", None)  # an attrs Factory; one that takes the object is not called
            if factory is not None and not field.default.takes_self:
                made[field.name] = factory
            else:
                plain = factory is None and getattr(field.default, "name", "") != "NOTHING"
                made[field.name] = partial(_same, field.default) if plain else None
        return made
    for field in dataclasses.fields(kind):
        if field.default_factory is not dataclasses.MISSING:
            made[field.name] = field.default_factory
        else:
            made[field.name] = None if field.default is dataclasses.MISSING else partial(_same, field.default)
    return made


def _same(value: Any) -> Any:
    return value


def _attributes(value: Any, names: Iterable[str]) -> dict[str, Any]:
    return {name: item for name in names if (item := getattr(value, name, _ABSENT)) is not _ABSENT}


def _put(made: Any, name: str, item: Any) -> None:
    """Set an attribute without calling code of the class, except for its slots."""
    held = getattr(made, "__dict__", None)
    if held is not None and not hasattr(getattr(type(made), name, None), "__set__"):
        held[name] = item
    else:
        _set(made, name, item)


class _NamedTuples:
    """Named tuples."""

    def names(self, kind: Any) -> Collection[str]:
        fields: tuple[str, ...] = kind._fields
        return fields

    def take(self, value: Any) -> dict[str, Any]:
        if getattr(value, "__dict__", None):
            raise would_lose(type(value), "it has attributes beside its fields")
        return {"fields": dict(zip(type(value)._fields, tuple.__iter__(value), strict=True))}

    def make(self, kind: Any, parts: dict[str, Any]) -> Any:
        stored, defaults = parts["fields"], kind._field_defaults
        for name in kind._fields:
            if name not in stored and name not in defaults:
                raise Unfit(f"it asks for a field {name!r}, which was not stored")
        return tuple.__new__(kind, [stored[name] if name in stored else defaults[name] for name in kind._fields])


class _Structs:
    """Structs of msgspec. Their constructor is the only way to make one."""

    def names(self, kind: Any) -> Collection[str]:
        fields: tuple[str, ...] = kind.__struct_fields__
        return fields

    def take(self, value: Any) -> dict[str, Any]:
        return {"fields": _attributes(value, type(value).__struct_fields__)}

    def make(self, kind: Any, parts: dict[str, Any]) -> Any:
        try:
            return kind(**{name: item for name, item in parts["fields"].items() if name in kind.__struct_fields__})
        except TypeError as error:
            raise Unfit(str(error)) from error


class _Slots:
    """Classes of the framework whose attributes are slots."""

    def names(self, kind: Any) -> Collection[str]:
        return _SLOTS[kind]

    def take(self, value: Any) -> dict[str, Any]:
        return {"fields": _attributes(value, _SLOTS[type(value)])}

    def make(self, kind: Any, parts: dict[str, Any]) -> Any:
        made = object.__new__(kind)
        for name in _SLOTS[kind]:
            if hasattr(kind, name):
                _set(made, name, parts["fields"].get(name))
        return made


class _Texts(_Single):
    """Pydantic's addresses and secrets, made of the text that they hold."""

    def take(self, value: Any) -> dict[str, Any]:
        return {"value": value.get_secret_value() if isinstance(value, SECRETS) else str(value)}

    def make(self, kind: Any, parts: dict[str, Any]) -> Any:
        try:
            return kind(parts["value"])
        except ValueError as error:
            raise Unfit(str(error)) from error


class _Extended(_Single):
    """Subclasses of built-in classes, with the attributes that they have beside their content."""

    def take(self, value: Any) -> dict[str, Any]:
        base = _base(type(value))
        parts = {"value": base(value) if base is not dict else dict(dict.items(value))}
        more = getattr(value, "__dict__", None)
        return {**parts, "more": dict(more)} if more else parts

    def make(self, kind: Any, parts: dict[str, Any]) -> Any:
        base = _base(kind)
        value = parts["value"]
        held: Any = type(value)
        if held is not base:
            raise Unfit(f"it extends {base.__name__}, and a {held.__name__} was stored")
        fillers: dict[type, Any] = {dict: dict.update, list: list.extend, set: set.update}
        fill: Any = fillers.get(base)
        made: Any = base.__new__(kind) if fill else base.__new__(kind, value)
        if fill:
            fill(made, value)
        for name, item in parts.get("more", {}).items():
            _put(made, name, item)
        return made


def _base(kind: type) -> Any:
    return next(base for base in kind.__mro__ if base in EXTENDED)


_ENUMS, _MODELS, _OLD, _RECORDS = _Enums(), _Models(), _OldModels(), _Records()
_TUPLES, _STRUCTS, _SLOTTED, _TEXTS, _EXTENDED = _NamedTuples(), _Structs(), _Slots(), _Texts(), _Extended()


def extends(kind: type) -> bool:
    """Whether objects of a class are stored as those of the built-in class that it extends."""
    return family(kind) is _EXTENDED


def family(kind: Any) -> Family | None:
    """How objects of a class are taken apart; `None` if it is no data type."""
    if issubclass(kind, Enum):
        return _ENUMS
    if issubclass(kind, BaseModel):
        return _MODELS
    if kind in _SLOTS:
        return _SLOTTED
    if issubclass(kind, TEXTS):
        return _TEXTS
    old = sys.modules.get("pydantic.v1.main")
    if old is not None and issubclass(kind, old.BaseModel):
        return _OLD
    if issubclass(kind, tuple) and hasattr(kind, "_field_defaults"):
        return _TUPLES
    if issubclass(kind, EXTENDED):
        return _EXTENDED if kind not in EXTENDED and kind.__module__ not in ("builtins", "collections") else None
    if issubclass(kind, msgspec.Struct):
        return _STRUCTS
    if issubclass(kind, BaseException):
        return None
    return _RECORDS if hasattr(kind, "__attrs_attrs__") or dataclasses.is_dataclass(kind) else None
