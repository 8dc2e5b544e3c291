"""Durations and numbers that cannot be: each is `Invalid` and named, nothing is done, however large the number is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import perdure
from perdure import Event, Store, ops

BAD: dict[str, Any] = {
    "negative": -1,
    "no number": float("nan"),
    "infinite": float("inf"),
    "absurd": 10**400,
    "too long to print": 10**5_000,
    "a string": "30",
    "true": True,
    "a list": [],
    "a negative timedelta": timedelta(days=-1),
}
CALLS: dict[str, Callable[[Store, Any], Any]] = {
    "keep of compact": lambda store, bad: store.compact("s", keep=bad, drop=True),
    "max_staleness": lambda store, bad: store.read("s", consistency="eventual", max_staleness=bad),
    "ttl of lease": lambda store, bad: store.lease("s", owner="w", ttl=bad).__aenter__(),
    "wait of lease": lambda store, bad: store.lease("s", owner="w", wait=bad).__aenter__(),
    "max_hold of lease": lambda store, bad: store.lease("s", owner="w", max_hold=bad).__aenter__(),
    "ttl of claim": lambda store, bad: anext(store.claim(owner="w", ttl=bad)),
    "limit of claim": lambda store, bad: anext(store.claim(owner="w", limit=bad)),
    "expire_after": lambda store, bad: store.configure("s", expire_after=bad),
    "grace": lambda store, bad: store.configure("s", expire_after=60, grace=bad),
    "archive_after": lambda store, bad: store.configure("s", archive_after=bad),
    "wake_every": lambda store, bad: store.configure("s", wake_every=bad),
    "wake_at": lambda store, bad: store.configure("s", wake_at=bad),
    "keep": lambda store, bad: store.configure("s", keep=bad, drop=True),
    "keep of a prefix": lambda store, bad: store.configure(prefix="s", keep=bad, drop=True),
    "every of sweep": lambda store, bad: ops.sweep(store, once=True, every=bad),
    "ttl of consume": lambda store, bad: ops.consume(store, "c", print, follow=False, ttl=bad),
    "wait of consume": lambda store, bad: ops.consume(store, "c", print, follow=False, wait=bad),
    "before of due": lambda store, bad: anext(ops.due(store, before=bad)),
    "limit of due": lambda store, bad: anext(ops.due(store, limit=bad)),
}
SETTINGS = ("cache_ttl", "cache_timeout", "spool_wait", "watch_every", "watch_outage", "quota_bytes_per_second", "quota_burst")


@pytest.mark.parametrize("call", CALLS)
async def test_durations_and_numbers(call: str) -> None:
    """What cannot be is refused by the call, and the session is as it was."""
    async with perdure.open("memory:") as store:
        await store.append("s", Event("start"))
        for bad in BAD.values():
            with pytest.raises(perdure.Invalid):
                await CALLS[call](store, bad)
        assert [event.type async for commit in store.history("s", control=True) for event in commit.events] == ["start"]
        assert await ops.consumers(store) == []
        assert await store.policy("s") == perdure.Policy()


@pytest.mark.parametrize("setting", SETTINGS)
async def test_settings(setting: str) -> None:
    """The same for the settings of `open`."""
    for bad in BAD.values():
        with pytest.raises(perdure.Invalid, match=setting):
            await perdure.open("memory:", **{setting: bad})
