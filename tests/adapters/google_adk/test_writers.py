"""Two writers, repetition, and death between a session's commit and the shared state that it asks for."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.events.event import Event

import perdure
from perdure.adapters.google_adk import PerdureSessionService
from tests.support.adapters.adk_sessions import SESSION, WHO, load, said, texts, with_delta

APP, USER = "adk/shop/app", "adk/shop/users/ann"


def test_of_two_stale_writers_one_wins_whatever_the_clocks_say(play) -> None:
    """Two copies of one loaded session append at once, with one timestamp: each time one is stored and the other refused."""

    async def scenario(service: PerdureSessionService) -> None:
        await service.create_session(**WHO, session_id="s")
        for round in range(8):
            loaded = await load(service)
            copies = [loaded.model_copy(deep=True), loaded.model_copy(deep=True)]
            both = [Event(invocation_id=f"{round}-{n}", author="user", timestamp=5.0) for n in range(2)]
            results = await asyncio.gather(*map(service.append_event, copies, both), return_exceptions=True)
            assert sorted(type(result).__name__ for result in results) == ["Event", "StaleSessionError"]
        assert len((await load(service)).events) == 8

    play(scenario)


async def test_two_stores_on_one_file_refuse_the_later_one(file_url: str) -> None:
    """Of two services with stores of their own, as in two processes, the one that loaded before the other wrote is refused."""

    async with perdure.open(file_url) as here, perdure.open(file_url) as there:
        first, second = PerdureSessionService(here), PerdureSessionService(there)
        mine = await first.create_session(**WHO, session_id="s")
        theirs = await load(second)
        await second.append_event(theirs, said("theirs", k=1))
        with pytest.raises(StaleSessionError, match="loaded at version 1, now at 2"):
            await first.append_event(mine, said("mine", k=2))
        mine = await load(first)
        await first.append_event(mine, said("mine", k=2))
        assert texts(await load(second)) == ["theirs", "mine"]
        assert (await load(second)).state == {"k": 2}


def test_one_session_object_takes_many_appends_at_once(play) -> None:
    """Parallel branches of one run append through one session object: all are stored, none is called stale, memory and store agree."""

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s")
        await asyncio.gather(*[service.append_event(session, said(str(n), **({"k": n} if n % 2 else {}))) for n in range(30)])
        assert await load(service) == session
        assert sorted(map(int, texts(session))) == list(range(30))

    play(scenario)


async def test_threads_with_loops_of_their_own_share_a_service(url: str) -> None:
    """One service serves event loops in several threads: sessions of each, and `app:` state of all, lose nothing."""

    def work(service: PerdureSessionService, user: str) -> None:
        async def run() -> None:
            session = await service.create_session(app_name="shop", user_id=user, session_id="s")
            for number in range(10):
                await service.append_event(session, with_delta({f"app:{user}{number}": number, "own": number}))

        asyncio.run(run())

    async with perdure.open(url) as store:
        service = PerdureSessionService(store)
        await asyncio.gather(*[asyncio.to_thread(work, service, user) for user in ("u1", "u2", "u3")])
        found = (await service.list_sessions(app_name="shop")).sessions
        shared = {f"app:{user}{number}": number for user in ("u1", "u2", "u3") for number in range(10)}
        assert [session.state for session in found] == [shared | {"own": 9}] * 3


def test_an_event_sent_again_is_there_once(play) -> None:
    """Sent again through the same, a reloaded or a stale session object, an event is once in the store, in memory and in the state."""

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s")
        before = session.model_copy(deep=True)
        event = said("once", k=1)
        for writer in (session, session, before, await load(service)):
            await service.append_event(writer, event.model_copy(deep=True))
            assert texts(writer) == ["once"]
        assert await load(service) == session == before
        await service.append_event(before, said("more"))
        await service.append_event(session, event)
        assert texts(await load(service)) == ["once", "more"]
        with pytest.raises(StaleSessionError):
            await service.append_event(session, said("behind"))

    play(scenario)


def test_an_event_id_names_one_event(play) -> None:
    """Another event under an id that the session has is refused with `AlreadyExistsError`; another session may use the id."""

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s")
        await service.append_event(session, Event(id="e", author="user", timestamp=1.0))
        with pytest.raises(AlreadyExistsError, match="'e' with other content"):
            await service.append_event(session, Event(id="e", author="user", timestamp=2.0))
        other = await service.create_session(**WHO, session_id="t")
        for writer, value in ((other, 1), (await service.create_session(**WHO, session_id="u"), 2)):
            event = with_delta({"app:k": value})
            event.id = "e"
            await service.append_event(writer, event)
        assert (await load(service)).state == {"app:k": 2}

    play(scenario)


DYING = """
import asyncio, os, signal, sys
import perdure
from perdure.adapters.google_adk import PerdureSessionService
from perdure.adapters.google_adk.shared import SharedState
from tests.support.adapters.adk_sessions import WHO, load, with_delta

