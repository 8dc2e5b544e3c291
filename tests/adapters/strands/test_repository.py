"""The session repository beyond Strands' own tests: two writers, repetition, tails, deletion, what the log says, bad input."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strands import Agent
from strands.session.repository_session_manager import RepositorySessionManager
from strands.types.exceptions import SessionException
from strands.types.session import Session, SessionAgent, SessionMessage, SessionType

import perdure
from perdure.adapters.strands import PerdureSessionRepository
from tests.support.adapters.commit_lines import lines_of

NAME = "strands/sessions/s"


def message(number: int, text: str = "hello", role: str = "user") -> SessionMessage:
    return SessionMessage.from_message({"role": role, "content": [{"text": text}]}, number)  # type: ignore[typeddict-item]


def agent(id: str = "a", **state: Any) -> SessionAgent:
    return SessionAgent(agent_id=id, state=state, conversation_manager_state={"n": 0})


def begun(store: Any, *agents: str) -> PerdureSessionRepository:
    repository = PerdureSessionRepository(store)
    repository.create_session(Session(session_id="s", session_type=SessionType.AGENT))
    for id in agents or ("a",):
        repository.create_agent("s", agent(id))
    return repository


def texts(messages: list[SessionMessage]) -> list[str]:
    return [found.to_message()["content"][0]["text"] for found in messages]


@pytest.fixture
def store(url: str) -> Iterator[Any]:
    """An open blocking store."""
    with perdure.sync.open(url) as opened:
        yield opened


async def test_both_kinds_of_store_serve_and_a_running_loop_does_not_matter(url: str) -> None:
    """The repository's blocking methods work on an asynchronous store, from a thread whose loop runs and from threads without one."""

    async with perdure.open(url) as store:
        repository = begun(store)
        repository.create_message("s", "a", message(0, "in the loop"))
        await asyncio.to_thread(repository.create_message, "s", "a", message(1, "in a thread"))
        assert texts(repository.list_messages("s", "a")) == ["in the loop", "in a thread"]


def test_of_two_writers_of_one_number_the_later_is_refused(store: Any) -> None:
    """Two managers that loaded the same history compute the same next id: the second message is refused, the first stays."""
    first, second = (begun(store), PerdureSessionRepository(store))
    for number in range(3):
        first.create_message("s", "a", message(number))
    first.create_message("s", "a", message(3, "mine"))
    with pytest.raises(SessionException, match="Message 3 of agent a in session s was written by another writer"):
        second.create_message("s", "a", message(3, "theirs"))
    assert texts(first.list_messages("s", "a")) == ["hello"] * 3 + ["mine"]
    second.create_message("s", "a", message(4, "theirs, after loading"))
    assert [found.message_id for found in first.list_messages("s", "a")] == [0, 1, 2, 3, 4]


