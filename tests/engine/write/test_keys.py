"""Idempotency keys: sent again, however late and however often, a call finds its first outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest

import perdure
from perdure import Event, op


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


async def versions(store: perdure.Store, session: str = "s") -> list[int]:
    return [commit.version async for commit in store.history(session)]


async def test_a_key_is_applied_once(url: str) -> None:
    """The same key with the same payload gets the first receipt back, in any order of an object's members; another is `KeyReused`."""

    async with perdure.open(url) as store:
        first = await store.append("s", Event("paid", {"sum": 3, "to": "me"}, (op.add("/n", 1),)), key="k")
        again = await store.append("s", Event("paid", {"to": "me", "sum": 3}, (op.add("/n", 1),)), key="k")
        assert not first.duplicate
        assert again == msgspec.structs.replace(first, duplicate=True)
        for other in (Event("paid", {"sum": 3.0, "to": "me"}, (op.add("/n", 1),)), Event("paid", {"sum": 3, "to": "me"})):
            with pytest.raises(perdure.KeyReused, match="'k' was used in session 's' for something else, at version 1") as refused:
                await store.append("s", other, key="k")
            assert (refused.value.code, refused.value.session, refused.value.version) == ("invalid", "s", 1)
            assert isinstance(refused.value, perdure.Invalid)
        assert (await store.append("t", Event("else"), key="k")).version == 1
        assert await versions(store) == [1]
        assert (await store.read("s")).state == {"n": 1}


@pytest.mark.parametrize(
    ("options", "ops"),
    [
        ({}, (op.remove("/a"),)),
        ({}, (op.test("/a", 1), op.set("/a", 2))),
        ({}, (op.splice("/list", 2, 1),)),
        ({"expect": 1, "on_conflict": "raise"}, (op.set("/b", 1),)),
        ({"expect": 1}, (op.splice("/list", 0, 3, [9]),)),
        ({"expect": 0, "session": "new"}, (op.set("/b", 1),)),
        ({"expect": 1, "on_conflict": "raise"}, ()),
    ],
)
async def test_a_retry_finds_its_commit_though_it_no_longer_fits(url: str, options: dict[str, Any], ops: tuple[perdure.Op, ...]) -> None:
    """A keyed append that is sent again gets its first receipt, even where its operations or its `expect` would be refused by now."""

    async def scenario() -> None:
        async with perdure.open(url) as store:
            session = options.pop("session", "s")
            await store.append("s", Event("begun", None, (op.set("", {"a": 1, "list": [1, 2, 3]}),)))
            first = await store.append(session, Event("x", None, ops), key="k", **options)
            await store.append(session, Event("later", None, (op.set("/list", "gone"),)))
            again = await store.append(session, Event("x", None, ops), key="k", **options)
            assert (again.version, again.hash, again.duplicate) == (first.version, first.hash, True)

    options = dict(options)
    await scenario()


async def test_keys_outlive_the_store(file_url: str) -> None:
    """A key is known after the store was closed, and by another store on the same file."""

    async with perdure.open(file_url) as store:
        first = await store.append("s", Event("x"), key="k")
    async with perdure.open(file_url) as store, perdure.open(file_url) as other:
        for each in (store, other):
            again = await each.append("s", Event("x"), key="k")
            assert (again.version, again.hash, again.duplicate) == (first.version, first.hash, True)


async def test_an_edit_with_a_key_already_applied(url: str) -> None:
    """The first call's receipt is there on entry, and whatever the block does then is dropped."""

    async with perdure.open(url) as store:
        async with store.edit("s", key="k") as draft:
            assert draft.receipt is None
            draft.state["n"] = 1
        async with store.edit("s", key="k") as again:
            assert again.receipt is not None
            assert again.receipt.duplicate
            again.state["n"] = 2
        assert again.receipt.hash == draft.receipt.hash
        assert (await store.read("s")).state == {"n": 1}

        def never(draft: perdure.Draft) -> None:
            raise AssertionError

        receipt, answer = await store.update("s", never, key="k")
        assert receipt is not None
        assert (receipt.version, receipt.duplicate, answer) == (1, True, None)


async def test_twenty_tasks_with_one_key(url: str) -> None:
    """Sent twenty times at once, by appends and updates, a key is applied once and all get the same commit."""

    async with perdure.open(url) as store:
        event = Event("x", None, (op.add("/n", 1),))
        receipts = await asyncio.gather(*[store.append("s", event, key="k") for _ in range(20)])
        assert len({receipt.hash for receipt in receipts}) == 1
        assert sum(not receipt.duplicate for receipt in receipts) == 1
        answers = await asyncio.gather(*[store.update("s", lambda draft: draft.add("/n", 1), key="u") for _ in range(20)])
        assert len({receipt.hash for receipt, _ in answers if receipt}) == 1
        assert (await store.read("s")).state == {"n": 2}


async def test_a_key_can_be_looked_up(url: str) -> None:
    """`find` gives the receipt of the commit that a key was applied by, and `None` for a key that nobody used."""

    async with perdure.open(url) as store:
        first = await store.append("s", Event("a"), key="k")
        await store.append("s", Event("b"))
        assert await store.find("s", "k") == msgspec.structs.replace(first, duplicate=True)
        assert await store.find("s", "other") is None
        assert await store.find("nobody", "k") is None
        with pytest.raises(perdure.Invalid):
            await store.find("s", "")
