"""Classes that the running program has imported, found by their names.

Stored bytes name classes. A look-up imports nothing and runs no code of the program: it reads the dictionaries of modules and classes,
so that a module's own `__getattr__`, which may import, is not called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def class_name(kind: type) -> str:
    """The name by which a class is stored: `module:qualified.name`."""
    return f"{kind.__module__}:{kind.__qualname__}"


def find_class(key: str) -> type | None:
    """The class of this name, if its module is imported and has the class under that name."""
    module, _, qualname = key.partition(":")
    place: Any = sys.modules.get(module)
    path, bracket, _ = qualname.partition("[")
    for part in path.split("."):
        if not isinstance(place, (ModuleType, type)):
            return None
        place = vars(place).get(part)
    if bracket and isinstance(place, type):
        place = _parametrized(place, key)
    return place if isinstance(place, type) and class_name(place) == key else None


def _parametrized(origin: type, key: str) -> type | None:
    """A generic class with its parameters filled in, such as pydantic's `Box[int]`: it is no attribute of a module, its origin knows it."""
    rest = [origin]
    while rest:
        children: list[type] = type.__subclasses__(rest.pop())
        for kind in children:
            if class_name(kind) == key:
                return kind
            if "[" in kind.__qualname__:
                rest.append(kind)
    return None