def test_racing_threads_lose_no_message(file_url: str) -> None:
    """Eight threads on two stores of one file each try every number: each number is won once, and all others are told."""
    refused: list[int] = []

    def work(repository: PerdureSessionRepository, who: int) -> None:
        for number in range(12):
            try:
                repository.create_message("s", "a", message(number, f"{who}"))
            except SessionException:
                refused.append(number)

    with perdure.sync.open(file_url) as here, perdure.sync.open(file_url) as there:
        repositories = [begun(here), PerdureSessionRepository(there)]
        threads = [threading.Thread(target=work, args=(repositories[who % 2], who)) for who in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = repositories[0].list_messages("s", "a")
        assert [kept.message_id for kept in found] == list(range(12))
        assert len(refused) == 7 * 12
        assert [repositories[1].read_message("s", "a", number) for number in range(12)] == found
        here.verify(NAME)


def test_a_message_sent_again_is_there_once(store: Any) -> None:
    """The same message created again, also late and with others behind it, changes nothing."""
    repository = begun(store)
    messages = [message(number) for number in range(4)]
    for sent in [*messages, *messages[::-1]]:
        repository.create_message("s", "a", sent)
    assert repository.list_messages("s", "a") == messages
    assert store.read(NAME).version == 2 + 4


def test_pages_are_positions_also_where_ids_have_gaps(store: Any) -> None:
    """`offset` and `limit` count messages in the order of their ids, whatever ids and in whatever order they were created."""
    repository = begun(store, "straight", "gaps")
    for number in range(6):
        repository.create_message("s", "straight", message(number))
    for number in (9, 0, 2, 3):
        repository.create_message("s", "gaps", message(number))
        repository.create_message("s", "gaps", repository.read_message("s", "gaps", number))  # type: ignore[arg-type]
    for id, numbers in (("straight", [0, 1, 2, 3, 4, 5]), ("gaps", [0, 2, 3, 9])):
        for offset in range(8):
            for limit in (None, 0, 1, 3, 9):
                found = [kept.message_id for kept in repository.list_messages("s", id, limit=limit, offset=offset)]
                assert found == numbers[offset:][:limit], (id, offset, limit)


def test_agents_of_one_session_do_not_mix(store: Any) -> None:
    """Each agent has its own messages and state, under any id; unknown ones have none."""
    ids = ["a", "a/b", "a~1b", "50%", "ü", "0"]
    repository = begun(store, *ids)
    for number, id in enumerate(ids):
        repository.create_message("s", id, message(0, id))
        repository.update_agent("s", agent(id, n=number))
    for number, id in enumerate(ids):
        assert texts(repository.list_messages("s", id)) == [id]
        read = repository.read_agent("s", id)
        assert read is not None
        assert read.state == {"n": number}
    assert repository.read_agent("s", "nobody") is None
    assert repository.list_messages("s", "nobody") == []
    assert repository.read_message("s", "nobody", 0) is None


def test_a_redacted_message_is_read_redacted(store: Any) -> None:
    """After `update_message` reading and listing give the new content with the old creation time; the history has both."""
    repository = begun(store)
    original = message(0, "secret")
    repository.create_message("s", "a", original)
    repository.create_message("s", "a", message(1))
    redacted = SessionMessage(**{**original.__dict__, "created_at": "later"})
    redacted.redact_message = {"role": "user", "content": [{"text": "[redacted]"}]}
    repository.update_message("s", "a", redacted)
    read = repository.read_message("s", "a", 0)
    assert read is not None
    assert (read.to_message()["content"], read.created_at) == ([{"text": "[redacted]"}], original.created_at)
    assert texts(repository.list_messages("s", "a")) == ["[redacted]", "hello"]
    assert repository.list_messages("s", "a", limit=1)[0] == read
    with pytest.raises(SessionException, match="Message 7 does not exist"):
        repository.update_message("s", "a", message(7))


def test_an_agents_growing_state_costs_what_was_added(store: Any) -> None:
    """An agent whose state holds a list that grows by an item at each of 200 syncs is stored as its items, with its first creation time."""
    repository = begun(store)
    first = repository.read_agent("s", "a")
    assert first is not None
    notes: list[Any] = []
    for number in range(200):
        notes.append({"n": number, "text": "x" * 50})
        repository.update_agent("s", agent(notes=notes))
    last = next(store.history(NAME, newest_first=True, limit=1))
    assert len(str(last.events)) < 400
    read = repository.read_agent("s", "a")
    assert read is not None
    assert (read.state, read.created_at) == ({"notes": notes}, first.created_at)


def test_a_sync_of_what_another_process_replaced_is_written(file_url: str) -> None:
    """The later sync of an agent counts, also if it says what this process wrote last and another has replaced since."""
    with perdure.sync.open(file_url) as here, perdure.sync.open(file_url) as there:
        mine, theirs = begun(here), PerdureSessionRepository(there)
        one, two = agent(n=1), agent(n=2)
        mine.update_agent("s", one)
        theirs.update_agent("s", two)
        mine.update_agent("s", one)
        found = theirs.read_agent("s", "a")
        assert found is not None
        assert found.state == {"n": 1}


def test_what_another_process_made_is_there(file_url: str) -> None:
    """An agent that another process created since this one looked can be updated, and is not created twice."""
    with perdure.sync.open(file_url) as here, perdure.sync.open(file_url) as there:
        mine, theirs = begun(here), PerdureSessionRepository(there)
        theirs.create_agent("s", agent("b", n=1))
        mine.update_agent("s", agent("b", n=2))
        found = theirs.read_agent("s", "b")
        assert found is not None
        assert found.state == {"n": 2}
        mine.create_agent("s", agent("c"))
        with pytest.raises(SessionException, match="already exists"):
            theirs.create_agent("s", agent("c"))


def test_a_deleted_session_can_be_made_again(store: Any) -> None:
    """After deletion nothing is left to read, late messages are refused, and a new session of that id starts from message 0."""
    repository = begun(store)
    for number in range(3):
        repository.create_message("s", "a", message(number, "old"))
    repository.delete_session("s")
    assert repository.read_session("s") is None
    assert repository.read_agent("s", "a") is None
    assert repository.list_messages("s", "a") == []
    for call in (lambda: repository.delete_session("s"), lambda: repository.create_message("s", "a", message(3))):
        with pytest.raises(SessionException, match="does not exist"):
            call()
    begun(store)
    assert repository.list_messages("s", "a") == []
    assert repository.read_message("s", "a", 0) is None
    for number in range(2):
        repository.create_message("s", "a", message(number, "new"))
    assert texts(repository.list_messages("s", "a")) == ["new", "new"]
    assert repository.read_message("s", "a", 2) is None


def test_what_is_not_there_or_is_there_already_is_said(store: Any) -> None:
    """Missing and doubled sessions, agents and multi-agents raise `SessionException`, and nothing is written."""
    repository = PerdureSessionRepository(store)
    calls = [
        lambda: repository.create_agent("s", agent()),
        lambda: repository.update_agent("s", agent()),
        lambda: repository.create_message("s", "a", message(0)),
        lambda: repository.update_message("s", "a", message(0)),
        lambda: repository.create_multi_agent("s", Graph("g", {})),
        lambda: repository.update_multi_agent("s", Graph("g", {})),
    ]
    for call in calls:
        with pytest.raises(SessionException, match="Session s does not exist"):
            call()
    assert list(store.list()) == []
    begun(store)
    with pytest.raises(SessionException, match="Session s already exists"):
        begun(store)
    with pytest.raises(SessionException, match="Agent a already exists"):
        repository.create_agent("s", agent())
    with pytest.raises(SessionException, match="Agent b does not exist"):
        repository.create_message("s", "b", message(0))
    with pytest.raises(SessionException, match="Multi-agent g does not exist"):
        repository.update_multi_agent("s", Graph("g", {}))
    assert store.read(NAME).version == 2


class Graph:
    """As much of a multi-agent as a repository sees."""

    def __init__(self, id: str, state: dict[str, Any]) -> None:
        self.id, self.state = id, state

    def serialize_state(self) -> dict[str, Any]:
        return self.state


def test_a_multi_agents_state_is_kept(store: Any) -> None:
    """Creating and updating sets it, reading gives it, an unknown one is `None`."""
    repository = begun(store)
    assert repository.read_multi_agent("s", "g") is None
    repository.create_multi_agent("s", Graph("g", {"status": "executing", "nodes": ["a"]}))  # type: ignore[arg-type]
    repository.update_multi_agent("s", Graph("g", {"status": "completed", "nodes": ["a", "b"]}))  # type: ignore[arg-type]
    assert repository.read_multi_agent("s", "g") == {"status": "completed", "nodes": ["a", "b"]}
    assert repository.read_multi_agent("none", "g") is None


CONTENT = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=50)
@given(st.lists(st.dictionaries(st.sampled_from(["text", "toolUse", "image"]), CONTENT, max_size=3), max_size=4))
def test_any_content_comes_back_exactly(content: list[Any]) -> None:
    """Whatever a message holds, bytes included, it is read as it was written, types too."""
    with perdure.sync.open("memory:") as store:
        repository = begun(store)
        sent = SessionMessage(message={"role": "user", "content": content}, message_id=0)
        repository.create_message("s", "a", sent)
        assert repr(repository.read_message("s", "a", 0)) == repr(sent)
        assert repr(repository.list_messages("s", "a")) == repr([sent])


