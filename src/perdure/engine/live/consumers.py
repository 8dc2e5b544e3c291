"""What the checkpoint of a consumer says: which changes it takes, how far it is, what it has parked. See `perdure.ops.consume`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from perdure.engine.live.changes import Selection
from perdure.engine.views import Change
from perdure.errors import Invalid
from perdure.model import ops as op
from perdure.model.ids import check_name
from perdure.model.pointer import join
from perdure.wire.paths import segment

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


class Progress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a run of a consumer has done since its checkpoint was written last."""

    run: str
    """The run, and `saves` how often it has written, with this time."""
    saves: int
    cursor: str | None
    """Where it goes on; `None`: at the start."""
    handled: int = 0
    """How many changes it has handled."""
    position: Position | None = None
    """The newest of them."""
    parked: dict[str, Parked | None] = {}
    """By session what is parked now; `None`: nothing any more."""

    @property
    def ops(self) -> list[op.Op]:
        """How it changes the state."""
        found = [op.set("/cursor", self.cursor), op.set("/run", self.run), op.set("/saves", self.saves)]
        if self.position is not None:
            found += [op.add("/handled", self.handled), op.set("/position", msgspec.to_builtins(self.position))]
        found += [op.remove(path_of(session)) for session, parked in self.parked.items() if parked is None]
        kept = [(session, parked) for session, parked in self.parked.items() if parked is not None]
        return found + [op.set(path_of(session), msgspec.to_builtins(parked)) for session, parked in kept]


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


def path_of_consumer(name: object) -> str:
    """The resource of a consumer at a node. Raises `Invalid`."""
    return f"/v1/consumers/{segment(session_id(name).removeprefix(PREFIX))}"


def state_of(state: Mapping[str, Any]) -> State:
    """The state of such a session, typed."""
    return msgspec.convert(state, State)


def path_of(session: str) -> str:
    """Where the state has what is parked of a session."""
    return join(("parked", session))
