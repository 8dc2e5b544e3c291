"""`enqueue`, receipts, order, keys, direct writes, refusals, fullness: on one store in one process."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

import perdure
import perdure.sync
from perdure import Event, op
from perdure.backends.sqlite.schema import parse_url
from tests.support.engine.flaky import Flaky

ONE = Event("one", {"text": "é"}, (op.add("/n", 1),))
REFUSED = Event("refused", None, (op.test("/n", -1),))
"""An event that the store refuses: `/n` is never that."""


async def outcome(call: Awaitable[Any]) -> perdure.Error | None:
    """What a call raises."""
    try:
        await call
    except perdure.Error as error:
        return error
    return None


async def steps(store: perdure.Store, session: str) -> list[Any]:
    return [event.data async for commit in store.history(session) for event in commit.events if event.type == "step"]


async def test_what_is_enqueued_is_appended(url: str, spool: str) -> None:
    """Events with and without operations, actor and key come out of the spool as `append` would have stored them."""
    async with perdure.open(url, spool=spool) as store:
        queued = await store.enqueue("s", ONE, Event("note"), key="k", actor="ana")
        assert (queued.session, queued.key, queued.duplicate) == ("s", "k", False)
        receipt = await queued.receipt()
        assert (receipt.version, receipt.durability) == (1, store.capabilities.durability)
        await (await store.enqueue("s", Event("note", [1]))).receipt()
        commits = [commit async for commit in store.history("s")]
        assert (commits[0].actor, commits[0].key, commits[0].events) == ("ana", "k", (ONE, Event("note")))
        assert commits[1].key is not None and commits[1].hash == (await store.read("s")).hash
        assert (await store.read("s")).state == {"n": 1}
        assert await store.find("s", "k") == msgspec.structs.replace(receipt, duplicate=True)
        await store.verify("s")


async def test_order_per_session(url: str, spool: str) -> None:
    """Whatever callers do at once, each session has its entries in the order in which they were acknowledged."""
    async with perdure.open(url, spool=spool) as store:

        async def caller(session: str) -> None:
            for number in range(60):
                await store.enqueue(session, Event("step", number, (op.add("/n", 1),) if number % 3 else ()))

        sessions = [f"s{number}" for number in range(5)]
        await asyncio.gather(*map(caller, sessions))
        assert (await store.flush()).entries == 0
        for session in sessions:
            assert await steps(store, session) == list(range(60))
            assert (await store.read(session)).state == {"n": 40}


async def test_more_entries_than_a_lane_takes(spool: str) -> None:
    """A queue longer than what is shipped at a time comes in order, and another session does not wait for its end."""
    async with perdure.open("memory:", spool=spool) as store:
        flaky = Flaky(store)
        flaky.away = True
        for number in range(150):
            await store.enqueue("long", Event("step", number))
        await store.enqueue("short", Event("step", 0))
        flaky.away = False
        assert (await store.flush()).entries == 0
        assert await steps(store, "long") == list(range(150))
        (short,) = [commit async for commit in store.history("short")]
        last = [commit async for commit in store.history("long")][-1]
        assert short.at < last.at


async def test_a_key_counts_once(spool: str) -> None:
    """The same key and events are the same write, queued or shipped; the key with other events is `KeyReused`, and nothing is stored."""
    async with perdure.open("memory:", spool=spool) as store:
        flaky = Flaky(store)
        flaky.away = True
        first = await store.enqueue("s", ONE, key="k")
        second = await store.enqueue("s", Event("one", {"text": "é"}, [op.add("/n", 1)]), key="k")  # type: ignore[arg-type]
        assert (first.duplicate, second.duplicate) == (False, True)
        with pytest.raises(perdure.KeyReused, match="'k'"):
            await store.enqueue("s", Event("other"), key="k")
        other = await store.enqueue("t", Event("other"), key="k")
        assert not other.duplicate
        flaky.away = False
        assert await first.receipt() == await second.receipt()
        third = await store.enqueue("s", ONE, key="k")
        assert third.duplicate and await third.receipt() == await first.receipt()
        with pytest.raises(perdure.KeyReused):
            await store.enqueue("s", Event("other"), key="k")
        assert (await store.append("s", ONE, key="k")).duplicate
        assert (await store.read("s")).state == {"n": 1}


async def test_a_write_that_was_appended_before_is_not_applied_again(spool: str) -> None:
    """A key that a direct append has used already gives that append's receipt."""
    async with perdure.open("memory:", spool=spool) as store:
        direct = await store.append("s", ONE, key="k")
        receipt = await (await store.enqueue("s", ONE, key="k")).receipt()
        assert (receipt.version, receipt.duplicate) == (direct.version, True)
        assert (await store.read("s")).state == {"n": 1}


