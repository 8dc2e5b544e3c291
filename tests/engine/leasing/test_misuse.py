"""Leases used wrongly: of others, of another process, with bad numbers, on an engine that has none."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

import perdure
import perdure.sync
from perdure import Event, op
from perdure.backends.memory import MemoryBackend
from perdure.clock import SystemClock
from perdure.errors import Closed, Invalid, Unsupported
from tests.support.engine.leased import OPS, events, store_on


async def test_leases_of_others_are_invalid(file_url: str) -> None:
    """A lease of another session, tenant or store object, and what is no lease, are `Invalid`; nothing is written."""
    async with perdure.open(file_url) as store, perdure.open(file_url) as other, store.lease("s", owner="one", ttl=3) as lease:
        for write in (
            lambda: store.append("t", OPS, lease=lease),
            lambda: store.for_tenant("acme").append("s", OPS, lease=lease),
            lambda: other.append("s", OPS, lease=lease),
            lambda: store.append("s", OPS, lease=lease.token),
            lambda: store.edit("t", lease=lease),
        ):
            with pytest.raises(Invalid):
                await write()
        assert await events(store) == ["leased"]


@pytest.mark.parametrize(
    "bad",
    [
        {"ttl": 2.9}, {"ttl": 86_401}, {"ttl": 10**400}, {"wait": 10**5_000},
        {"ttl": float("nan")}, {"ttl": "30"}, {"ttl": True}, {"wait": -1}, {"wait": float("inf")},
        {"max_hold": -1}, {"max_hold": float("inf")}, {"owner": ""}, {"owner": 7}, {"owner": "x" * 256}, {"exclusive": 1},
    ],
    ids=lambda bad: str({name: value if not isinstance(value, int) or value < 10**9 else "huge" for name, value in bad.items()}),
)  # fmt: skip
async def test_bad_input(bad: dict[str, Any]) -> None:
    """Each is `Invalid` at the call, before anything is asked."""
    async with perdure.open("memory:") as store:
        with pytest.raises(Invalid):
            store.lease("s", **{"owner": "one", **bad})


async def test_a_wait_for_the_end_of_a_lease_is_a_number_of_seconds() -> None:
    """Anything else is `Invalid`, and not a wait without an end."""
    async with perdure.open("memory:") as store, store.lease("s", owner="one", ttl=3) as lease:
        for timeout in (-1, float("nan"), float("inf"), 10**5_000, "30", True):
            with pytest.raises(Invalid, match="timeout must be"):
                await lease.lost.wait(timeout)  # type: ignore[arg-type]
        assert not await lease.lost.wait(0)


async def test_an_edit_that_writes_to_its_own_leased_session(url: str) -> None:
    """Neither waits for the other. What the block writes by other calls stands when they return; the edit is merged with it, or is a
    `Conflict` of which nothing is stored."""
    async with perdure.open(url) as store, store.lease("s", owner="one", ttl=30, exclusive=True) as lease:
        async with asyncio.timeout(30), store.edit("s", lease=lease) as draft:
            draft.state["outer"] = 1
            await store.append("s", Event("inner"), lease=lease)
            async with store.edit("s", lease=lease) as inner:
                inner.state["inner"] = 1
        assert (await store.read("s")).state == {"outer": 1, "inner": 1}
        before = (await store.read("s")).version

        async def clash() -> None:
            async with asyncio.timeout(30), store.edit("s", lease=lease) as draft:
                draft.state["outer"] = 2
                await store.append("s", Event("inner", None, (op.set("/outer", 3),)), lease=lease)

        with pytest.raises(perdure.Conflict, match="nothing was written"):
            await clash()
        view = await store.read("s")
        assert (view.state["outer"], view.version) == (3, before + 1)
        with pytest.raises(perdure.Fenced):
            async with store.edit("s") as draft:
                draft.state["outer"] = 4
        await lease.confirm()


async def test_a_lease_is_entered_once_and_rightly() -> None:
    """Used wrongly, it says how it is used."""
    async with perdure.open("memory:") as store:
        leasing = store.lease("s", owner="one", ttl=3)
        with pytest.raises(Invalid, match="asynchronous"), leasing:  # type: ignore[attr-defined]
            pass
        async with leasing:
            with pytest.raises(Invalid, match="once"):
                await leasing.__aenter__()


async def test_a_ttl_is_longer_where_the_engine_does_not_notify() -> None:
    """Holders look less often there."""

    class Deaf(MemoryBackend):
        capabilities = perdure.Capabilities(**{
            name: getattr(MemoryBackend.capabilities, name) for name in perdure.Capabilities.__struct_fields__ if name != "notification"
        }, notification=False)  # fmt: skip

    store = store_on(Deaf(SystemClock()))
    with pytest.raises(Invalid, match="10 to 86,400"):
        store.lease("s", owner="one", ttl=9)
    await store.close()


async def test_rows_without_a_place_for_leases() -> None:
    """A store of schema 1 says which command gives it one; nothing is written."""

    class Old(MemoryBackend):
        capabilities = perdure.Capabilities(**{
            name: getattr(MemoryBackend.capabilities, name) for name in perdure.Capabilities.__struct_fields__ if name != "scan_orders"
        })  # fmt: skip

    store = store_on(Old(SystemClock()))
    with pytest.raises(Unsupported, match="perdure upgrade"):
        store.lease("s", owner="one")
    await store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_lease_is_not_used_in_a_child(tmp_path: Any) -> None:
    """In a forked child a lease is `Closed`, whatever is done with it; the parent's goes on."""
    url = f"sqlite:///{tmp_path}/s.db"
    with perdure.sync.open(url) as store, store.lease("s", owner="one", ttl=3) as lease:
        child = os.fork()
        if not child:
            refused = 0
            for call in (
                lease.confirm,
                lease.release,
                lambda: store.append("s", Event("x"), lease=lease),
                lambda: store.lease("s", owner="x"),
            ):
                try:
                    call()
                except Closed:
                    refused += 1
            with perdure.sync.open(url) as mine:
                try:
                    mine.append("s", Event("x"), lease=lease)
                except Invalid:
                    refused += 1
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
        store.append("s", Event("work"), lease=lease)
        assert not lease.lost.wait(0.01)
