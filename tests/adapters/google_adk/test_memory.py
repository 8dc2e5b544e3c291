"""The memory service: what is added is found by its words, once, by its user alone."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from google.adk.events.event import Event
from google.adk.memory import InMemoryMemoryService
from google.adk.memory.base_memory_service import SearchMemoryResponse
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.sessions import Session
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st

import perdure
from perdure.adapters.google_adk import PerdureMemoryService
from tests.support.adapters.adk_sessions import WHO, said

MEMORY = "adk/shop/memory/ann"


@pytest.fixture
def play(player: Callable[..., None]) -> Callable[..., None]:
    """Run a scenario with a memory service."""
    return partial(player, PerdureMemoryService)


def session(*events: Event, id: str = "s", user: str = "ann", app: str = "shop") -> Session:
    return Session(id=id, app_name=app, user_id=user, events=list(events))


def found(response: SearchMemoryResponse) -> list[str]:
    return [memory.content.parts[0].text for memory in response.memories]


def commits(service: PerdureMemoryService) -> Any:
    return service._store.history(MEMORY)


def test_a_memory_is_found_by_a_word_in_any_case(play) -> None:
    """A search gives the event's content, author, time and id; a part of a Latin word, or a word that nobody said, gives nothing."""

    async def scenario(service: PerdureMemoryService) -> None:
        assert (await service.search_memory(**WHO, query="hotel")).memories == []
        event = said("The Hotel by the river was quiet.", author="planner")
        event.timestamp = 12345.5
        await service.add_session_to_memory(session(event, said(""), said(k=1)))
        (memory,) = (await service.search_memory(**WHO, query="which HOTEL?")).memories
        assert (memory.content, memory.author, memory.id) == (event.content, "planner", event.id)
        (theirs,) = (await in_memory(session(event), "hotel")).memories
        assert memory.timestamp == theirs.timestamp
        for nothing in ("hot", "Rome", "", "?!"):
            assert (await service.search_memory(**WHO, query=nothing)).memories == []
        assert [commit.events[0].data["ids"] async for commit in commits(service)] == [[event.id]]

    play(scenario)


async def in_memory(added: Session, query: str) -> SearchMemoryResponse:
    service = InMemoryMemoryService()
    await service.add_session_to_memory(added)
    return await service.search_memory(app_name=added.app_name, user_id=added.user_id, query=query)


def test_a_session_added_again_is_there_once(play) -> None:
    """Added twice nothing is written; as it grew only what is new; from its end alone nothing is lost; changed content counts."""

    async def scenario(service: PerdureMemoryService) -> None:
        events = [said(f"note {n}") for n in range(4)]
        for _ in range(2):
            await service.add_session_to_memory(session(*events[:3]))
        assert len([commit async for commit in commits(service)]) == 1
        await service.add_session_to_memory(session(*events))
        await service.add_session_to_memory(session(events[3]))
        assert [commit.events[0].data["ids"] async for commit in commits(service)] == [[event.id for event in events[:3]], [events[3].id]]
        assert found(await service.search_memory(**WHO, query="note")) == [f"note {n}" for n in range(4)]
        changed = events[1].model_copy(update={"content": types.UserContent("note changed")})
        await service.add_session_to_memory(session(events[0], changed))
        assert found(await service.search_memory(**WHO, query="note")) == ["note 0", "note changed", "note 2", "note 3"]

    play(scenario)


def test_events_are_added_beside_a_session(play) -> None:
    """`add_events_to_memory` adds what is not there by its id, leaves what is, and keeps the metadata; sessions are apart."""

    async def scenario(service: PerdureMemoryService) -> None:
        one, two = said("note one"), said("note two")
        await service.add_session_to_memory(session(one))
        again = one.model_copy(update={"content": types.UserContent("note other")})
        twice = two.model_copy(update={"content": types.UserContent("note twice")})
        await service.add_events_to_memory(**WHO, session_id="s", events=[again, two, twice], custom_metadata={"kind": "tip"})
        memories = (await service.search_memory(**WHO, query="note")).memories
        assert [(memory.content.parts[0].text, memory.custom_metadata) for memory in memories] == [
            ("note one", {}),
            ("note two", {"kind": "tip"}),
        ]
        await service.add_session_to_memory(session(one, two))
        assert (await service.search_memory(**WHO, query="note")).memories == memories
        await service.add_events_to_memory(**WHO, events=[one])
        await service.add_events_to_memory(**WHO, session_id="t", events=[one])
        assert found(await service.search_memory(**WHO, query="one")) == ["note one"] * 3
        assert {name: len(held) for name, held in (await service._store.read(MEMORY)).state["sessions"].items()} == {"s": 2, "t": 1}

    play(scenario)


