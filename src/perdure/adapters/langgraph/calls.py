"""Values that are stored as calls: {"$": "module.name", "ext": code, "value": arguments}, as the framework's serialiser spells them.

Values of the standard library are still written so. Calls of other classes come from older versions, and are read as the framework does.
"""

from __future__ import annotations

import importlib
from typing import Any

from langgraph.checkpoint.serde.types import _DeltaSnapshot
from pydantic import BaseModel

from perdure.adapters.langgraph import arrays
from perdure.adapters.langgraph.classes import SAFE, Classes
from perdure.adapters.langgraph.objects import Unfit, family
from perdure.adapters.langgraph.scalars import METHOD, NAMES, POSITIONS, SINGLE

_MODELS = (4, 5)
_ARRAY, _DELTA = 6, 7


def call_constructor(classes: Classes, tag: str, code: int, content: Any) -> Any:
    """The value. Raises `Unfit` if there is no such class, or it may not be called so."""
    if code == _ARRAY:
        dtype, shape, order, data = content
        return arrays.array(dtype, shape, order, data)
    if code == _DELTA:
        return _DeltaSnapshot(content)
    module, _, name = tag.rpartition(".")
    kind = _kind(classes, f"{module}:{name}")
    if code == METHOD:
        if tag != "datetime.datetime":
            raise Unfit("it is made by a method")
        return kind.fromisoformat(content)
    try:
        if code == SINGLE:
            return kind(content)
        if code == POSITIONS:
            return kind(*content)
        if code == NAMES and isinstance(kind, type) and (how := family(kind)) is not None:
            return how.make(kind, {"fields": content})
        if code == NAMES:
            return kind(**content)
        if code in _MODELS:
            return _model(kind, content)
    except Exception as error:  # the class's own code may raise anything, as the framework expects too
        raise Unfit(f"it does not fit its class: {error!r:.200}") from error
    raise Unfit(f"a newer version wrote it, with code {code!r:.20}")


def _kind(classes: Classes, key: str) -> Any:
    module, _, name = key.partition(":")
    if key in SAFE:
        return getattr(importlib.import_module(module), name)
    kind = classes.find(key)
    if kind is None:
        raise Unfit("its class is not allowed or not imported")
    return kind


def _model(kind: Any, content: Any) -> Any:
    """A model from its dumped fields: its validators make the models inside it."""
    try:
        return kind(**content)
    except Exception:
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            raise
        return kind.model_construct(**content)