async def test_receipts_by_key(spool: str) -> None:
    """A write is asked for by its key, while it is queued and after; one that nobody knows is `NotFound`; a time-out leaves it queued."""
    async with perdure.open("memory:", spool=spool) as store:
        flaky = Flaky(store)
        flaky.away = True
        queued = await store.enqueue("s", ONE)
        with pytest.raises(perdure.Unavailable, match=r"not shipped within 0\.05 seconds"):
            await store.queued("s", queued.key).receipt(timeout=0.05)
        waiting = asyncio.create_task(store.queued("s", queued.key).receipt())
        flaky.away = False
        assert await waiting == await queued.receipt()
        with pytest.raises(perdure.NotFound, match="Neither the spool nor the store"):
            await store.queued("s", "another").receipt()


async def test_direct_writes_come_after_what_is_queued(url: str, spool: str) -> None:
    """Every way to write to a session waits for its queue, so that what was enqueued first stands first; other sessions do not wait."""
    async with perdure.open(url, spool=spool) as store:
        flaky = Flaky(store)
        await store.append("s", Event("begun", None, (op.set("/n", 0),)))
        await store.fork("s", id="fork")
        await store.append("fork", Event("step", "fork"))

        async def edit() -> None:
            async with store.edit("s") as draft:
                draft.add("/n", 1)

        ways: list[Callable[[], Any]] = [
            lambda: store.append("s", Event("direct")),
            edit,
            lambda: store.update("s", lambda draft: draft.add("/n", 1)),
            lambda: store.configure("s", tags={"a": "b"}),
            lambda: store.merge("fork", into="s"),
            lambda: store.fork("s", id="child"),
            lambda: store.delete("s"),
        ]
        for number, way in enumerate(ways):
            flaky.away = True
            await store.enqueue("s", Event("step", number))
            task = asyncio.create_task(way())
            await asyncio.sleep(0.05)
            assert not task.done()
            flaky.away = False
            await store.append("other", Event("direct"))
            await task
            *_, entry, direct = [commit async for commit in store.history("s", include_deleted=True)]
            assert entry.events == (Event("step", number),) and direct.events[0].type != "step"
        assert 5 in await steps(store, "child")


async def test_a_direct_write_waits_for_so_long(spool: str) -> None:
    """After `spool_wait` it is `Busy`, nothing was written, and what is queued stays."""
    async with perdure.open("memory:", spool=spool, spool_wait=0.05) as store:
        flaky = Flaky(store)
        flaky.away = True
        await store.enqueue("s", ONE)
        with pytest.raises(perdure.Busy, match=r"within 0.05 seconds.*enqueue it too"):
            await store.append("s", Event("direct"))
        with pytest.raises(perdure.Busy):
            async with store.edit("s"):
                raise AssertionError
        flaky.away = False
        assert (await store.flush()).entries == 0
        assert (await store.append("s", Event("direct"))).version == 2


async def test_an_edit_inside_of_which_something_is_enqueued(spool: str) -> None:
    """An entry that is enqueued inside an edit's block stands before the edit's commit, and the edit is merged with it."""
    async with perdure.open("memory:", spool=spool) as store:
        async with store.edit("s") as draft:
            draft.state["a"] = 1
            await store.enqueue("s", ONE)
        assert draft.receipt is not None and draft.receipt.version == 2
        assert (await store.read("s")).state == {"a": 1, "n": 1}


