"""Wakes callers of this process who wait for an entry, or for the end of a session's queue. What they waited for they read themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from perdure.concurrency.critical_section import CriticalSection
from perdure.concurrency.replies import Reply
from perdure.model.ids import SessionKey

Topic = int | SessionKey | None
"""What is waited for: an entry by its number, a session's queue, or anything at all."""


class Signals:
    """Safe from any thread and loop. A signal may be missed only where another process ships: so every wait for one ends by itself too."""

    def __init__(self) -> None:
        self._waiting: dict[Topic, set[Reply[None]]] = {}
        self._section = CriticalSection()

    @contextmanager
    def waiting(self, topic: Topic) -> Iterator[Reply[None]]:
        """A reply that is set when the topic moves. It is entered before the caller looks, so that nothing is missed in between."""
        reply: Reply[None] = Reply()
        with self._section:
            self._waiting.setdefault(topic, set()).add(reply)
        try:
            yield reply
        finally:
            with self._section:
                replies = self._waiting.get(topic)
                if replies is not None:
                    replies.discard(reply)
                    if not replies:
                        del self._waiting[topic]

    def fire(self, *topics: Topic) -> None:
        """These topics moved."""
        with self._section:
            woken = [reply for topic in topics for reply in self._waiting.get(topic, ())]
        for reply in woken:
            reply.set(None)

    def fire_all(self) -> None:
        """Everything may have moved."""
        self.fire(*list(self._waiting))