def test_memories_are_added_directly(play) -> None:
    """`add_memory` keeps items with their id, author, time and metadata, each id once, and gives an id to one that has none."""

    async def scenario(service: PerdureMemoryService) -> None:
        tea = MemoryEntry(id="m1", content=said("Ann likes tea").content, author="ann", timestamp="last May", custom_metadata={"a": 1})
        cake = MemoryEntry(content=said("Ann likes cake").content)
        await service.add_memory(**WHO, memories=[tea, cake], custom_metadata={"b": 2})
        await service.add_memory(**WHO, memories=[tea])
        first, second = (await service.search_memory(**WHO, query="likes")).memories
        assert first == tea.model_copy(update={"custom_metadata": {"a": 1, "b": 2}})
        assert (second.content, second.author, second.timestamp, second.custom_metadata) == (cake.content, None, None, {"b": 2})
        assert second.id
        with pytest.raises(perdure.Invalid):
            await service.add_memory(**WHO, memories=[cake], custom_metadata={"at": object()})

    play(scenario)


def test_a_memory_that_was_deleted_stays_away(play) -> None:
    """A deleted memory is not found, and adding its event or its session again does not bring it back; others stay."""

    async def scenario(service: PerdureMemoryService) -> None:
        events = [said(f"note {n}") for n in range(3)]
        await service.add_session_to_memory(session(*events))
        await service.add_events_to_memory(**WHO, events=events[:2])
        await service.delete_memory(**WHO, memory_id=events[1].id)
        before = len([commit async for commit in commits(service)])
        for nothing in (events[1].id, "never", None, ""):
            await service.delete_memory(**WHO, memory_id=nothing)
        await service.delete_memory(app_name="shop", user_id="nobody", memory_id="x")
        await service.add_session_to_memory(session(*events))
        await service.add_events_to_memory(**WHO, events=events[:2])
        await service.add_memory(**WHO, memories=[MemoryEntry(id=events[1].id, content=types.UserContent("note 1"))])
        assert len([commit async for commit in commits(service)]) == before
        assert found(await service.search_memory(**WHO, query="note")) == ["note 0", "note 2", "note 0"]

    play(scenario)


def test_users_apps_and_tenants_are_apart(play) -> None:
    """A search sees one user of one app: names with slashes do not meet, and another tenant of the store sees nothing."""

    async def scenario(service: PerdureMemoryService) -> None:
        await service.add_session_to_memory(session(said("secret"), app="a/memory/b", user="c"))
        await service.add_session_to_memory(session(said("secret"), app="a", user="b/c"))
        for app, user, count in (("a/memory/b", "c", 1), ("a", "b/c", 1), ("a", "b", 0), ("a", "memory/b/c", 0), ("a/memory", "b", 0)):
            assert len((await service.search_memory(app_name=app, user_id=user, query="secret")).memories) == count
        other = PerdureMemoryService(service._store.for_tenant("globex"))
        assert (await other.search_memory(app_name="a", user_id="b/c", query="secret")).memories == []

    play(scenario)


async def test_many_that_add_at_once_lose_nothing(file_url: str) -> None:
    """Two services with stores of their own, as in two processes, add overlapping events of several sessions: each is there once."""

    async with perdure.open(file_url) as here, perdure.open(file_url) as there:
        services = [PerdureMemoryService(here), PerdureMemoryService(there)]
        events = [said(f"note {n}") for n in range(20)]
        adds = [
            services[n % 2].add_events_to_memory(**WHO, session_id=f"s{n % 3}", events=events[max(0, n - 3) : n + 1]) for n in range(20)
        ]
        await asyncio.gather(*adds)
        for service in services:
            state = await service._memories.state(MEMORY)
            for n in range(3):
                wanted = {event.id for m in range(n, 20, 3) for event in events[max(0, m - 3) : m + 1]}
                held = [entry["id"] for entry in state["sessions"][f"s{n}"]]
                assert len(held) == len(wanted)
                assert set(held) == wanted


