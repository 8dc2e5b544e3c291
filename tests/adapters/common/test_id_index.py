"""The index by id: who comes first decides, in any process, and nothing else is taken for an entry."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import perdure
from perdure.adapters.common.id_index import IdIndex
from tests.support.adapters.unusual_values import HALVES


async def test_the_first_entry_holds_for_everyone(tmp_path: Path) -> None:
    """Of many writers on two stores one entry is kept, and all are told the same; ids of any kind are apart."""

    url = f"sqlite:///{tmp_path}/store.db"
    async with perdure.open(url) as one, perdure.open(url) as two:
        lookups = [IdIndex(store, "index") for store in (one, two)]
        assert await lookups[0].get("id") is None
        told = await asyncio.gather(*[lookups[n % 2].put("id", {"n": n}) for n in range(8)])
        assert len({str(value) for value in told}) == 1
        assert await lookups[1].get("id") == told[0] == await lookups[0].put("id", "late")
        ids = ["", "a/b", "x" * 1000, "\x00", "ä", "id2", *HALVES]
        for id in ids:
            await lookups[0].put(id, id)
        assert [await lookups[1].get(id) for id in ids] == ids


async def test_a_session_that_is_no_index_is_named() -> None:
    """An event under an entry's key that is no entry is refused."""

    async with perdure.open("memory:") as store:
        lookup = IdIndex(store, "index")
        session, key = lookup._entry_key("id")
        await store.append(session, perdure.Event("note", 1), key=key)
        with pytest.raises(perdure.Invalid, match=session):
            await lookup.get("id")