async def test_a_refused_entry_parks_the_later_ones(url: str, spool: str) -> None:
    """The entry's receipt raises what the store refused it with; the later ones of its session are `Busy`, as are direct writes; other
    sessions go on."""
    async with perdure.open(url, spool=spool) as store:
        first = await store.enqueue("s", ONE)
        bad = await store.enqueue("s", REFUSED, key="bad")
        late = await store.enqueue("s", ONE)
        with pytest.raises(perdure.Conflict, match=r"A test on '/n'.*perdure spool ls") as refused:
            await bad.receipt()
        assert (refused.value.paths, refused.value.commits) == (("/n",), ())
        with pytest.raises(perdure.Busy, match="'bad'"):
            await late.receipt()
        later = await store.enqueue("s", ONE)
        with pytest.raises(perdure.Busy, match="'bad'"):
            await later.receipt()
        with pytest.raises(perdure.Busy, match="nothing may overtake it"):
            await store.append("s", ONE)
        assert (await first.receipt()).version == 1
        await (await store.enqueue("t", ONE)).receipt()
        state = await store.flush(timeout=0)
        assert (state.queued, state.parked, state.failed, state.entries) == (0, 2, 1, 3)
        assert state.bytes > 0 and state.oldest_seconds > 0
        assert (await store.read("s")).state == {"n": 1}
    assert await store.close() == await store.close()


async def test_a_full_spool_refuses(spool: str) -> None:
    """Above `spool_bytes` nothing more is stored, the error says so, and after shipping there is room again."""
    async with perdure.open("memory:", spool=spool, spool_bytes=20_000) as store:
        flaky = Flaky(store)
        flaky.away = True
        await store.enqueue("s", Event("step", 0), key="first")
        accepted = 1
        while (refused := await outcome(store.enqueue("s", Event("step", accepted)))) is None:
            accepted += 1
        assert isinstance(refused, perdure.QuotaExceeded)
        assert re.search(r"of at most 20,000; nothing was enqueued.*spool_bytes", str(refused))
        assert 20 < accepted < 80
        before = await store.flush(timeout=0)
        with pytest.raises(perdure.QuotaExceeded):
            await store.enqueue("t", Event("step"))
        assert (await store.enqueue("s", Event("step", 0), key="first")).duplicate
        assert (await store.flush(timeout=0)).entries == before.entries == accepted
        flaky.away = False
        assert (await store.flush()).bytes == 0
        await store.enqueue("s", Event("step", accepted))
        await store.flush()
        assert await steps(store, "s") == list(range(accepted + 1))


async def test_bad_input(spool: str) -> None:
    """What `append` refuses at the door `enqueue` refuses too, `expect` besides; nothing is stored."""
    async with perdure.open("memory:", spool=spool) as store:
        bad: list[tuple[Callable[[], Any], str]] = [
            (lambda: store.enqueue("s"), "nothing to append"),
            (lambda: store.enqueue("s", "text"), "perdure.Event"),  # type: ignore[arg-type]
            (lambda: store.enqueue("s", Event("x", float("nan"))), "nan"),
            (lambda: store.enqueue("s", Event("x", None, (op.Op("nonsense", "/a"),))), "nonsense"),
            (lambda: store.enqueue("", ONE), "must not be empty"),
            (lambda: store.enqueue("s", ONE, key=""), "must not be empty"),
            (lambda: store.enqueue("s", ONE, key=7), "must be a string"),  # type: ignore[arg-type]
            (lambda: store.enqueue("s", ONE, actor="a\n"), "control characters"),
            (lambda: store.enqueue("s", ONE, expect=3), "takes no `expect`"),
            (lambda: store.flush(timeout=-1), "timeout must be"),
            (lambda: store.flush(timeout=float("nan")), "timeout must be"),
            (lambda: store.flush(timeout=True), "timeout must be"),
            (lambda: store.queued("s", "k").receipt(timeout="soon"), "timeout must be"),  # type: ignore[arg-type]
        ]
        for call, words in bad:
            with pytest.raises(perdure.Invalid, match=words):
                await call()
        for name in ("", None, 7):
            with pytest.raises(perdure.Invalid):
                store.queued("s", name)  # type: ignore[arg-type]
        with pytest.raises(perdure.TooLarge):
            await store.enqueue("s", Event("x", "x" * (17 << 20)))
        assert (await store.flush(timeout=0)).entries == 0
        with pytest.raises(perdure.NotFound):
            await store.read("s")
    for call in (lambda: store.enqueue("s", ONE), store.flush):
        with pytest.raises(perdure.Closed):
            await call()


