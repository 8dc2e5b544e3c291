"""Keys of calls that write control commits: `configure`, `delete`, `fork` and a lease's release are done once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import perdure
from perdure import Event, op
from perdure.backends.spi import Appended


async def test_configure_is_done_once(url: str) -> None:
    """A retry gets the first receipt and changes nothing, whatever was set meanwhile; another policy, other tags, or another call with the
    key is `KeyReused`."""
    async with perdure.open(url) as store:
        await store.append("s", Event("start"), key="start")
        wake = datetime(2040, 1, 1, tzinfo=UTC)
        asked: dict[str, Any] = {"wake_at": wake, "keep": timedelta(days=3), "drop": True, "tags": {"b": "2", "a": "1"}}
        first = await store.configure("s", key="k", **asked)
        await store.configure("s", wake_at=None, keep=None, tags={})
        again = await store.configure("s", key="k", **{**asked, "tags": {"a": "1", "b": "2"}, "actor": "somebody"})
        assert (again.version, again.hash, again.duplicate) == (first.version, first.hash, True)
        assert (await store.policy("s")).wake_at is None
        for other in ({"wake_at": wake}, {**asked, "tags": {}}, {**asked, "drop": False}, {**asked, "expire_after": 60}):
            with pytest.raises(perdure.KeyReused):
                await store.configure("s", key="k", **other)
        with pytest.raises(perdure.KeyReused):
            await store.configure("s", key="start", tags={})
        with pytest.raises(perdure.KeyReused):
            await store.append("s", Event("x"), key="k")
        tags = await store.configure("s", key="tags", tags={"a": "1"})
        assert (await store.configure("s", key="tags", tags={"a": "1"})).version == tags.version == 4
        assert (await store.find("s", "tags")) is not None
        prefix = await store.configure(prefix="s", key="k", expire_after=60)
        assert (await store.configure(prefix="s", key="k", expire_after=60)).duplicate and not prefix.duplicate
        await store.verify("s")


async def test_a_late_retry_of_a_deletion_ends_no_later_life(url: str) -> None:
    """It gets the first receipt while the session is deleted, and after somebody has gone on from the tombstone; the new life goes on."""
    async with perdure.open(url) as store:
        await store.append("s", Event("start"), key="shared")
        first = await store.delete("s", key="k")
        again = await store.delete("s", key="k")
        assert (again.version, again.duplicate) == (first.version, True)
        with pytest.raises(perdure.Deleted):
            await store.delete("s", key="other")
        await store.append("s", Event("again"), recreate=True)
        assert (await store.delete("s", key="k")).version == first.version
        assert (await store.read("s")).version == 3
        second = await store.delete("s", key="shared")  # It was the key of an append, in the life before.
        assert second.version == 4 and not second.duplicate


async def test_a_key_that_an_earlier_life_used_is_free(url: str) -> None:
    """Keys belong to one life: the second one's call is done, and its retry finds it."""
    async with perdure.open(url) as store:
        await store.append("s", Event("start"), key="k")
        await store.delete("s")
        await store.append("s", Event("again"), recreate=True)
        first = await store.configure("s", key="k", tags={"a": "1"})
        assert not first.duplicate
        again = await store.configure("s", key="k", tags={"a": "1"})
        assert (again.version, again.duplicate) == (first.version, True)
        fork = await store.fork("s", key="k2")
        assert await store.fork("s", key="k2") == fork


async def test_a_fork_is_made_once_and_finished(url: str) -> None:
    """A retry gets the same fork, also without an id, and on a newer head. Another place or id is `KeyReused`."""
    async with perdure.open(url) as store:
        await store.append("s", Event("start", None, (op.set("/a", 1),)))
        made = await store.fork("s", key="k")
        await store.append("s", Event("more", None, (op.set("/a", 2),)))
        assert await store.fork("s", key="k") == made
        assert (await store.read(made)).state == {"a": 1}
        assert [info.session async for info in store.list()] == sorted(("s", made))
        for other in ({"at": 1}, {"id": "x"}):
            with pytest.raises(perdure.KeyReused):
                await store.fork("s", key="k", **other)
        named = await store.fork("s", key="named", id="branch")
        assert named == await store.fork("s", key="named", id="branch") == "branch"
        with pytest.raises(perdure.AlreadyExists):
            await store.fork("s", key="taken", id="branch")


async def test_a_fork_that_was_cut_off_is_finished_by_its_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pin is stored, and the fork is not: the retry starts the fork that the pin names, at its version."""
    async with perdure.open("memory:") as store:
        await store.append("s", Event("start", None, (op.set("/a", 1),)))
        backend = store._core.backend
        append, pins = backend.append, 0

        async def cut(appends: Any) -> Any:
            nonlocal pins
            outcomes = await append(appends)
            if any(isinstance(outcome, Appended) for outcome in outcomes):
                pins += 1
                raise perdure.Unknown("Cut.")
            return outcomes

        monkeypatch.setattr(backend, "append", cut)
        with pytest.raises(perdure.Unknown):
            await store.fork("s", key="k")
        monkeypatch.setattr(backend, "append", append)
        await store.append("s", Event("more", None, (op.set("/a", 2),)))
        made = await store.fork("s", key="k")
        assert pins == 1 and (await store.read(made)).state == {"a": 1}
        assert [commit.kind.name async for commit in store.history("s")] == ["data", "pin", "data"]


async def test_callers_with_one_key_do_it_once(url: str) -> None:
    """Eight of each at one time: one commit, one fork, one end."""
    async with perdure.open(url) as store:
        await store.append("s", Event("start"))
        receipts = await asyncio.gather(*[store.configure("s", key="c", tags={"a": "1"}) for _ in range(8)])
        assert {receipt.version for receipt in receipts} == {2}
        assert sum(not receipt.duplicate for receipt in receipts) == 1
        assert len({*await asyncio.gather(*[store.fork("s", key="f") for _ in range(8)])}) == 1
        receipts = await asyncio.gather(*[store.delete("s", key="d") for _ in range(8)])
        assert {receipt.version for receipt in receipts} == {4}


async def test_a_release_is_found_again(url: str) -> None:
    """Another process, which knows the grant alone, finds that the lease was released with this key; another grant with it is
    `KeyReused`. Without the key the grant is `Fenced`."""
    async with perdure.open(url) as store:
        leases = store._core.leases
        lease = await store.lease("s", owner="w", ttl=60).__aenter__()
        key = store._context.key("s")
        assert await leases.released(key, lease.grant, "k") is not None
        await lease.release(key="k")
        await lease.release(key="k")
        assert await leases.released(key, lease.grant, "k") is None
        with pytest.raises(perdure.Fenced):
            await store.adopt("s", lease.grant)
        second = await store.lease("s", owner="w", ttl=60).__aenter__()
        with pytest.raises(perdure.KeyReused):
            await second.release(key="k")
        assert not second.lost.is_set()
        await second.confirm()
        await second.release()


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", 7])
async def test_what_is_no_key_is_refused(url: str, key: Any) -> None:
    """Nothing is written."""
    async with perdure.open(url) as store:
        await store.append("s", Event("start"))
        lease = await store.lease("s", owner="w", ttl=60).__aenter__()
        for call in (
            store.configure("s", key=key, tags={}),
            store.delete("s", key=key),
            store.fork("s", key=key),
            lease.release(key=key),
        ):
            with pytest.raises(perdure.Invalid):
                await call
        await lease.confirm()
        assert (await store.read("s")).version == 2
        await lease.release()
