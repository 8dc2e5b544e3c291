"""Turns before the engine: in rotation of tenants, and none is lost."""

from __future__ import annotations

import asyncio
import random

from perdure.service.limits.fair_queue import FairQueue


async def worked(queue: FairQueue, tenant: str, done: list[str]) -> None:
    """One request."""
    await queue.acquire(tenant)
    try:
        await asyncio.sleep(0)
        done.append(tenant)
    finally:
        queue.release()


async def test_a_greedy_tenant_does_not_hold_up_another() -> None:
    """A thousand of one tenant wait when one of another comes: it gets the next turn but one."""
    queue, done = FairQueue(4), []
    for _ in range(4):
        await queue.acquire("greedy")
    greedy = [asyncio.ensure_future(worked(queue, "greedy", done)) for _ in range(1_000)]
    await asyncio.sleep(0)
    small = asyncio.ensure_future(worked(queue, "small", done))
    await asyncio.sleep(0)
    assert queue.waiting == 1_001
    for _ in range(4):
        queue.release()
    await small
    assert done.index("small") == 1 and queue.waiting > 900
    await asyncio.gather(*greedy)
    assert (queue.free, queue.waiting) == (4, 0)


async def test_tenants_take_turns() -> None:
    """Of three that wait each is next in rotation, and each one's requests keep their order."""
    queue, done = FairQueue(1), []
    await queue.acquire("first")
    tasks = [asyncio.ensure_future(worked(queue, tenant, done)) for tenant in "aaabbc"]
    await asyncio.sleep(0)
    queue.release()
    await asyncio.gather(*tasks)
    assert "".join(done) == "abcaba"


async def test_who_comes_while_others_wait_waits_too() -> None:
    """A free turn goes to who waits, never past them to who comes."""
    queue, done = FairQueue(1), []
    await queue.acquire("a")
    waiting = asyncio.ensure_future(worked(queue, "b", done))
    await asyncio.sleep(0)
    queue.release()
    late = asyncio.ensure_future(worked(queue, "c", done))
    await asyncio.gather(waiting, late)
    assert done == ["b", "c"]


async def test_turns_survive_any_cancellation() -> None:
    """Requests are cancelled while they wait, as they get their turn, and while they work: in the end every turn is free."""
    chance = random.Random(7)
    for _ in range(30):
        queue, done = FairQueue(3), []
        tasks = [asyncio.ensure_future(worked(queue, chance.choice("abcd"), done)) for _ in range(60)]
        for _ in range(40):
            await asyncio.sleep(0)
            chance.choice(tasks).cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (queue.free, queue.waiting) == (3, 0)
        await asyncio.wait_for(queue.acquire("e"), 30)
