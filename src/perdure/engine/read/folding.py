"""What one commit does to a session: to its standing, its state and its settings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from perdure.backends.spi import Head
from perdure.errors import Corrupt, Invalid
from perdure.model.commit import Commit, DerivedStatus
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.model.state import Fold, TestFailed


def event_of(commit: Commit) -> str:
    """The type of a control commit's event; "" where it has none."""
    return commit.events[0].type if commit.events else ""


def check_standing(session: SessionKey, head: Head, stand: DerivedStatus | None) -> DerivedStatus:
    """The standing of a head, if it is the one that its commits give (`None`: that is not known). Raises `Corrupt`."""
    if stand is not None and stand != (head.status, head.data):
        raise Corrupt(
            f"Version {head.version} of session {session.id!r} has another status or data version than its commits give.",
            session=session.id,
        )
    return head.status, head.data


def apply_events(session: SessionKey, fold: Fold, commit: Commit) -> bool:
    """Fold one commit; whether it has operations. They were validated when they were written, so one that does not fit is `Corrupt`."""
    changes = False
    for event in commit.events:
        if event.ops:
            changes = True
            try:
                fold.apply(event.ops)
            except (Invalid, TestFailed) as error:
                raise Corrupt(f"Version {commit.version} of session {session.id!r} does not fit the state before it: {error}") from error
    return changes


def configured(events: Iterable[Event]) -> dict[str, Any]:
    """What the events of a configure commit set."""
    settings: dict[str, Any] = {}
    for event in events:
        if event.type == "configured" and isinstance(event.data, dict):
            settings |= event.data
    return settings
