"""What the checkpoint of a consumer says: which changes it takes, how far it is, what it has parked. See `perdure.ops.consume`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from perdure.engine.live.changes import Selection
from perdure.engine.views import Change
from perdure.errors import Invalid
from perdure.model.ids import check_name
from perdure.model.pointer import join

PREFIX = "consumer/"
"""What the ids of these sessions of a system tenant begin with."""
NAME_BYTES_MAX = 200
"""Longest name of a consumer, in bytes of UTF-8."""


class Registration(msgspec.Struct, frozen=True):
    """What a consumer of a name is: the name of its code, and which changes it takes."""

    code: str
    types: list[str] | None
    prefix: str
    tags: Mapping[str, str]
    control: bool

    @classmethod
    def of(cls, code: str, selection: Selection) -> Registration:
        types = None if selection.types is None else sorted(selection.types)
        return cls(code, types, selection.prefix, selection.tags, selection.control)

    def selection(self) -> Selection:
        """Which changes it takes."""
        types = None if self.types is None else frozenset(self.types)
        return Selection(types=types, prefix=self.prefix, tags=self.tags, control=self.control)


class Position(msgspec.Struct, frozen=True):
    """The newest commit that was handled; `at` in nanoseconds since 1970."""

    session: str
    version: int
    at: int

    @classmethod
    def of(cls, change: Change) -> Position:
        return cls(change.session, change.commit.version, change.commit.at)


class Parked(msgspec.Struct):
    """What waits of a session whose commit could not be handled: the commits from `first` to `last`."""

    first: int
    last: int
    error: str
    """What the handler raised last."""
    since: int
    """When it was parked, in nanoseconds since 1970."""
    retry: bool = False
    """Whether the consumer is asked to try again."""


class State(msgspec.Struct):
    """The state of the session."""

    name: str
    registration: Registration
    cursor: str | None
    run: str
    """The run that wrote it last, and `saves` how often it had written."""
    saves: int
    handled: int
    position: Position | None
    parked: dict[str, Parked]
    registered: str = ""
    """Made when the consumer was registered: one that was forgotten and registered again has another."""


def session_id(name: object) -> str:
    """The session of a consumer. Raises `Invalid` for what cannot be a name."""
    checked = check_name("A consumer's name", name)
    if len(checked.encode()) > NAME_BYTES_MAX:
        raise Invalid(f"A consumer's name may have at most {NAME_BYTES_MAX} bytes; this one has {len(checked.encode())}.")
    return PREFIX + checked


def state_of(state: Mapping[str, Any]) -> State:
    """The state of such a session, typed."""
    return msgspec.convert(state, State)


def path_of(session: str) -> str:
    """Where the state has what is parked of a session."""
    return join(("parked", session))
