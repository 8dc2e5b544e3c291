"""A commit on its way to many clients: encoded once, and once more for each choice of event types."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.engine.views import only
from perdure.model.commit import Commit, Kind
from perdure.wire.sse import message

_ENCODE = msgspec.json.Encoder().encode


class Choice(msgspec.Struct, frozen=True):
    """Which commits a client wants, and which of their events."""

    types: frozenset[str] | None = None
    prefix: str = ""
    control: bool = False
    """Those of leases too."""


class Entry:
    """A commit of a session, and where a client goes on after it."""

    __slots__ = ("_frames", "_many", "commit", "position", "session")

    def __init__(self, session: str, commit: Commit, position: str, *, many: bool = False) -> None:
        """`many`: it is one of many sessions' commits, so a client is shown the session and the position."""
        self.session, self.commit, self.position, self._many = session, commit, position, many
        self._frames: dict[frozenset[str] | None, bytes | None] = {}

    def shown(self, choice: Choice) -> dict[str, Any] | None:
        """What a client gets; `None`: nothing."""
        if (self.commit.kind is Kind.lease and not choice.control) or not self.session.startswith(choice.prefix):
            return None
        commit = only(self.commit, choice.types)
        if commit is None:
            return None
        return {"session": self.session, "cursor": self.position, **commit.to_dict()} if self._many else commit.to_dict()

    def frame(self, choice: Choice) -> bytes | None:
        """The same as a message of an event stream; made once for all clients with these types."""
        if (self.commit.kind is Kind.lease and not choice.control) or not self.session.startswith(choice.prefix):
            return None
        if choice.types not in self._frames:
            said = self.shown(choice)
            self._frames[choice.types] = None if said is None else message(_ENCODE(said), id=self.position)
        return self._frames[choice.types]
