"""The SDK's compaction by hand: one commit, made of what it read; what others add meanwhile follows, what they take away stops it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from agents import OpenAIResponsesCompactionSession
from agents.extensions.memory import EncryptedSession

import perdure
from perdure.adapters.openai_agents import PerdureSession
from tests.adapters.openai_agents.test_values import LARGE

pytestmark = pytest.mark.skipif(
    "_atomic_replace_items" not in inspect.getsource(inspect.getmodule(OpenAIResponsesCompactionSession)),
    reason="this version of the SDK does not ask a store to replace items at once",
)
NAME = "openai/s"


def say(text: str) -> Any:
    return {"role": "user", "content": text}


SUMMARY = {"type": "compaction", "encrypted_content": "two words"}


def compacting(
    session: Any, meanwhile: Callable[[], Awaitable[object]] | None = None, output: list[Any] | None = None, **options: Any
) -> Any:
    """A compaction session whose model answers with a summary, after something else happened."""

    async def compact(**_: Any) -> Any:
        if meanwhile is not None:
            await meanwhile()
        return SimpleNamespace(output=[SUMMARY] if output is None else output, usage=None)

    client: Any = SimpleNamespace(responses=SimpleNamespace(compact=compact))
    return OpenAIResponsesCompactionSession("s", session, client=client, compaction_mode="input", **options)


async def compact(session: Any) -> None:
    await session.run_compaction({"force": True})


async def started(store: perdure.Store) -> PerdureSession:
    session = PerdureSession("s", store)
    await session.add_items([say("one"), say("two")])
    return session


async def contents(store: perdure.Store) -> list[Any]:
    return [item.get("content", item.get("encrypted_content")) for item in await PerdureSession("s", store).get_items()]


@pytest.mark.parametrize("options", [{}, {"max_rollback_items": 100}], ids=["free", "budget"])
async def test_what_is_added_meanwhile_follows_the_summary(url: str, options: dict[str, int]) -> None:
    """Another object's items, added while the model works, stand after the summary; a second compaction takes all in."""
    async with perdure.open(url) as store:
        session = await started(store)
        other = PerdureSession("s", store)
        mine = compacting(session, lambda: other.add_items([say("late"), say("later")]), **options)
        await mine.get_items()  # its memory of the conversation is filled, as by a run before
        await compact(mine)
        assert await contents(store) == ["two words", "late", "later"]
        assert await contents(store) == [item.get("content", "two words") for item in await session.get_items()]
        await compact(compacting(session, **options))
        assert await contents(store) == ["two words"]


async def test_it_is_one_commit(url: str) -> None:
    """A reader finds the conversation before or after, never emptied in between."""
    async with perdure.open(url) as store:
        session = await started(store)
        await compact(compacting(session))
        [commit] = [commit async for commit in store.history(NAME, after=1)]
        assert [event.type for event in commit.events] == ["compacted", "item"]
        assert await contents(store) == ["two words"]


@pytest.mark.parametrize("taking", ["pop_item", "clear_session"])
async def test_what_is_taken_away_meanwhile_stops_it(url: str, taking: str) -> None:
    """A summary of what somebody took away is refused with `Conflict`, and the conversation is as that one left it."""
    async with perdure.open(url) as store:
        session = await started(store)
        other = PerdureSession("s", store)
        with pytest.raises(perdure.Conflict, match="taken away while they were compacted"):
            await compact(compacting(session, getattr(other, taking)))
        assert await contents(store) == (["one"] if taking == "pop_item" else [])


async def test_a_read_of_long_ago_is_not_what_was_compacted(url: str) -> None:
    """What this very task read before the compaction began says nothing about it: everything that was there is taken in."""
    async with perdure.open(url) as store:
        session = await started(store)
        await session.get_items()
        await PerdureSession("s", store).add_items([say("three")])
        await compact(compacting(session))
        assert await contents(store) == ["two words"]


async def test_an_encrypted_session_around_it_loses_nothing(url: str) -> None:
    """The encryption reads by itself and hands over what it encrypted: here too what others add meanwhile is kept."""
    async with perdure.open(url) as store:

        def opened() -> Any:
            return EncryptedSession("s", PerdureSession("s", store), "key")

        other = opened()
        await other.add_items([say("one"), say("two")])
        whole = EncryptedSession("s", compacting(PerdureSession("s", store), lambda: other.add_items([say("late")])), "key")
        await compact(whole)
        assert [item.get("content", "two words") for item in await opened().get_items()] == ["two words", "late"]
        assert (await store.read(NAME)).version == 3


async def test_a_summary_of_any_size_is_one_replacement(url: str) -> None:
    """Output and late items that one commit does not hold are written in parts first, and take the place of the rest at once."""
    async with perdure.open(url) as store:
        session = await started(store)
        other = PerdureSession("s", store)
        await compact(compacting(session, lambda: other.add_items([say("late")]), LARGE[:1]))
        assert await session.get_items() == await PerdureSession("s", store).get_items() == [LARGE[0], say("late")]


async def test_an_empty_conversation_and_an_empty_summary(url: str) -> None:
    """Nothing to take away and nothing to put there are no trouble."""
    async with perdure.open(url) as store:
        await compact(compacting(PerdureSession("s", store)))
        assert await contents(store) == ["two words"]
        await compact(compacting(PerdureSession("s", store), output=[]))
        assert await contents(store) == []


async def test_a_subclass_that_changes_items_is_asked() -> None:
    """What a subclass does in `add_items` is done to a summary too."""

    class Loud(PerdureSession):
        async def add_items(self, items: list[Any]) -> None:
            await super().add_items([{**item, "loud": True} for item in items])

    async with perdure.open("memory:") as store:
        session = Loud("s", store)
        await session.add_items([say("one")])
        await compact(compacting(session))
        assert await PerdureSession("s", store).get_items() == [{**SUMMARY, "loud": True}]
