"""Values in sessions, agents, messages and storages: text of any kind is kept, the rest comes back as Strands has it or is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from strands.types.exceptions import SessionException, StorageError
from strands.types.session import Session, SessionAgent, SessionMessage, SessionType

import perdure.sync
from perdure.adapters.strands import PerdureSessionRepository, PerdureStorage
from tests.support.adapters import unusual_values

HALVES = pytest.mark.parametrize("half", unusual_values.HALVES)
NAMES = pytest.mark.parametrize("name", unusual_values.NAMES)


def message(number: int, content: list[Any]) -> SessionMessage:
    return SessionMessage(message={"role": "user", "content": content}, message_id=number)


@HALVES
def test_half_an_emoji_is_kept(url: str, half: str) -> None:
    """In ids, states, messages and what replaced them: equal when another process reads it, and sent again it is there once."""
    with perdure.sync.open(url) as store:
        repository, other = PerdureSessionRepository(store), PerdureSessionRepository(store)
        repository.create_session(Session(session_id=half, session_type=SessionType.AGENT))
        agent = SessionAgent(agent_id=half, state={half: {half: [half]}}, conversation_manager_state={half: half})
        repository.create_agent(half, agent)
        contents: list[Any] = [[{"text": half}], [{"toolResult": {"toolUseId": half, "content": [{"json": {half: [half]}}]}}]]
        for sent in [message(number, content) for number, content in enumerate(contents)]:
            for writer in (repository, other):
                writer.create_message(half, half, sent)
        assert other.read_session(half).session_id == half  # type: ignore[union-attr]
        found = other.read_agent(half, half)
        assert (found.agent_id, found.state, found.conversation_manager_state) == (half, agent.state, {half: half})  # type: ignore[union-attr]
        assert [one.message["content"] for one in other.list_messages(half, half)] == contents
        assert other.read_message(half, half, 1).message["content"] == contents[1]  # type: ignore[union-attr]
        agent.state[f"{half} more"] = half
        repository.update_agent(half, agent)
        repository.update_message(half, half, message(0, [{"text": f"{half} redacted"}]))
        assert other.read_agent(half, half).state == agent.state  # type: ignore[union-attr]
        assert other.list_messages(half, half)[0].message["content"] == [{"text": f"{half} redacted"}]
        assert other.read_message(half, half, 0).message["content"] == [{"text": f"{half} redacted"}]  # type: ignore[union-attr]


@HALVES
def test_half_an_emoji_in_a_storages_key(url: str, half: str) -> None:
    """Written, listed by a prefix and below a namespace, read and deleted as others."""

    async def scenario(store: Any) -> None:
        storage = PerdureStorage(store)
        for place in (storage, storage.namespace(f"n{half}")):
            await place.write(f"k/{half}", half.encode(errors="surrogatepass"))
            assert await place.list(f"k/{half[0]}") == [f"k/{half}"]
            assert await place.read(f"k/{half}") == half.encode(errors="surrogatepass")
            await place.delete(f"k/{half}")
            assert await place.list() == []

    with perdure.sync.open(url) as store:
        asyncio.run(scenario(store))


@NAMES
def test_odd_values_come_back_or_are_refused(url: str, name: str) -> None:
    """In an agent's state and in a message, and in place of each: `SessionException`, or it is read; and the session goes on."""
    with perdure.sync.open(url) as store:
        repository = PerdureSessionRepository(store)
        value: Any = unusual_values.values()[name]
        for call in (
            lambda: repository.create_session(value),
            lambda: repository.create_agent("s", value),
            lambda: repository.create_message("s", "a", value),
            lambda: repository.create_multi_agent("s", value),
        ):
            with pytest.raises(SessionException):
                call()
        repository.create_session(Session(session_id="s", session_type=SessionType.AGENT))
        agent = SessionAgent(agent_id="a", state={}, conversation_manager_state={})
        repository.create_agent("s", agent)
        agent.state["x"] = value
        try:
            repository.update_agent("s", agent)
        except SessionException:
            assert repository.read_agent("s", "a").state == {}  # type: ignore[union-attr]
        else:
            assert "x" in repository.read_agent("s", "a").state  # type: ignore[union-attr]
        try:
            repository.create_message("s", "a", message(0, [{"json": value}]))
        except SessionException:
            assert repository.list_messages("s", "a") == []
            repository.create_message("s", "a", message(0, [{"text": "goes on"}]))
        assert len(repository.list_messages("s", "a")) == 1


@pytest.mark.parametrize("value", [None, 3, "text", [b"a"], {}, object()], ids=lambda value: type(value).__name__)
def test_a_storage_takes_bytes_under_strings(value: Any) -> None:
    """Anything else is a `StorageError`: a number is not as many zeros, and nothing is written."""

    async def scenario(store: Any) -> None:
        storage = PerdureStorage(store)
        with pytest.raises(StorageError):
            await storage.write("key", value)
        if not isinstance(value, str):
            for call in (storage.write(value, b"a"), storage.read(value), storage.delete(value), storage.list(value)):
                with pytest.raises(StorageError):
                    await call
        assert await storage.list() == []
        for held in (bytearray(b"\xff"), memoryview(b"\xff")):
            await storage.write("key", held)  # type: ignore[arg-type]
            assert await storage.read("key") == b"\xff"

    with perdure.sync.open("memory:") as store:
        asyncio.run(scenario(store))


def test_what_no_commit_holds_is_refused_whole(url: str) -> None:
    """More than 16 MiB in one message, state or value says both numbers, and what was there stays."""
    with perdure.sync.open(url) as store:
        repository, large = PerdureSessionRepository(store), "x" * (17 << 20)
        repository.create_session(Session(session_id="s", session_type=SessionType.AGENT))
        repository.create_agent("s", SessionAgent(agent_id="a", state={"x": 1}, conversation_manager_state={}))
        for call in (
            lambda: repository.create_message("s", "a", message(0, [{"text": large}])),
            lambda: repository.update_agent("s", SessionAgent(agent_id="a", state={"x": large}, conversation_manager_state={})),
        ):
            with pytest.raises(perdure.TooLarge, match="16,777,216"):
                call()
        with pytest.raises(StorageError, match="16,777,216"):
            asyncio.run(PerdureStorage(store).write("k", large.encode()))
        assert repository.list_messages("s", "a") == []
        assert repository.read_agent("s", "a").state == {"x": 1}  # type: ignore[union-attr]
