"""What holds before anything is written: the service minds conditions, and the store takes writers of this version."""

from __future__ import annotations

from perdure.backends.common.schema import check_writer, writer_version
from perdure.backends.google import layout
from perdure.backends.google.entities import ABSENT, Entities, Entity, Refused, Write
from perdure.clock import Clock
from perdure.errors import Corrupt, Unavailable, Unknown, Unsupported

MIN_WRITER_SECONDS = 5.0
"""How long a writer goes by the least writer version that it read."""


class WriteGate:
    """The gate of one open store. `entity` is the store's header, read when the clock said `read_at`."""

    def __init__(self, entities: Entities, place: str, clock: Clock, entity: Entity, read_at: float) -> None:
        self._entities, self._place, self._clock = entities, place, clock
        state = layout.decode_meta(entity)
        self._writer, self._min_writer = writer_version(state.schema), state.min_writer
        self._read_at = read_at
        self._unproven: Entity | None = entity

    async def check(self) -> None:
        """Raise `Unsupported` for a service that would lose commits, or where this handle is too old. Seldom a request."""
        await self.prove()
        now = self._clock.monotonic()
        if now - self._read_at >= MIN_WRITER_SECONDS:
            (entity,) = await self._entities.get([layout.META])
            if entity is None:
                raise Corrupt(f"The header of the store at {self._place} is gone: restore it from a backup.")
            self._min_writer, self._read_at = layout.decode_meta(entity).min_writer, now
        check_writer(self._place, self._writer, self._min_writer)

    def expire(self) -> None:
        """Read the least writer version again before the next write."""
        self._read_at = float("-inf")

    async def prove(self) -> None:
        """See that a service refuses what it should: a write that it applies here would be a commit that it loses later."""
        entity = self._unproven
        if entity is None:
            return
        try:
            await self._entities.commit([Write(entity.path, entity.fields, ABSENT)])
        except Refused:
            self._unproven = None
            return
        except Unknown as error:  # No commit was sent yet.
            raise Unavailable(f"{self._place} did not answer when its conditions were tried.") from error
        raise Unsupported(f"{self._place} ignores the condition of a write: commits would be lost.")
