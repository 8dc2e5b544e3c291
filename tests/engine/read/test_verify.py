"""What `verify` finds: tampering with commits, with the columns that no hash covers, and with the index row."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import apsw
import msgspec
import pytest

import perdure
from perdure import Event, op
from perdure.model.ids import SessionKey


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


TAMPERINGS = {
    "a body": "UPDATE log SET body = (SELECT body FROM log WHERE version = 2) WHERE version = 3",
    "an actor": "UPDATE log SET meta = (SELECT meta FROM log WHERE version = 2) WHERE version = 3",
    "a time": "UPDATE log SET at = at + 1 WHERE version = 3",
    "a kind": "UPDATE log SET kind = 1 WHERE version = 3",
    "a key": "UPDATE log SET key = 'other' WHERE version = 3",
    "a commit taken out": "DELETE FROM log WHERE version = 3",
    "a commit moved": "UPDATE log SET version = 9 WHERE version = 3",
    "two exchanged": "UPDATE log SET version = CASE version WHEN 2 THEN -3 WHEN 3 THEN -2 END WHERE version IN (2, 3); "
    "UPDATE log SET version = -version WHERE version < 0",
    "the status": "UPDATE log SET status = 1 WHERE version = 3",
    "the last data version": "UPDATE log SET data = 1 WHERE version = 3",
    "the epoch": "UPDATE log SET epoch = 1 WHERE version = 3",
    "the first": "DELETE FROM log WHERE version = 1",
    "the tags": 'UPDATE session SET tags = \'{"team": "dev"}\'',
    "tags taken away": "UPDATE session SET tags = '{}'",
    "an erased body in its place": "UPDATE log SET body = x'd6010000' || randomblob(32) WHERE version = 3",
}


async def test_a_row_that_differs_from_its_chain_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an engine keeps the head in a row of its own, `verify` compares that copy too: status, epoch, time, tags."""

    async with perdure.open("memory:") as store:
        await store.append("s", Event("x"))
        await store.configure("s", tags={"team": "ops"})
        backend = store._core.backend
        load = backend.load

        def changed(**columns: Any) -> Any:
            async def other(session: Any, at: int | None = None) -> Any:
                loaded = await load(session, at)
                return loaded and msgspec.structs.replace(loaded, row=msgspec.structs.replace(loaded.row, **columns))

            return other

        head = (await load(SessionKey("default", "s"))).row.head
        for column, value in (("status", 1), ("epoch", 1), ("at", head.at + 1), ("data", 2)):
            monkeypatch.setattr(backend, "load", changed(head=msgspec.structs.replace(head, **{column: value})))
            with pytest.raises(perdure.Corrupt, match="index row of session 's' has another status"):
                await store.verify("s")
        monkeypatch.setattr(backend, "load", changed(tags={}))
        with pytest.raises(perdure.Corrupt, match="other tags"):
            await store.verify("s")
        monkeypatch.setattr(backend, "load", load)
        await store.verify("s")


async def test_tags_end_with_the_session(url: str) -> None:
    """A new life of a deleted session has none of the old one's tags, in a view, in a listing, to a store with a memory and without; nor
    has a fork its parent's."""

    async with perdure.open(url) as store:
        await store.append("s", Event("x", None, (op.set("/n", 1),)))
        await store.configure("s", tags={"team": "ops"})
        fork = await store.fork("s", at=2)
        assert (await store.read(fork)).tags == {}
        await store.verify(fork)
        assert (await store.read("s")).tags == {"team": "ops"}
        await store.delete("s")
        await store.verify("s")
        await store.append("s", Event("y"), recreate=True)
        assert (await store.read("s")).tags == {}
        assert [info.session async for info in store.list(tags={"team": "ops"})] == []
        await store.verify("s")
        await store.configure("s", tags={"team": "new"})
        await store.verify("s")
    if url.startswith("sqlite"):
        async with perdure.open(url) as store:
            assert (await store.read("s", at=5)).tags == (await store.read("s")).tags == {"team": "new"}
            assert (await store.verify("s")).version == 6


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_tampering_is_found(name: str, file_url: str) -> None:
    """What anyone without the whole chain's rewriting changes in the file, `verify` finds."""

    async with perdure.open(file_url) as store:
        for number in range(5):
            await store.append("s", Event("x", number, (op.add("/n", 1),)), actor=f"a{number}", key=f"k{number}")
        await store.configure("s", tags={"team": "ops"})
        await store.verify("s")
    connection = apsw.Connection(file_url.removeprefix("sqlite:///"))
    connection.execute(TAMPERINGS[name])
    connection.close()
    async with perdure.open(file_url) as store:
        with pytest.raises((perdure.Corrupt, perdure.Truncated)):
            await store.verify("s")
