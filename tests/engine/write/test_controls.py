"""Control commits that are decided on what control commits said before: decided again in their loop, never lost."""

from __future__ import annotations

import asyncio

import pytest

import perdure
from perdure import Event
from perdure.engine.write.controls import Basis, ControlChange, ControlCommit
from perdure.errors import NotFound
from perdure.model.commit import Kind
from perdure.model.control import decode_control
from perdure.model.ids import SessionKey

COUNTED = SessionKey("default", "s")


def count(basis: Basis) -> ControlChange:
    number = basis.control.sections.get("count", {"n": 0})["n"] + 1
    return ControlChange((ControlCommit(kind=Kind.configure, event=Event("counted", {"control": {"count": {"n": number}}})),))


@pytest.fixture(params=["memory:", "sqlite"])
def url(request, tmp_path):
    return request.param if request.param == "memory:" else f"sqlite:///{tmp_path}/s.db"


async def test_changes_that_race_are_each_decided_on_the_one_before(url):
    """Twenty changes that count, beside data commits and tags: each number comes once, and the row says the last."""
    async with perdure.open(url) as store:
        await store.append("s", Event("start"))
        core = store._core
        changes = [core.controls.change(COUNTED, count, durability=core.durability) for _ in range(20)]
        others = [store.append("s", Event("data")) for _ in range(20)] + [store.configure("s", tags={"a": "b"})]
        await asyncio.gather(*changes, *others)
        numbers = [
            event.data["control"]["count"]["n"] async for commit in store.history("s") for event in commit.events if event.type == "counted"
        ]
        assert numbers == list(range(1, 21))
        loaded = await core.backend.load(COUNTED)
        assert decode_control(loaded.row.control).sections["count"] == {"n": 20}
        assert loaded.row.tags == {"a": "b"}
        assert (await core.reader.read_head(COUNTED)).control.sections["count"] == {"n": 20}


async def test_what_was_read_before_is_decided_again_when_it_is_old(url):
    """A change that starts from an old basis is refused by the head, and decided on the new one."""
    async with perdure.open(url) as store:
        await store.append("s", Event("start"))
        core = store._core
        old = await core.controls._read_basis(COUNTED, create=False)
        await core.controls.change(COUNTED, count, durability=core.durability)
        await core.controls.change(COUNTED, count, durability=core.durability, basis=old)
        assert (await core.reader.read_head(COUNTED)).control.sections["count"] == {"n": 2}


async def test_a_change_of_no_session_is_refused_or_starts_it(url):
    """Without `create` there must be a session; with it the change is the first commit."""
    async with perdure.open(url) as store:
        core = store._core
        with pytest.raises(NotFound):
            await core.controls.change(COUNTED, count, durability=core.durability)
        made = await core.controls.change(COUNTED, count, durability=core.durability, create=True)
        assert made.head.version == 1
        assert await core.controls.change(COUNTED, lambda basis: None, durability=core.durability) is None


async def test_a_cold_reader_folds_the_same_cell_as_the_row_says(url, tmp_path):
    """What another store object reads after the change is what the index row holds; a tombstone empties it."""
    async with perdure.open(url) as store:
        await store.append("s", Event("start"))
        core = store._core
        await core.controls.change(COUNTED, count, durability=core.durability)
        core.cache.drop(COUNTED)
        assert (await core.reader.read_head(COUNTED)).control.sections == {"count": {"n": 1}}
        await store.delete("s")
        assert (await core.reader.read_head(COUNTED)).control.sections == {}
