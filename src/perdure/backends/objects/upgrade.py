"""From schema 1 to 2, and which writers a store takes. What schema 2 stores is stored where it is needed, so nothing is rewritten.

The name tag says it to those that open the store, and each log to those that have it open.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from perdure.backends.common import upgrade as common
from perdure.backends.common.upgrade import SchemaState
from perdure.backends.objects.bucket import Bucket
from perdure.backends.objects.name_tag import META, parse_tag
from perdure.backends.objects.shard import Shard
from perdure.backends.spi import Progress


async def require_writer(bucket: Bucket, shards: Sequence[Shard], version: int) -> None:
    """See `spi.Versioned`."""
    await common.require_writer(TagHeaders(bucket), version)
    await _require_in_logs(shards, version)


async def _require_in_logs(shards: Sequence[Shard], version: int) -> None:
    for shard in shards:
        await shard.require_writer(version)


async def migrate(bucket: Bucket, shards: Sequence[Shard], from_version: int, progress: Progress) -> None:
    """See `spi.Versioned`."""
    steps = [("the writers that each log takes", lambda: _require_in_logs(shards, from_version + 1))]
    await common.upgrade(TagHeaders(bucket), from_version, steps, progress)


class TagHeaders:
    """The name tag as the header that an upgrade changes, see `upgrade.Headers`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def read(self) -> SchemaState:
        """See `upgrade.Headers`."""
        data = await self._bucket.get(META)
        return parse_tag(data or b"", self._bucket.place)[2]

    async def swap(self, old: SchemaState, new: SchemaState) -> bool:
        """See `upgrade.Headers`. A change whose answer was lost is found by what it wrote."""

        def changed(data: bytes) -> bytes:
            _, fields, found = parse_tag(data, self._bucket.place)
            if found != old:
                return data
            fields |= {"perdure": new.schema, "min_writer": new.min_writer, "lock": new.lock, "count": new.count}
            if not new.lock:
                del fields["lock"], fields["count"]
            return json.dumps(fields).encode()

        return parse_tag(await self._bucket.change(META, changed), self._bucket.place)[2] == new
