"""Values that frameworks hand over and that JSON, UTF-8 or both cannot say: what each adapter is tried with."""

from __future__ import annotations

import math
from typing import Any

HALVES = ["cut \ud83d", "\ude00 rest", "\ud83d\ude00", "a\udcffz", "\ufdd0d83d\ufdd1", "\ufdd0", "\ud800" * 3]
"""Half of a surrogate pair at an end, at the start, both halves apart, a byte that was no UTF-8, what looks like the adapters' escape."""


class Odd:
    """An object of no known kind."""

    def __init__(self) -> None:
        self.text = "\ud83d"


def _ring() -> dict[str, Any]:
    ring: dict[str, Any] = {}
    ring["self"] = ring
    return ring


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    return deep


def values() -> dict[str, Any]:
    """By name, fresh ones each time."""
    return {
        "nan": math.nan,
        "infinity": -math.inf,
        "bytes": b"\xff\xfe",
        "bytes as key": {b"\xff": 1},
        "number as key": {1: 2},
        "tuple as key": {(1, 2): 3},
        "none as key": {None: 1},
        "set": {1, 2},
        "tuple": (1, ("\ud83d",)),
        "object": Odd(),
        "class": Odd,
        "function": values,
        "complex": 1 + 2j,
        "long integer": 10**5_000,
        "large integer": 10**400,
        "ring": _ring(),
        "deep": _deep(),
        "half": "\ud83d",
        "half as key": {"\ud83d": {"\ud83d": ["\ud83d", b"\xff"]}},
        "generator": (number for number in range(3)),
        "memoryview": memoryview(b"\xff"),
        "exception": ValueError("\ud83d"),
        "text subclass": type("Text", (str,), {})("x\ud83d"),
        "integer subclass": type("Number", (int,), {})(7),
    }


NAMES = sorted(values())
