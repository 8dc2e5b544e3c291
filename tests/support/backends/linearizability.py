"""Whether what many clients saw of one session could have happened one call at a time: Wing and Gong's search with Lowe's memory.

J. Wing, C. Gong, "Testing and verifying concurrent objects", 1993; G. Lowe, "Testing for linearizability", 2017.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Position = tuple[int, bytes] | None
"""A head: version and hash."""


class State(NamedTuple):
    """What a session is: its head, and the version at which each key was applied."""

    head: Position = None
    keys: Mapping[str, int] = {}


@dataclass(frozen=True)
class Call:
    """One call and what came back. `end` is infinite when no answer came: it may happen later, or never."""

    start: float
    end: float = field(default=math.inf, kw_only=True)

    def after(self, state: State) -> State | None:
        """The state behind this call, if it could have its answer in front of it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Write(Call):
    """A conditional append of one record: applied; or without an answer."""

    expected: Position
    made: Position
    key: str

    def after(self, state: State) -> State | None:
        if state.head != self.expected or self.key in state.keys or self.made is None:
            return None
        return State(self.made, {**state.keys, self.key: self.made[0]})


@dataclass(frozen=True)
class Refusal(Call):
    """A conditional append that found another head."""

    expected: Position
    found: Position
    key: str

    def after(self, state: State) -> State | None:
        return state if state.head == self.found != self.expected and self.key not in state.keys else None


@dataclass(frozen=True)
class Read(Call):
    """A read of the head."""

    found: Position

    def after(self, state: State) -> State | None:
        return state if state.head == self.found else None


@dataclass(frozen=True)
class Lookup(Call):
    """A key was found at a version, or not: by a look-up, or by an append that had it."""

    key: str
    version: int | None

    def after(self, state: State) -> State | None:
        return state if state.keys.get(self.key) == self.version else None


def linearizable(calls: Sequence[Call]) -> bool:
    """Whether one order of the calls, true to real time, explains every answer. A call without an answer may be left out."""
    calls = sorted(calls, key=lambda call: call.start)
    answered = sum(1 << number for number, call in enumerate(calls) if call.end < math.inf)
    seen = set()
    todo = [(0, State())]
    while todo:
        done, state = todo.pop()
        if done & answered == answered:
            return True
        if (done, state.head) in seen:
            continue
        seen.add((done, state.head))
        following = [(number, calls[number].after(state)) for number in _next(calls, done)]
        # A call that changes nothing, and fits, comes first in some order if there is any: none else has to be tried.
        unchanged = next(((number, after) for number, after in following if after is state), None)
        for number, after in following if unchanged is None else [unchanged]:
            if after is not None:
                todo.append((done | 1 << number, after))
    return False


def _next(calls: Sequence[Call], done: int) -> list[int]:
    """The calls that may come next: those that began before any other that is not done had ended."""
    found: list[int] = []
    first_end = math.inf
    for number in range((~done & done + 1).bit_length() - 1, len(calls)):
        if done >> number & 1:
            continue
        if calls[number].start > first_end:
            break
        found.append(number)
        first_end = min(first_end, calls[number].end)
    return found
