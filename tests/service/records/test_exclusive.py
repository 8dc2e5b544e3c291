"""Exclusive leases between clients of a service. A client refuses its own write on the head that its commit follows, and the node's engine
stores a commit only after that very head: so a lease that another client has taken meanwhile is always seen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import perdure
from perdure import Event, Store, op
from perdure.service.hooks import Scope
from perdure.wire import records as wire
from tests.support.backends.scenarios import until
from tests.support.service.hostile import client, only
from tests.support.service.nodes import serving

NOTE = {"events": [{"type": "theirs"}]}


async def _edited(store: Store) -> None:
    async with store.edit("s") as draft:
        draft.state["b"] = 1


WRITES: dict[str, Callable[[Store], Awaitable[Any]]] = {
    "events": lambda store: store.append("s", Event("theirs")),
    "a key": lambda store: store.append("s", Event("theirs"), key="k"),
    "operations": lambda store: store.append("s", Event("theirs", None, (op.set("/b", 1),))),
    "a version": lambda store: store.append("s", Event("theirs", None, (op.set("/b", 1),)), expect=1),
    "edit": _edited,
    "update": lambda store: store.update("s", lambda draft: draft.state.update(b=1)),
    "merge": lambda store: store.merge("f", into="s"),
    "tags": lambda store: store.configure("s", tags={"b": "1"}),
    "policy": lambda store: store.configure("s", wake_every=60),
}


@pytest.mark.parametrize("what", WRITES)
async def test_another_client_is_fenced(what: str, tmp_path: Path) -> None:
    """Also one that last saw the session before the lease was taken. Nothing is stored; the holder, and after it everyone, writes."""
    with serving(f"sqlite:///{tmp_path}/s.db") as node:
        async with perdure.open(node.url) as holder, perdure.open(node.url) as other:
            await holder.append("s", Event("start", None, (op.set("/a", 1),)))
            await holder.fork("s", id="f")
            await holder.append("f", Event("mine", None, (op.set("/c", 1),)))
            await other.read("s")
            async with holder.lease("s", owner="one", ttl=30, exclusive=True) as lease:
                for _ in range(2):  # The second time it knows of the lease.
                    with pytest.raises(perdure.Fenced, match="exclusive"):
                        await WRITES[what](other)
                await holder.append("s", Event("ours"), lease=lease)
                found = [(commit.kind.name, commit.events[0].type) async for commit in other.history("s")]
                assert found == [("data", "start"), ("pin", "pinned"), ("data", "ours")]
            await WRITES[what](other)


async def test_a_client_of_another_language_is_fenced_too(tmp_path: Path) -> None:
    """At a resource route the node's engine says it: 409 `fenced`."""
    with serving(f"sqlite:///{tmp_path}/s.db") as node:
        url = f"{node.url}/v1/sessions/s/commits"
        async with (
            perdure.open(node.url) as holder,
            aiohttp.ClientSession() as http,
            holder.lease("s", owner="one", ttl=30, exclusive=True) as lease,
        ):
            async with http.post(url, json=NOTE) as answer:
                assert (answer.status, (await answer.json(content_type=None))["code"]) == (409, "fenced")
            async with http.post(url, json=NOTE, headers={"Perdure-Lease": lease.grant}) as answer:
                assert answer.status == 201


async def test_who_has_lost_the_lease_is_fenced(tmp_path: Path) -> None:
    """It was broken, and another client took it: the first one's next write, edit and proof say so, and nothing of it is stored."""
    with serving(f"sqlite:///{tmp_path}/s.db") as node:
        async with perdure.open(node.url) as first, perdure.open(node.url) as second:
            async with first.lease("s", owner="one", ttl=30, exclusive=True) as lost:
                await first.append("s", Event("ours"), lease=lost)
                assert await second.break_lease("s") is not None
                async with second.lease("s", owner="two", ttl=30, exclusive=True) as lease:
                    for call in (
                        lambda: first.append("s", Event("late"), lease=lost),
                        lambda: first.append("s", Event("late", None, (op.set("/b", 1),)), key="late", lease=lost),
                        lambda: first.configure("s", tags={"b": "1"}, lease=lost),
                        lost.confirm,
                    ):
                        with pytest.raises(perdure.Fenced):
                            await call()
                    assert lost.lost.is_set()
                    with pytest.raises(perdure.Fenced):
                        await first.append("s", Event("late"))
                    await second.append("s", Event("theirs"), lease=lease)
            types = [event.type async for commit in second.history("s") for event in commit.events]
            assert types == ["ours", "theirs"]


async def test_writers_in_full_swing_stop_at_the_lease(tmp_path: Path) -> None:
    """Eight writers of another client, whose appends share requests with those of free sessions: after the take not one commit of theirs is
    in the chain, and the free sessions go on."""
    with serving(f"sqlite:///{tmp_path}/s.db") as node:
        async with perdure.open(node.url) as holder, perdure.open(node.url) as other:
            fenced = free = 0
            over = asyncio.Event()

            async def write(number: int) -> None:
                nonlocal fenced, free
                while not over.is_set():
                    try:
                        await other.append("s", Event("theirs"))
                    except perdure.Fenced:
                        fenced += 1
                    await other.append(f"free{number}", Event("theirs"))
                    free += 1

            tasks = [asyncio.create_task(write(number)) for number in range(8)]
            await until(lambda: free >= 16)
            async with holder.lease("s", owner="one", ttl=30, wait=60, exclusive=True) as lease:
                await holder.append("s", Event("ours"), lease=lease)
                before, at = free, fenced
                await until(lambda: free >= before + 16 and fenced >= at + 8)
                over.set()
                await asyncio.gather(*tasks)
                taken = int(lease.grant.partition("-")[0])
                after = [event.type async for commit in other.history("s", after=taken) for event in commit.events]
                assert after == ["ours"]


async def test_a_client_that_lies_about_it_harms_its_own_tenant_only() -> None:
    """No node can prove who holds a lease, for its grant is no secret: a forged commit without one is stored, as the docs say. It moves no
    epoch, so the holder holds on."""
    async with client() as forger:
        store = Store(forger.core, "default")
        async with store.lease("s", owner="one", ttl=30, exclusive=True) as lease:
            head = await forger.head("s")
            assert head is not None
            record = forger.record("s", head, Event("forged"))
            (answer,) = await forger.send(forger.attempt("s", head, record), credential=only(Scope.append))
            assert isinstance(answer, wire.Stored)
            await lease.confirm()
            assert (await store.append("s", Event("ours"), lease=lease)).version == 3
