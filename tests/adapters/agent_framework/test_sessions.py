"""The session store: snapshots come back, what changed is written, and of two workers neither is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agent_framework import AgentSession, Message

import perdure

pytestmark = pytest.mark.filterwarnings("ignore:.SESSION_STORE.")  # the framework's word that this interface may change

SESSION = "agent-framework/sessions/trip"


def keeping(store: Any) -> Any:
    """The store, imported where the framework's warning is expected."""
    from perdure.adapters.agent_framework import PerdureSessionStore

    return PerdureSessionStore(store)


def made(**state: Any) -> AgentSession:
    session = AgentSession(session_id="trip", service_session_id={"conversation": "c1"})
    session.state.update(state)
    return session


async def test_a_session_comes_back_and_is_the_callers_own(url: str) -> None:
    """Messages and values survive; who changes what was given or got changes nothing that is stored; unknown ones are None."""
    async with perdure.open(url) as store:
        sessions = keeping(store)
        given = made(history={"messages": [Message("user", ["hi"])]}, turn=1, nested={"a": [1, 2.5, None]})
        await sessions.set("trip", given)
        before = given.to_dict()
        given.state["nested"]["a"].append("changed")
        got = await sessions.get("trip")
        assert got.to_dict() == before and type(got.state["history"]["messages"][0]) is Message
        got.state["nested"].clear()
        assert (await sessions.get("trip")).to_dict() == before
        assert await sessions.get("nobody") is None
        await sessions.delete("nobody")


def test_a_blocking_store_serves_it_too(file_url: str) -> None:
    """The framework's coroutines work on `perdure.sync.Store`, in one loop after another."""
    with perdure.sync.open(file_url) as store:
        asyncio.run(keeping(store).set("trip", made(n=1)))
        assert asyncio.run(keeping(store).get("trip")).state == {"n": 1}


async def test_what_changed_is_written(url: str) -> None:
    """A turn of a long session commits its messages; a set without a change commits nothing."""
    async with perdure.open(url) as store:
        sessions = keeping(store)
        await sessions.set("trip", made(h={"messages": [Message("user", [f"m{n}"]) for n in range(500)]}))
        session = await sessions.get("trip")
        session.state["h"]["messages"].append(Message("assistant", ["new"]))
        session.state["turn"] = 2
        for _ in range(2):
            await sessions.set("trip", session)
        commits = [commit async for commit in store.history(SESSION)]
        assert len(commits) == 2
        touched = {op.path: op.value for op in commits[1].events[0].ops}
        assert touched == {"/state/h/messages": [Message("assistant", ["new"]).to_dict()], "/state/turn": 2}


async def test_two_workers_on_one_session_are_merged_or_one_is_refused(url: str) -> None:
    """Both append messages: both are kept. Both set one value differently: the later is refused, and nothing of it is written."""
    async with perdure.open(url) as store:
        await keeping(store).set("trip", made(h={"messages": [Message("user", ["hi"])]}, mood="calm"))
        one, two = keeping(store), keeping(store)
        first, second = await one.get("trip"), await two.get("trip")
        first.state["h"]["messages"].append(Message("user", ["one"]))
        second.state["h"]["messages"].append(Message("user", ["two"]))
        second.state["extra"] = True
        await one.set("trip", first)
        await two.set("trip", second)
        held = (await one.get("trip")).state
        assert [message.text for message in held["h"]["messages"]] == ["hi", "one", "two"] and held["extra"] is True
        second.state["mood"] = "lost"
        with pytest.raises(perdure.Conflict, match="get the session again"):
            await two.set("trip", second)
        first, second = await one.get("trip"), await two.get("trip")
        first.state["mood"], second.state["mood"] = "glad", "sad"
        second.state["h"]["messages"].append(Message("user", ["three"]))
        await one.set("trip", first)
        with pytest.raises(perdure.Conflict):
            await two.set("trip", second)
        held = (await one.get("trip")).state
        assert (held["mood"], len(held["h"]["messages"])) == ("glad", 3)


async def test_an_object_from_elsewhere_replaces_what_is_there(url: str) -> None:
    """As in the framework's own stores the last one counts; what it replaced stays in the history; an object may go on being set."""
    async with perdure.open(url) as store:
        sessions = keeping(store)
        await sessions.set("trip", made(n=1, old=True))
        other = made(n=2)
        await sessions.set("trip", other)
        other.state["n"] = 3
        await sessions.set("trip", other)
        await sessions.set("copy", other)
        assert (await sessions.get("trip")).state == (await sessions.get("copy")).state == {"n": 3}
        assert (await store.read(SESSION, at=1)).state["state"] == {"n": 1, "old": True}


async def test_a_deleted_session_meets_its_late_writers(url: str) -> None:
    """Who got the session before it was deleted is refused; a new object starts it again."""
    async with perdure.open(url) as store:
        sessions = keeping(store)
        await sessions.set("trip", made(n=1))
        late = await sessions.get("trip")
        await sessions.delete("trip")
        await sessions.delete("trip")
        assert await sessions.get("trip") is None
        late.state["n"] = 2
        with pytest.raises(perdure.Deleted):
            await sessions.set("trip", late)
        await sessions.set("trip", made(n=3))
        assert (await sessions.get("trip")).state == {"n": 3}


@pytest.mark.filterwarnings("ignore:AgentSession state value")  # the framework says so too, before the store refuses it
async def test_bad_input_is_refused(url: str) -> None:
    """Empty and long ids, subclasses, values JSON has no word for, foreign sessions."""

    class Mine(AgentSession):
        """A subclass, which the framework's own file store refuses too."""

    async with perdure.open(url) as store:
        sessions = keeping(store)
        for call in (sessions.get(""), sessions.set("", made()), sessions.delete("")):
            with pytest.raises(ValueError, match="non-empty"):
                await call
        with pytest.raises(TypeError, match="Mine"):
            await sessions.set("trip", Mine())
        with pytest.raises(perdure.Invalid, match="at most 255"):
            await sessions.get("x" * 250)
        for bad in (float("nan"), object(), {1, 2}):
            with pytest.raises(perdure.Invalid):
                await sessions.set("trip", made(bad=bad))
        assert await sessions.get("trip") is None
        await store.append(SESSION, perdure.Event("x", None, (perdure.op.set("/type", "other"),)))
        with pytest.raises(perdure.Invalid, match="trip"):
            await sessions.get("trip")
