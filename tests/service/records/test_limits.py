"""The limits of a node hold for Python clients too: each commit of a batch counts, and a stream of notices is a watcher."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import perdure
from perdure import Event
from perdure.service.limits.options import LimitOptions
from perdure.service.limits.tenants import TenantLimits
from tests.support.backends.scenarios import until
from tests.support.service.clocks import HandClock
from tests.support.service.nodes import serving


async def test_each_commit_of_a_client_is_charged(tmp_path: Path) -> None:
    """Three commits a second: the fourth is `QuotaExceeded` and not stored, reads go on, and it passes a second later."""
    clock = HandClock()
    limits = TenantLimits(LimitOptions(commits=3), clock.monotonic)
    with serving(f"sqlite:///{tmp_path}/store.db", node={"limits": limits}) as node:
        async with perdure.open(node.url) as store:
            for number in range(3):
                await store.append("s", Event("x", number))
            with pytest.raises(perdure.QuotaExceeded) as refused:
                await store.append("s", Event("x", 3), key="k")
            assert refused.value.quota == "commits" and refused.value.retry_after > 0
            assert (await store.read("s")).version == 3
            clock.seconds += 1
            assert (await store.append("s", Event("x", 3), key="k")).version == 4


async def test_notices_are_a_watcher_and_hold_no_turn(tmp_path: Path) -> None:
    """With one turn before the engine a client that watches does not stop another one's writes, and hears of them."""
    limits = TenantLimits(LimitOptions(turns=1, open=8), HandClock().monotonic)
    with serving(f"sqlite:///{tmp_path}/store.db", node={"limits": limits}) as node:
        async with perdure.open(node.url) as store, perdure.open(node.url) as other:
            await store.append("s", Event("x", 0))
            watching = store.watch("s", after=1)
            heard = asyncio.ensure_future(anext(watching))
            await until(lambda: node.node.open_requests > 0)
            for number in range(1, 4):
                await other.append("s", Event("x", number))
            assert (await heard).version == 2
            await watching.aclose()
