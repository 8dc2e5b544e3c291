"""Schema 2 beside the kit, said once. Each engine says how it counts entries of what is due, and how its header is changed by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import perdure
from perdure.backends.conformance import behind
from perdure.backends.spi import NEVER, Appended, Index, Query
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey
from tests.support.backends.scenarios import opened

S = SessionKey("acme", "s")
DUE = Query(None, order="due")
Count = Callable[[Any], Awaitable[int]]
"""How many entries of a backend's store say that a session is due."""


async def a_later_header_is_kept(
    url: str, make_later: Callable[[Any], Awaitable[None]], read: Callable[[Any], Awaitable[tuple[Any, Any, Any]]], kept: Any
) -> None:
    """A header of schema 3 with `min_writer` 2 opens and works; what it says beside is kept; with 3 it is refused.

    `make_later` gives the header that schema, and beside it `kept`; `read` gives its schema, its least writer and what it says beside.
    """
    async with opened(url) as backend:
        await make_later(backend)
    async with opened(url) as backend:
        assert isinstance((await backend.append([behind(S, index=Index(due_at=5))]))[0], Appended)
        assert [row.session for row in (await backend.scan(DUE)).items] == [S]
        await backend.require_writer(3)
        assert await read(backend) == (3, 3, kept)
        assert isinstance((await backend.append([behind(S)]))[0], perdure.Unsupported)
    with pytest.raises(perdure.Unsupported, match="upgrade perdure"):
        async with opened(url):
            pass


async def due_entries_follow_the_rows(url: str, count: Count) -> None:
    """A session has one entry while it is due, and none after it is not, or was purged, also where its stub was due again."""
    most = Index(due_at=5, control=b"\r\n\0\xff", size_bytes=(1 << 63) - 1)
    async with opened(url) as backend:
        await backend.append([behind(S, index=most)])
        for due_at in (6, 6, 1 << 62):
            await backend.append([behind(S, index=Index(due_at=due_at))])
            assert await count(backend) == 1
        row = (await backend.load(S)).row
        assert (row.control, row.size_bytes) == (most.control, most.size_bytes)
        await backend.change_index(row, Index(due_at=NEVER))
        assert await count(backend) == 0
        await backend.append([behind(S, index=Index(due_at=9), kind=Kind.tombstone, status=Status.deleted)])
        assert await count(backend) == 1
        await backend.purge(S)
        assert await count(backend) == 0
        row = (await backend.load(S)).row
        assert (row.due_at, row.control, row.size_bytes) == (None, b"", 0)
        assert await backend.change_index(row, Index(due_at=5, control=b"after the purge"))
        await backend.purge(S)
        assert await count(backend) == 0
        assert (await backend.load(S)).row == row


async def appends_and_changes_of_a_row_race(url: str, count: Count, *, appends: int = 20, changes: int = 40) -> None:
    """Two handles append with cells, and change the row, at the same time: each append is stored, and the entry is that of the row."""

    async def append(backend: Any, first: int) -> None:
        for number in range(appends):
            (outcome,) = await backend.append([behind(S, index=Index(due_at=first + number, size_bytes=number))])
            assert isinstance(outcome, Appended)

    async def touch(backend: Any) -> None:
        for number in range(changes):
            await backend.change_index((await backend.load(S)).row, Index(due_at=9000 + number, control=b"%d" % number))

    async with opened(url) as one, opened(url) as other:
        await one.append([behind(S, index=Index(due_at=1))])
        await asyncio.gather(append(one, 100), append(other, 200), touch(one), touch(other))
        row = (await one.load(S)).row
        assert row.head.version == 2 * appends + 1
        assert await count(one) == 1
        assert [found.due_at for found in (await other.scan(DUE)).items] == [row.due_at]
