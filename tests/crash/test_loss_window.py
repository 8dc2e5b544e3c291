"""How much `durability="buffered"` may lose, as the docs have it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event
from tests.servers.postgresql import PostgreSQL
from tests.support.crash.disk import Disk

SQLITE_LOG_PAGES = 4_000
"""What docs/queues.md says of SQLite: pages of the log that may be unsynced."""
FRAME_BYTES = 4096 + 24
"""A page in the log, with its header."""
POSTGRESQL_SECONDS = 0.6
"""What docs/queues.md says of PostgreSQL: three times `wal_writer_delay`, as the server comes."""
STALL_SECONDS = 3.0
"""By how much a busy machine may keep the server's WAL writer from its work."""


async def test_sqlite_syncs_its_log_after_so_many_pages(tmp_path: Path) -> None:
    """However long a store is written with `buffered` only, no more than 4,000 pages of its log, and the transaction that passes them, are
    unsynced at any moment; and they do become more than a transaction, so that this is no `local` in disguise."""
    unsynced = most = transaction = last = 0
    with Disk("window") as disk:
        async with perdure.open(f"sqlite:///{tmp_path}/store.db?vfs=window", durability="buffered") as store:
            for number in range(2_000):
                await store.append("s", Event("x", f"{number:06}" * 2_000))
                grown = sum(len(entry.data) for entry in disk.journal[last:] if entry.kind == "write" and entry.name.endswith("-wal"))
                transaction, last = max(transaction, grown), len(disk.journal)
            for entry in disk.journal:
                if entry.name.endswith("-wal"):
                    unsynced = 0 if entry.kind == "sync" else unsynced + len(entry.data)
                    most = max(most, unsynced)
    assert SQLITE_LOG_PAGES / 2 * FRAME_BYTES < most <= SQLITE_LOG_PAGES * FRAME_BYTES + 2 * transaction


@pytest.mark.xdist_group("postgresql")
async def test_postgresql_keeps_what_is_older(server_of_my_own: Any) -> None:
    """Killed with all its processes, PostgreSQL has lost no `buffered` commit that was older than three times `wal_writer_delay`; what is
    left of the session is a whole beginning."""
    server = server_of_my_own(PostgreSQL)
    loop = asyncio.get_running_loop()
    acknowledged: list[tuple[int, float]] = []
    async with perdure.open(server.url, durability="buffered") as store:
        end = loop.time() + 2 * (POSTGRESQL_SECONDS + STALL_SECONDS)
        while loop.time() < end:
            receipt = await store.append("s", Event("x"))
            assert receipt.durability is perdure.Durability.buffered
            acknowledged.append((receipt.version, loop.time()))
        killed = loop.time()
        server.kill("primary")
        with pytest.raises((perdure.Unavailable, perdure.Unknown)):
            await store.append("s", Event("late"))
    server.launch("primary")
    async with perdure.open(server.url) as store:
        proof = await store.verify("s")
        assert proof.commits == proof.version
        old = [version for version, at in acknowledged if at < killed - POSTGRESQL_SECONDS - STALL_SECONDS]
        assert old
        assert proof.version >= old[-1]