def test_what_json_lacks_is_refused_by_name(store: Any) -> None:
    """A set or a NaN in a message is refused and nothing is written; an id that is no index is a ValueError, as in Strands."""
    repository = begun(store)
    for wrong, name in (({1}, "set"), (float("nan"), "Out of range float")):
        sent = SessionMessage(message={"role": "user", "content": [{"text": wrong}]}, message_id=0)  # type: ignore[typeddict-item]
        with pytest.raises(SessionException, match=name):
            repository.create_message("s", "a", sent)
    with pytest.raises(ValueError, match="must be an integer from 0"):
        repository.create_message("s", "a", message("0"))  # type: ignore[arg-type]
    assert store.read(NAME).version == 2


def test_other_peoples_sessions_are_refused(store: Any) -> None:
    """A session that something else made is not read as Strands', ids that are too long are refused, other tenants see nothing."""
    store.append(NAME, perdure.Event("step"))
    repository = PerdureSessionRepository(store)
    for call in (lambda: repository.read_session("s"), lambda: repository.create_message("s", "a", message(0))):
        with pytest.raises(perdure.Invalid, match="is no Strands session"):
            call()
    with pytest.raises(perdure.Invalid, match="at most 255"):
        repository.read_session("s" * 250)
    assert PerdureSessionRepository(store.for_tenant("globex")).read_session("s") is None
    with pytest.raises(perdure.Invalid, match="takes an open store"):
        PerdureSessionRepository("sqlite:///x.db")  # type: ignore[arg-type]


def test_the_log_reads_like_a_conversation(store: Any) -> None:
    """Commits have the agent as actor, a type that says what happened, and a preview of role and text; a fork goes on alone."""
    repository = begun(store)
    manager = RepositorySessionManager("s", repository)
    speaking = Agent(agent_id="b", session_manager=manager)
    for role, text in (("user", "Find a hotel"), ("assistant", "Three are free.")):
        manager.append_message({"role": role, "content": [{"text": text}]}, speaking)
    rows = [(commit.actor, commit.events[0].type, lines_of(commit)[0]) for commit in store.history(NAME)]
    assert [row[1] for row in rows] == ["session_created", "agent_created", "agent_created", "message", "message"]
    assert rows[3:] == [("b", "message", "user: Find a hotel"), ("b", "message", "assistant: Three are free.")]
    store.fork(NAME, at=4, id="strands/sessions/fork")
    repository.create_message("fork", "b", message(1, "elsewhere"))
    assert texts(repository.list_messages("fork", "b")) == ["Find a hotel", "elsewhere"]
    assert texts(repository.list_messages("s", "b")) == ["Find a hotel", "Three are free."]
    assert store.verify("strands/sessions/fork").version == 6
