"""Listings from the indexes in memory: one tenant's sessions by id, and what is due of every tenant."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from operator import itemgetter

from perdure.backends.common.checks import LOOKED_MAX, fits, matches
from perdure.backends.common.schema import read_due_cursor, write_due_cursor
from perdure.backends.objects.due import Place
from perdure.backends.objects.shard import Shard
from perdure.backends.spi import Page, Query, Row


def by_id(shards: Sequence[Shard], query: Query, cursor: str | None, limit: int) -> Page[Row]:
    """A page in the order `id`."""
    found = [
        shard.index.row(session)
        for shard in shards
        for session, chain in shard.chains.items()
        if matches(query, cursor, session, chain.head, chain.tags)
    ]
    found.sort(key=lambda row: row.session.id.encode())
    page = found[:limit]
    return Page(page, page[-1].session.id if len(page) < len(found) else None)


def by_due(shards: Sequence[Shard], query: Query, cursor: str | None, limit: int) -> Page[Row]:
    """A page in the order `due`. It looks at what is due and at nothing else, and is short where little of that fits."""
    rows: list[Row] = []
    last = None if cursor is None else read_due_cursor(cursor)
    places = heapq.merge(*[_places(shard, last) for shard in shards], key=itemgetter(0))
    for looked, (place, shard) in enumerate(places):
        if query.due_before is not None and place[0] >= query.due_before:
            break
        if last is not None and (len(rows) == limit or looked == LOOKED_MAX):
            return Page(rows, write_due_cursor(*last))
        last = place
        chain = shard.chains[place[1]]
        if fits(query, place[1], chain.head, chain.tags):
            rows.append(shard.index.row(place[1]))
    return Page(rows, None)


def _places(shard: Shard, after: Place | None) -> Iterator[tuple[Place, Shard]]:
    return ((place, shard) for place in shard.index.due.after(after))
