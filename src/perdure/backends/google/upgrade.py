"""From schema 1 to 2, and which writers a store takes. Both are words in the store's header: services index a new field by themselves."""

from __future__ import annotations

from perdure.backends.common import schema
from perdure.backends.common import upgrade as common
from perdure.backends.common.upgrade import SchemaState
from perdure.backends.google import layout
from perdure.backends.google.entities import Entities, Entity, Refused, Write
from perdure.backends.spi import Progress
from perdure.errors import Corrupt


async def require_writer(entities: Entities, place: str, version: int) -> None:
    """See `spi.Versioned`."""
    await common.require_writer(MetaHeaders(entities, place), version)


async def migrate(entities: Entities, place: str, from_version: int, progress: Progress) -> None:
    """See `spi.Versioned`."""
    await common.upgrade(
        MetaHeaders(entities, place),
        from_version,
        [],
        progress,
        settle_seconds=schema.MIN_WRITER_SECONDS,
    )


class MetaHeaders:
    """The store's header as an upgrade changes it, see `upgrade.Headers`."""

    def __init__(self, entities: Entities, place: str) -> None:
        self._entities, self._place = entities, place

    async def _entity(self) -> Entity:
        (entity,) = await self._entities.get([layout.META])
        if entity is None:
            raise Corrupt(f"The header of the store at {self._place} is gone: restore it from a backup.")
        return entity

    async def read(self) -> SchemaState:
        """See `upgrade.Headers`."""
        return layout.decode_meta(await self._entity())

    async def swap(self, old: SchemaState, new: SchemaState) -> bool:
        """See `upgrade.Headers`."""
        entity = await self._entity()
        if layout.decode_meta(entity) != old:
            return False
        try:
            await self._entities.commit([Write(layout.META, layout.encode_meta(entity.fields, new), entity.version)])
        except Refused:
            return False
        return True