async def die(self, *args):
    os.kill(os.getpid(), signal.SIGKILL)

async def main(url):
    async with perdure.open(url) as store:
        service = PerdureSessionService(store)
        session = await service.create_session(**WHO, session_id="s", state={"app:n": 0})
        SharedState.write = die
        await service.append_event(session, with_delta({"own": 1, "app:n": 1, "app:m": 1, "user:n": 1}))

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("newer", [False, True])
async def test_a_death_before_the_shared_state_loses_and_doubles_nothing(file_url: str, newer: bool) -> None:
    """Killed between the session's commit and the shared ones, the rest is carried out once by the next load; newer values stay."""
    died = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", DYING, file_url], check=False)
    assert died.returncode == -signal.SIGKILL

    async with perdure.open(file_url) as store:
        service = PerdureSessionService(store)
        assert (await store.read(APP)).state == {"n": 0}
        if newer:
            other = await service.create_session(app_name="shop", user_id="bob", session_id="t")
            await service.append_event(other, with_delta({"app:n": 2}))
        wanted = {"own": 1, "app:n": 2 if newer else 1, "app:m": 1, "user:n": 1}
        for _ in range(2):
            assert (await load(service)).state == wanted
        causes = [commit.key async for commit in store.history(APP)]
        assert len(causes) == len(set(causes)) == (3 if newer else 2)
        assert len([commit async for commit in store.history(USER)]) == 1
        session = await load(service)
        await service.append_event(session, said("on"))
        assert (await load(service)).state == wanted


def test_a_failure_before_the_shared_state_is_mended_by_sending_again(play, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the shared state cannot be written, `append_event` fails; the same event sent again is stored once and carried out."""

    async def fail(*args: object, **kwargs: object) -> None:
        raise perdure.Unavailable("The engine is away.")

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s")
        event = with_delta({"app:n": 1, "own": 1})
        with monkeypatch.context() as broken:
            broken.setattr(service._shared, "write", fail)
            with pytest.raises(perdure.Unavailable):
                await service.append_event(session, event)
        with pytest.raises(StaleSessionError):
            await service.append_event(session, said("not yet"))
        await service.append_event(session, event)
        assert await load(service) == session
        assert (len(session.events), session.state) == (1, {"app:n": 1, "own": 1})

    play(scenario)


def test_a_fork_is_a_session_of_its_own(play) -> None:
    """A fork under another ADK id goes on from its version; the parent is not made stale, shared state is not applied again."""

    async def scenario(service: PerdureSessionService) -> None:
        store = service._store
        session = await service.create_session(**WHO, session_id="s")
        await service.append_event(session, with_delta({"app:n": 1, "own": 1}))
        await service.append_event(session, with_delta({"app:n": 2, "own": 2}))
        fork = await store.fork(SESSION, at=2, id="adk/shop/sessions/ann/fork")
        branch = await load(service, "fork")
        assert (branch.state, len(branch.events)) == ({"app:n": 2, "own": 1}, 1)
        await service.append_event(branch, said("branch", own=3))
        await service.append_event(session, said("parent"))
        assert [(await load(service, id)).state["own"] for id in ("s", "fork")] == [2, 3]
        assert [len((await load(service, id)).events) for id in ("s", "fork")] == [3, 2]
        assert (await store.verify(SESSION)).version == (await store.read(SESSION)).version
        assert (await store.verify(fork)).version == 4
        assert {session.id for session in (await service.list_sessions(**WHO)).sessions} == {"s", "fork"}

    play(scenario)


def test_a_note_of_somebody_else_counts_but_is_no_event(play) -> None:
    """An event that another program adds to the session is in its log, makes a session loaded before it stale, and is no ADK event."""

    async def scenario(service: PerdureSessionService) -> None:
        session = await service.create_session(**WHO, session_id="s")
        await service.append_event(session, said("one"))
        await service._store.append(SESSION, perdure.Event("message", {"role": "user", "content": "by hand"}))
        with pytest.raises(StaleSessionError):
            await service.append_event(session, said("two"))
        session = await load(service, num_recent_events=1)
        await service.append_event(session, said("two"))
        assert texts(await load(service)) == ["one", "two"]

    play(scenario)
