"""Upcasters: they turn events of old types into today's. They are applied when commits are read; what is stored never changes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import msgspec

from perdure.errors import Invalid
from perdure.model.commit import Commit
from perdure.model.events import Event, check_event_type

Upcaster = Callable[[Event], Event]
"""How an old event reads today: a function from the stored event to the one that `history` gives."""
"""From an event as it was written to the same event as it would be written today: another type, other data."""

STEPS_MAX = 32
"""Most upcasters that one event passes, from type to type."""


class Upcasters:
    """A registry of upcasters by event type. What an upcaster returns is looked up again, so versions can be stepped through."""

    def __init__(self, upcasters: Mapping[str, Upcaster]) -> None:
        """Raises `Invalid` for a key that is no event type or a value that cannot be called."""
        for name, upcaster in upcasters.items():
            check_event_type(name)
            if not callable(upcaster):
                raise Invalid(f"The upcaster of event type {name!r} must be a function from Event to Event.")
        self._upcasters = dict(upcasters)

    @property
    def types(self) -> Collection[str]:
        """The stored types of events that read as others today."""
        return self._upcasters.keys()

    def commit(self, commit: Commit) -> Commit:
        """The commit with today's events. Its operations stay as they were folded, and its hashes are those of what is stored."""
        if not any(event.type in self._upcasters for event in commit.events):
            return commit
        return msgspec.structs.replace(commit, events=tuple([self._event(event) for event in commit.events]))

    def _event(self, event: Event) -> Event:
        ops = event.ops
        for _ in range(STEPS_MAX):
            upcaster = self._upcasters.get(event.type)
            if upcaster is None:
                return event
            before = event.type
            event = upcaster(event)
            if not isinstance(event, Event):
                raise Invalid(f"The upcaster of event type {before!r} returned {type(event).__name__}, not an Event.")
            event = Event(event.type, event.data, ops)
            if event.type == before:
                return event
        raise Invalid(f"The upcasters lead from type to type without an end; the last was {event.type!r}.")
