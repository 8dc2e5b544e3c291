"""Which classes a value may contain, and which class a stored name means.

    always          the framework's safe types
    by default      the data types (see `objects`) that the program has imported, except those that do more than hold data:
                    settings, models that import by name, LangChain's clients and tools, classes with a finalizer
    with a list     those that are listed

A class is found by its name among what is imported (see `class_names`), or is given as an object. One that cannot be found by its name,
because a function or `create_model` made it, can be written, as in the framework; it comes back as plain data.
"""

from __future__ import annotations

import importlib
import logging
import typing
import weakref
from collections.abc import Iterable
from enum import Enum
from typing import Any

from langchain_core.load.serializable import Serializable
from langgraph.checkpoint.serde._msgpack import SAFE_MSGPACK_TYPES
from pydantic import ImportString

from perdure.adapters.common.class_names import class_name, find_class
from perdure.adapters.langgraph.objects import ALWAYS, extends, family
from perdure.adapters.langgraph.refusals import Refused, not_data, would_lose

log = logging.getLogger("perdure.adapters.langgraph")
SAFE = frozenset(f"{module}:{name}" for module, name in SAFE_MSGPACK_TYPES) | ALWAYS
_LANGCHAIN_DATA = tuple(f"langchain_core.{name}" for name in ("messages", "documents", "agents", "outputs", "prompt_values"))
_ACTING = {
    "langchain_core.runnables.base:Runnable": "a client, a tool or another part of a program, not data",
    "langchain_core.embeddings.embeddings:Embeddings": "a client, not data",
    "pydantic_settings.main:BaseSettings": "a settings class: it reads the environment when it is made",
    "pydantic.v1.env_settings:BaseSettings": "a settings class: it reads the environment when it is made",
    "pydantic.env_settings:BaseSettings": "a settings class: it reads the environment when it is made",
}
ADVICE = "pass it in allow=[…], or in the allowed_msgpack_modules of the serialiser that you pass"
WARNED_MAX = 1_000
_warned: set[tuple[str, str]] = set()


class Rules(Enum):
    """What happens to a data type that is not listed."""

    OPEN = "stored and restored"
    LENIENT = "stored, as in the framework's strict mode, and comes back as plain data"
    CLOSED = "refused"


class Classes:
    """What one serialiser allows. `given` are classes, `listed` names as the framework spells them."""

    def __init__(self, given: Iterable[type], listed: Iterable[tuple[str, ...]], rules: Rules) -> None:
        self._given = {class_name(kind): kind for kind in given}
        self._listed = SAFE | {f"{pair[0]}:{pair[1]}" for pair in listed if len(pair) == 2}
        self._rules = rules
        self._troubles: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()

    def key(self, kind: type) -> str:
        """The name under which an object of this class is stored. Raises `Refused`."""
        key = class_name(kind)
        given = self._given.get(key)
        if given is kind:
            return key
        if family(kind) is None:
            raise not_data(kind)
        found = given or find_class(key)
        if found is not None and found is not kind:
            raise would_lose(kind, "its name means another class by now, and it would become an object of that one")
        trouble = self._trouble(kind)
        if trouble and (self._rules is not Rules.LENIENT or _acting(kind)):
            raise Refused(kind, trouble)
        if trouble:
            warn_once(key, "unlisted", "%s is not on the serialiser's list, so it will come back as plain data: %s.", key, ADVICE)
        elif found is None:
            warn_once(
                key,
                "nameless",
                "%s cannot be found by its name, so it will come back as plain data: define it in a module, or %s.",
                key,
                ADVICE,
            )
        return key

    def find(self, key: str) -> type | None:
        """The class that a stored name means, if objects of it may be made."""
        found = self._given.get(key)
        if found is not None:
            return found
        if key in SAFE:
            importlib.import_module(key.partition(":")[0])
        found = find_class(key)
        return None if found is None or family(found) is None or self._trouble(found) else found

    def _trouble(self, kind: type) -> str:
        """Why objects of this class are not made; empty if they are made."""
        known = self._troubles.get(kind)
        if known is None:
            known = self._troubles[kind] = self._judge(kind)
        return known

    def _judge(self, kind: type) -> str:
        if not self._listed.isdisjoint((class_name(kind), f"{kind.__module__}:{kind.__name__}")):
            return ""
        acting = _acting(kind)
        if self._rules is Rules.OPEN and acting is None:
            return ""
        return f"is not allowed{f' without being listed, for it is {acting}' if acting else ''}: {ADVICE}"


def _acting(kind: type) -> str | None:
    """Why a data type is more than data, if it is."""
    for base in kind.__mro__:
        reason = _ACTING.get(class_name(base))
        if reason is not None:
            return reason
    if issubclass(kind, Serializable) and not any(
        base.__module__.startswith(_LANGCHAIN_DATA) for base in kind.__mro__[: kind.__mro__.index(Serializable)]
    ):
        return "one of LangChain's serializable parts of a program, not data"
    if extends(kind):
        return "an extension of a built-in class, whose name may mean more than its content"
    if hasattr(kind, "__del__"):
        return "a class that runs code when an object of it is freed"
    fields = getattr(kind, "__pydantic_fields__", None) or {}
    if any(_imports(field.annotation) or any(map(_imports, field.metadata)) for field in fields.values()):
        return "a model with an ImportString, which imports by name"
    return None


def _imports(annotation: Any) -> bool:
    if annotation is ImportString or type(annotation) is ImportString:
        return True
    return any(map(_imports, typing.get_args(annotation)))


def warn_once(key: str, kind: str, text: str, *facts: Any) -> None:
    """Log a warning once in each process."""
    if (key, kind) not in _warned and len(_warned) < WARNED_MAX:
        _warned.add((key, kind))
        log.warning(text, *facts)
