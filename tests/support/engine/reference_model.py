"""A session store in plain Python: lists of dicts, copied whole. What the real one is compared with."""

from __future__ import annotations

import copy
from typing import Any

import msgspec

State = dict[str, Any]
Step = tuple[str, str, Any]
"""What is done to one top-level key: (set | remove | add | append, key, value)."""


class Misfit(Exception):
    """A step has no place in the state: the store must refuse it."""


class Link(msgspec.Struct):
    """One commit: its kind, the types of its events, and the state behind it."""

    kind: str
    types: tuple[str, ...]
    state: State
    key: str | None = None
    actor: str | None = None


class Session(msgspec.Struct):
    """A chain (`links[0]` is version 1), its tags, whether it is deleted, and for a fork its parent's name, the version it left at
    and the one of its own up to which the parent has it."""

    links: list[Link]
    tags: dict[str, str] = {}
    deleted: bool = False
    parent: str | None = None
    forked_at: int = 0
    left_at: int = 0
    keys: dict[str, tuple[int, Any]] = {}

    @property
    def version(self) -> int:
        return len(self.links)

    @property
    def state(self) -> State:
        return self.links[-1].state

    @property
    def life(self) -> int:
        """The version of the last tombstone, or 0."""
        return max((version for version, link in enumerate(self.links, 1) if link.kind == "tombstone"), default=0)

    def add(self, kind: str, types: tuple[str, ...], state: State | None = None, **facts: Any) -> None:
        """A commit behind the head; without a state it changes none."""
        self.links.append(Link(kind, types, copy.deepcopy(self.state if state is None and self.links else state or {}), **facts))

    def changed(self, after: int) -> bool:
        """Whether a data commit came after a version."""
        return any(link.kind == "data" for link in self.links[after:])


def done(state: State, steps: list[Step], *, gone_is_gone: bool = False) -> State:
    """The state after the steps, in a copy. Raises `Misfit`, also for removing what is not there, unless `gone_is_gone`."""
    state = copy.deepcopy(state)
    for kind, key, value in steps:
        if kind == "set":
            state[key] = copy.deepcopy(value)
        elif kind == "remove":
            if key not in state and not gone_is_gone:
                raise Misfit
            state.pop(key, None)
        elif kind == "add":
            if isinstance(state.get(key, 0), bool) or not isinstance(state.get(key, 0), (int, float)):
                raise Misfit
            state[key] = state.get(key, 0) + value
        else:
            if not isinstance(state.get(key, []), list):
                raise Misfit
            state.setdefault(key, []).extend(copy.deepcopy(value))
    return state


def combines(mine: list[Step], theirs: list[tuple[str, str, Any]]) -> bool | None:
    """Whether my steps go over theirs: True they must, False they must not, None where the plain model has no opinion."""
    answer: bool | None = True
    for key in dict.fromkeys(key for _, key, _ in mine):
        here = [(kind, value) for kind, k, value in mine if k == key]
        there = [(kind, value) for kind, k, value in theirs if k == key]
        kinds = {kind for kind, _ in here} | {kind for kind, _ in there}
        if not there or kinds in ({"add"}, {"append"}):
            continue
        if len(here) == len(there) == 1 and kinds == {"set"}:
            if here[0][1] != there[0][1] or type(here[0][1]) is not type(there[0][1]):
                return False
        elif not (len(here) == len(there) == 1 and kinds == {"remove"}):
            answer = None
    return answer
