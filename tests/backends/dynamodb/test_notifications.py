"""Watching on DynamoDB: heads are looked at, for all who watch in few requests, and nothing is asked where nobody does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import perdure
from perdure import Event
from perdure.backends.spi import Notifying
from perdure.errors import Unsupported
from tests.support.backends.notifications import NEVER, watcher_of, writing
from tests.support.backends.scenarios import opened

IDS = [f"s{number}" for number in range(12)]


async def test_every_commit_comes_once_and_in_order(url: str) -> None:
    """Twelve sessions that another store writes are watched."""

    async with watcher_of(url, IDS, watch_every=0.05) as news, writing(news):
        await news.more(5)


async def test_a_look_is_one_request_for_a_hundred_sessions(url: str) -> None:
    """At 250 sessions three requests look, at one session one; where nobody watches, or all have left, nothing is asked."""

    async with perdure.open(url, watch_every=NEVER) as store, perdure.open(url) as other:
        ids = [f"s{number}" for number in range(250)]
        await asyncio.gather(*[other.append(id, Event("a")) for id in ids])
        table, watchers = store._core.backend.driver.table, store._core.watchers

        async def asked() -> int:
            before = table.requests
            await watchers._poll()
            return table.requests - before

        assert await asked() == 0
        for count, requests in ((250, 3), (1, 1), (0, 0)):
            watches = [store.watch(id, after=1) for id in ids[:count]]
            waiting = [asyncio.ensure_future(anext(watch)) for watch in watches]
            seen: list[int] = []
            while len(seen) < 3 or seen[-3] != seen[-1]:  # Until each has read, and waits.
                seen.append(table.requests)
                await asyncio.sleep(0.2)
            assert await asked() == requests
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize("view", ["KEYS_ONLY", "NEW_IMAGE"])
async def test_a_table_with_a_stream_is_polled_like_any_other(url: str, view: str) -> None:
    """DynamoDB Streams are not used, and the engine says so: it declares no notification, and refuses to listen."""

    async with opened(url) as backend:
        table = backend.driver.table
        stream = {"StreamEnabled": True, "StreamViewType": view}
        await backend.run(table.ask("update_table", TableName=table.name, StreamSpecification=stream))
    async with opened(url) as backend:
        assert not backend.capabilities.notification
        assert isinstance(backend, Notifying)
        told: list[Any] = []
        with pytest.raises(Unsupported):
            await backend.listen(lambda *news: told.append(news))
        assert not backend.hears
