"""Leases across the lives of a session: what was deleted is not leased, and a second life fits no lease of the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import perdure
from perdure import Event, op
from perdure.backends.spi import Append, Outcome
from perdure.engine.store import Store
from perdure.errors import Closed, Deleted, Fenced
from tests.support.engine.leased import OPS, Counting, S, store_on


async def test_a_second_life_fits_no_lease_of_the_first(url: str) -> None:
    """A lease that was taken before a delete is `Fenced` after the session was created again, also with `recreate`."""
    async with perdure.open(url) as store:
        lease = await store.lease("s", owner="one", ttl=3).__aenter__()
        await store.append("s", OPS, lease=lease)
        await store.delete("s")
        with pytest.raises(Fenced):
            await store.append("s", OPS, lease=lease, recreate=True)
        await store.append("s", OPS, recreate=True)
        with pytest.raises(Fenced):
            await store.append("s", OPS, lease=lease)
        with pytest.raises(Fenced):
            await lease.release()
        async with store.lease("s", owner="two", ttl=3, wait=0):
            pass


async def test_a_deleted_session_is_not_leased(url: str) -> None:
    """Nor one in a store that is closed."""
    async with perdure.open(url) as store:
        await store.append("s", OPS)
        await store.delete("s")
        with pytest.raises(Deleted):
            await store.lease("s", owner="one").__aenter__()
    with pytest.raises(Closed):
        store.lease("s", owner="one")


async def test_a_lease_of_an_earlier_life_is_fenced(url: str) -> None:
    """Every call that takes a lease refuses one of a session that was deleted, or created again, since; nothing is written."""
    async with perdure.open(url) as store, store.lease("s", owner="one", ttl=30) as lease:
        await store.append("s", OPS, lease=lease)
        await store.delete("s")
        with pytest.raises((perdure.Fenced, Deleted)):
            await store.append("s", OPS, lease=lease)
        await store.append("s", OPS, recreate=True)
        before = (await store.read("s")).version
        await store.append("other", OPS)
        await store.fork("s", id="fork")
        before = (await store.read("s")).version
        for write in (
            lambda: store.append("s", OPS, lease=lease),
            lambda: store.update("s", lambda draft: draft.add("/n", 1), lease=lease),
            lambda: store.configure("s", tags={"a": "b"}, lease=lease),
            lambda: store.merge("fork", into="s", lease=lease),
            lease.confirm,
            lease.release,
        ):
            with pytest.raises(perdure.Fenced, match=r"decide again|holds the session|has ended|was released"):
                await write()
        assert (await store.read("s")).version == before


async def test_a_take_between_is_no_new_life(url: str) -> None:
    """A fork's pin, a key of an earlier life, an edit and a merge that a take came between go on as if nothing had been."""
    async with perdure.open(url) as store:
        await store.append("s", OPS, key="k")
        await store.delete("s")
        await store.append("s", OPS, recreate=True)
        child = await store.fork("s")
        await store.append(child, Event("more", None, (op.set("/m", 1),)))
        taking = store._core.backend.append

        async def slip(appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
            """Somebody takes and releases the lease between the decision and the append."""
            if appends[0].key == "k":  # The first try, which finds that an earlier life has used the key.
                return await taking(appends)
            store._core.backend.append = taking  # type: ignore[method-assign]
            async with store.lease("s", owner="one", ttl=3):
                pass
            return await taking(appends)

        async def edited() -> None:
            async with store.edit("s") as draft:
                draft.state["e"] = 1

        for write in (
            lambda: store.fork("s"),
            lambda: store.append("s", OPS, key="k"),
            lambda: store.append("s", Event("x"), key="k2"),
            edited,
            lambda: store.update("s", lambda draft: draft.add("/n", 1)),
            lambda: store.merge(child, into="s"),
        ):
            store._core.backend.append = slip  # type: ignore[method-assign]
            await write()
        assert (await store.read("s")).state == {"n": 2, "e": 1, "m": 1}
        found = await store.find("s", "k")
        assert found is not None
        assert found.version > 5
        await store.verify("s")


async def test_a_new_life_between_is_not_the_same(url: str) -> None:
    """The same calls are refused where a delete and a second life, which somebody leased, came between."""
    async with perdure.open(url) as store:
        await store.append("s", OPS, key="k")
        await store.delete("s")
        taking = store._core.backend.append

        async def slip(appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
            if appends[0].key == "k":
                return await taking(appends)
            store._core.backend.append = taking  # type: ignore[method-assign]
            await store.delete("s")
            await store.append("s", OPS, recreate=True)
            async with store.lease("s", owner="one", ttl=3):
                pass
            return await taking(appends)

        for write in (lambda: store.fork("s"), lambda: store.append("s", Event("x"), key="k")):
            await store.append("s", OPS, recreate=True) if (await store._core.backend.heads([S]))[0].status else None
            store._core.backend.append = slip  # type: ignore[method-assign]
            with pytest.raises(perdure.Conflict, match="deleted and created again"):
                await write()


async def test_a_session_leased_a_thousand_times_costs_few_reads() -> None:
    """A cold history, find and fork bisect once for the session's life, over a thousand takes; what was read before costs none."""
    backend = Counting()
    store = store_on(backend)
    await store.append("s", OPS, key="first")
    await store.delete("s")
    await store.append("s", OPS, recreate=True)
    for _ in range(1_000):
        async with store.lease("s", owner="one", ttl=3):
            pass

    async def cost(call: Any, cold: bool) -> int:
        user = store_on(backend) if cold else store
        backend.reads = 0
        await call(user)
        spent = backend.reads
        if cold:
            user._core.closed = True
        return spent

    async def newest(user: Store) -> None:
        assert [commit.version async for commit in user.history("s", newest_first=True, limit=1, control=True)] == [2003]

    calls = {"history": newest, "find": lambda user: user.find("s", "first"), "fork": lambda user: user.fork("s")}
    for name, call in calls.items():
        assert await cost(call, cold=True) <= 20, name
        assert await cost(call, cold=False) <= 2, name  # The commits that it shows, not the life that they are of.
    assert await store.find("s", "first") is None
    await store.close()
