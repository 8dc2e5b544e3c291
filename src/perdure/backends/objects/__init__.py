"""Object stores and folders: sessions hash to shards, a shard is a log of numbered segments, a segment is one object made once.

Condition   a segment is put only if no object has its number (If-None-Match, generation 0; a hard link in a folder). A process that puts
            number n has read all segments below n, so it knows every head of the shard: one put holds many sessions' commits, each
            on its head
Durability  `quorum` on a cloud's own service, which answers when several machines have the object; `buffered` on another endpoint,
            whose answer proves no more; `local` in a folder (file and folder synced)
Positions   a number stays taken for ever; what truncation and purge drop is taken out of segments by putting them again, smaller
Derived     checkpoints of a shard's index, snapshots: rebuilt or done without when they are lost
Limits      the index of a shard is held in memory: about 500 bytes a session and 8 a commit
Errors      `cloud.mapped` and `folder.mapped`, once each; a put without an answer is settled by reading its number back
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

from perdure.backends.objects.bucket import Bucket
from perdure.backends.objects.driver import ObjectsDriver
from perdure.backends.objects.folder import Folder
from perdure.backends.remote import RemoteBackend, open_address, parse_address
from perdure.backends.remote.urls import Address, count, name, seconds
from perdure.backends.spi import Durability
from perdure.clock import Clock
from perdure.errors import Invalid

OPTIONS: dict[str, tuple[Any, Any]] = {
    "namespace": ("perdure", name),
    "shards": (None, count(1, 256)),
    "timeout": (10.0, seconds),
}
"""What every URL of this engine takes."""


async def open(url: str, *, clock: Clock, create: bool = True) -> RemoteBackend:
    """Open `file:///folder?option=value`. Without `create` nothing is made.

    Raises `Invalid`, `NotFound`, `Unavailable`, `Unsupported` (a place that ignores conditions), `Corrupt`.
    """
    address = parse_address(url, OPTIONS, hostless=True, path_any=True)
    path = unquote(address.path)
    if address.hosts or address.user or len(path) < 2:
        raise Invalid(f"{address.place!r} names no folder: write file:///absolute/folder.")
    return await open_bucket(address, Folder(Path(path) / address.options["namespace"]), Durability.local, clock, create=create)


async def open_bucket(address: Address, bucket: Bucket, durability: Durability, clock: Clock, *, create: bool) -> RemoteBackend:
    """The engine on a bucket whose writes are safe to this level."""
    options = address.options

    async def connect() -> ObjectsDriver:
        return ObjectsDriver(bucket, durability, clock, timeout=options["timeout"])

    return await open_address(address, connect, lambda driver: driver.start(options["shards"], create=create))
