"""Upcasters: old event types read in today's words; what is stored, folded and hashed stays as it was."""

from __future__ import annotations

from typing import Any

import pytest

import perdure
from perdure import Event, op
from perdure.codec.upcast import STEPS_MAX, Upcasters


def renamed(event: Event) -> Event:
    return Event("message", {"text": event.data}, event.ops)


def split(event: Event) -> Event:
    return Event("message.v2", {"words": event.data["text"].split()})


async def test_old_events_read_in_todays_words(tmp_path: Any) -> None:
    """History gives the new type and data, step by step from version to version; state, hashes and proofs are of what was stored."""
    url = f"sqlite:///{tmp_path}/store.db"

    async with perdure.open(url) as store:
        await store.append("s", Event("msg", "hi there", (op.add("/n", 1),)), Event("note", 1))
        await store.append("s", Event("note", 2))
        plain = [commit async for commit in store.history("s")]
    async with perdure.open(url, upcasters={"msg": renamed, "message": split}) as store:
        first, second = [commit async for commit in store.history("s")]
        assert first.events == (Event("message.v2", {"words": ["hi", "there"]}, (op.add("/n", 1),)), Event("note", 1))
        assert (first.hash, second) == (plain[0].hash, plain[1])
        assert [c.version async for c in store.history("s", types={"message.v2"})] == [1]
        assert [c.version async for c in store.history("s", types={"msg"})] == []
        assert (await store.read("s")).state == {"n": 1}
        await store.verify("s")


def test_operations_cannot_be_changed() -> None:
    """An upcaster that returns other operations, or none, changes nothing of how the state was made."""
    before = perdure.Commit(1, b"", 1, perdure.Kind.data, None, None, None, (Event("x", None, (op.add("/n", 1),)),), 0, b"", b"")
    after = Upcasters({"x": lambda event: Event("y", event.data, (op.set("/n", 9),))}).commit(before)
    assert after.events == (Event("y", None, (op.add("/n", 1),)),)


def test_an_upcaster_may_keep_its_type() -> None:
    """One that returns the type it is registered for is asked once."""
    commit = perdure.Commit(1, b"", 1, perdure.Kind.data, None, None, None, (Event("x", 1),), 0, b"", b"")
    assert Upcasters({"x": lambda event: Event("x", event.data + 1)}).commit(commit).events == (Event("x", 2),)


@pytest.mark.parametrize(
    "upcasters",
    [{"a": lambda _: Event("b"), "b": lambda _: Event("a")}, {"a": lambda _: None}, {"a": lambda _: "text"}],
    ids=["circle", "nothing", "text"],
)
def test_upcasters_that_lead_nowhere(upcasters: Any) -> None:
    """A circle ends after a bounded number of steps, and what is no event is refused, by the type that it came from."""
    commit = perdure.Commit(1, b"", 1, perdure.Kind.data, None, None, None, (Event("a"),), 0, b"", b"")
    with pytest.raises(perdure.Invalid, match="'a'"):
        Upcasters(upcasters).commit(commit)
    assert STEPS_MAX % 2 == 0, "the circle ends on the type it began with"