async def test_what_one_forgets_another_that_knows_it_not_yet_forgets(file_url: str) -> None:
    """A deletion decides on what is stored, not on what its process remembers."""

    async with perdure.open(file_url) as here, perdure.open(file_url) as there:
        first, second = PerdureMemoryService(here), PerdureMemoryService(there)
        event = said("note")
        await second.add_events_to_memory(**WHO, events=[said("other")])
        await first.add_events_to_memory(**WHO, events=[event])
        await second.delete_memory(**WHO, memory_id=event.id)
        assert found(await first.search_memory(**WHO, query="note")) == []


@pytest.mark.parametrize(
    ("text", "query", "count"),
    [
        ("私の名前は太郎です", "太郎", 1),
        ("私の名前は太郎です", "天気", 0),
        ("私はPythonを使う", "python", 1),
        ("私はPythonを使う", "thon", 0),
        ("제 이름은 민수입니다", "민수입니다", 1),
        (unicodedata.normalize("NFD", "Meet at the Café"), "café", 1),
        ("Meet at the Café", unicodedata.normalize("NFD", "CAFÉ"), 1),
        ("snake_case is one word", "case", 0),
        ("no", "yes, no, yes", 1),
    ],
)
def test_words_of_any_script(play, text: str, query: str, count: int) -> None:
    """Words are found in any case and either form of accents; within a text only where the script leaves no spaces."""

    async def scenario(service: PerdureMemoryService) -> None:
        await service.add_session_to_memory(session(said(text)))
        assert found(await service.search_memory(**WHO, query=query)) == [text] * count

    play(scenario)


TEXTS = st.lists(
    st.sampled_from(["the", "hotel", "Hotel", "太郎", "は", "Python", "é", "e\u0301", "ß", " ", " ", ".", "_", "7"]), max_size=8
).map("".join)


@settings(max_examples=150)
@given(st.lists(TEXTS, max_size=30), TEXTS)
def test_it_finds_what_the_in_memory_service_finds(texts: list[str], query: str) -> None:
    """Whatever the texts and the query are, the memories and their order are those of ADK's own in-memory service."""

    async def scenario() -> None:
        added = session(*[said(text) for text in texts])
        async with perdure.open("memory:") as store:
            service = PerdureMemoryService(store)
            await service.add_session_to_memory(added)
            mine = (await service.search_memory(**WHO, query=query)).memories
        theirs = (await in_memory(added, query)).memories
        assert [(memory.content, memory.timestamp) for memory in mine] == [(memory.content, memory.timestamp) for memory in theirs]

    asyncio.run(scenario())


async def test_what_is_not_ours_and_a_closed_store_are_refused() -> None:
    """A session that something else made is named; after the store is closed every method raises `Closed`; a URL is no store."""

    async with perdure.open("memory:") as store:
        service = PerdureMemoryService(store)
        await store.append(MEMORY, perdure.Event("note", 1))
        for call in (service.search_memory(**WHO, query="a"), service.add_session_to_memory(session(said("a")))):
            with pytest.raises(perdure.Invalid, match="no memory of ADK"):
                await call
    for call in (
        service.search_memory(**WHO, query="a"),
        service.add_session_to_memory(session(said("a"))),
        service.add_events_to_memory(**WHO, events=[said("a")]),
        service.add_memory(**WHO, memories=[MemoryEntry(content=types.UserContent("a"))]),
        service.delete_memory(**WHO, memory_id="a"),
    ):
        with pytest.raises(perdure.Closed):
            await call
    with pytest.raises(perdure.Invalid, match="takes an open store"):
        PerdureMemoryService("sqlite:///agents.db")  # type: ignore[arg-type]