async def test_a_store_without_a_spool() -> None:
    """Says how to open one with a spool; `close` has nothing to say."""
    async with perdure.open("memory:") as store:
        for call in (lambda: store.enqueue("s", ONE), store.flush):
            with pytest.raises(perdure.Invalid, match="spool="):
                await call()
        with pytest.raises(perdure.Invalid, match="spool="):
            store.queued("s", "k")
    assert await store.close() is None
    for settings in ({"spool_bytes": 0}, {"spool_wait": -1.0}, {"spool_wait": float("inf")}, {"spool_bytes": "1 GB"}):
        with pytest.raises(perdure.Invalid):
            await perdure.open("memory:", **settings)


def test_the_blocking_api(spool: str, tmp_path: Any) -> None:
    """The same calls without `await`, from a thread without a loop."""
    url = f"sqlite:///{tmp_path}/store.db"
    with perdure.sync.open(url, spool=spool) as store:
        queued = store.enqueue("s", ONE, key="k", actor="ana")
        assert isinstance(queued, perdure.sync.Queued)
        assert (queued.session, queued.key, queued.duplicate) == ("s", "k", False)
        assert queued.receipt(timeout=60).version == 1
        assert store.queued("s", "k").receipt() == queued.receipt()
        assert store.enqueue("s", ONE, key="k").duplicate
        store.append("s", ONE)
        with store.edit("s") as draft:
            draft.add("/n", 1)
        assert store.flush(timeout=60).entries == 0
        assert store.read("s").state == {"n": 3}
    left = store.close()
    assert left is not None and left.entries == 0


async def test_tenants_share_a_spool(spool: str) -> None:
    """Each tenant's entries go to its own sessions, and keys are its own."""
    async with perdure.open("memory:", spool=spool) as store:
        acme = store.for_tenant("acme")
        first, second = await store.enqueue("s", ONE, key="k"), await acme.enqueue("s", Event("step", "acme"), key="k")
        assert (await first.receipt()).version == (await second.receipt()).version == 1
        assert await steps(acme, "s") == ["acme"] and await steps(store, "s") == []


async def test_a_cancelled_enqueue_is_whole_or_absent(spool: str) -> None:
    """Cancelled at any moment, an enqueue has stored all of its events or none, and the spool goes on."""
    async with perdure.open("memory:", spool=spool) as store:
        for number in range(40):
            task = asyncio.create_task(store.enqueue("s", Event("step", number), Event("pair", number), key=f"k{number}"))
            await asyncio.sleep(number * 0.0002)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await store.enqueue("s", Event("step", "end"))
        assert (await store.flush()).entries == 0
        found = [commit.events async for commit in store.history("s")]
        assert all(len(events) == 2 and events[0].data == events[1].data for events in found[:-1])
        numbers = [events[0].data for events in found]
        assert numbers[:-1] == sorted(numbers[:-1]) and numbers[-1] == "end"


async def test_waits_can_be_cancelled(spool: str) -> None:
    """A receipt, a flush and a direct write that are cancelled leave nothing behind; the entry is shipped all the same."""
    async with perdure.open("memory:", spool=spool) as store:
        flaky = Flaky(store)
        flaky.away = True
        queued = await store.enqueue("s", ONE)
        tasks = [asyncio.create_task(call) for call in (queued.receipt(), store.flush(), store.append("s", Event("never")))]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        assert all(isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*tasks, return_exceptions=True))
        flaky.away = False
        assert (await queued.receipt()).version == 1
        assert not store._core.spool._signals._waiting  # type: ignore[union-attr]
        assert [commit.events async for commit in store.history("s")] == [(ONE,)]


async def test_close_says_what_is_left(spool: str, caplog: pytest.LogCaptureFixture) -> None:
    """`close` returns and logs what was not shipped."""
    store = await perdure.open("memory:", spool=spool)
    Flaky(store).away = True
    await store.enqueue("s", ONE)
    left = await store.close()
    assert left is not None and (left.queued, left.entries) == (1, 1)
    assert f"{parse_url(spool).path} has 1 writes that were not shipped: 1 queued" in caplog.text
