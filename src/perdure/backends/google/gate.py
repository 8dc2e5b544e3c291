"""What holds before anything is written: the service minds conditions, and the store takes writers of this version."""

from __future__ import annotations

from perdure.backends.common.schema import WriterCheck
from perdure.backends.common.store_header import StoreHeader
from perdure.backends.google.entities import ABSENT, Entities, Entity, Refused, Write
from perdure.backends.google.upgrade import MetaHeaders
from perdure.clock import Clock
from perdure.errors import Unavailable, Unknown, Unsupported


class WriteGate:
    """The gate of one open store. `entity` is the store's header, which was just read as `header`."""

    def __init__(self, entities: Entities, place: str, clock: Clock, entity: Entity, header: StoreHeader) -> None:
        self._entities, self._place = entities, place
        self.writers = WriterCheck(place, header, self._min_writer, clock.monotonic)
        self._unproven: Entity | None = entity

    async def check(self) -> None:
        """Raise `Unsupported` for a service that would lose commits, or where this handle is too old. Seldom a request."""
        await self.prove()
        await self.writers.check()

    async def _min_writer(self) -> int:
        return (await MetaHeaders(self._entities, self._place).read()).min_writer

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
