"""Agents that live for months on a simulated clock: their messages come in visits, days or weeks apart. Between these a sweeper archives,
compacts, wakes and expires them; a write brings them back. Whoever works is killed by chance. What is right is judged by the histories."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

import perdure
from perdure import Commit, Event, Kind, Status, op
from perdure.ops import sweep
from tests.support.ops.mortal import Machine
from tests.support.ops.scenarios import DAY
from tests.support.ops.simulated_clock import START, SimulatedClock

ROUND = timedelta(hours=12)
"""From one round of the sweeper to the next."""
LATE = 2 * DAY
"""So much later than a policy says something may be done: a day, where a session was used since the last look; rounds that are killed."""
ARCHIVE, EXPIRE, GRACE, WAKE = 10 * DAY, 60 * DAY, 7 * DAY, 7 * DAY
POLICIES: dict[str, dict[str, Any]] = {
    "rests": {"archive_after": ARCHIVE},
    "keeps": {"archive_after": ARCHIVE, "keep": 6},
    "wakes": {"archive_after": ARCHIVE, "wake_every": WAKE},
    "expires": {"archive_after": ARCHIVE, "expire_after": EXPIRE, "grace": GRACE},
    "talks": {"archive_after": ARCHIVE},
}
"""What is set for a fifth of the agents each."""


@dataclass
class Agent:
    """One session, its messages, and when they come."""

    name: str
    messages: list[Any]
    kind: str
    visits: list[tuple[datetime, int]]
    """When the agent is used, and up to which message."""
    sent: int = 0
    tombstone: Commit | None = None
    purged: bool = False
    done: list[str] = field(default_factory=list)


def agents(stored: dict[str, list[Any]], seed: int) -> list[Agent]:
    """An agent for each transcript, which is cut into two to six visits."""
    chance, made = random.Random(seed), []
    for number, (name, messages) in enumerate(stored.items()):
        cuts = [*sorted(chance.sample(range(1, len(messages)), chance.randint(1, 5))), len(messages)]
        at, visits = START + timedelta(days=chance.randint(0, 20)), []
        for upto in cuts:
            visits.append((at, upto))
            at += timedelta(days=chance.choice((1, 3, 8, 15, 30)))
        made.append(Agent(name, messages, list(POLICIES)[number % len(POLICIES)], visits))
    return made


class Life:
    """The months of all agents on one store, which is open on `clock` and has an archive."""

    def __init__(self, store: perdure.Store, clock: SimulatedClock, agents: list[Agent], seed: int, killing: float) -> None:
        self.store, self.clock, self.agents = store, clock, agents
        self.chance = random.Random(seed)
        self.machine = Machine(store, clock, self.chance, killing)
        self.end = max(agent.visits[-1][0] for agent in agents) + EXPIRE + GRACE + 4 * LATE

    async def live(self) -> None:
        """From the first visit until everything that policies say is done."""
        while self.clock.time < self.end:
            await asyncio.gather(self._visit(), self._sweep())
            await self._look()
            self.clock.advance(seconds=ROUND.total_seconds())

    async def _visit(self) -> None:
        now = self.clock.time
        due = [agent for agent in self.agents if any(at <= now and agent.sent < upto for at, upto in agent.visits)]

        async def all_of_them(store: perdure.Store) -> None:
            for error in await asyncio.gather(*[self._say(store, agent, now) for agent in due], return_exceptions=True):
                if error is not None:
                    raise error

        if due:
            await self.machine.run(all_of_them, 60)

    async def _say(self, store: perdure.Store, agent: Agent, now: datetime) -> None:
        """Send what is to be sent by now; what an earlier process has sent is known by its key."""
        for number in range(agent.sent, max(upto for at, upto in agent.visits if at <= now)):
            event = Event("message", agent.messages[number], (op.add("/messages", 1),))
            await store.append(agent.name, event, key=f"m{number}", actor="agent")
            if number == 0:
                await store.configure(agent.name, **POLICIES[agent.kind])
            agent.sent = number + 1

    async def _sweep(self) -> None:
        await self.machine.run(lambda store: sweep(store, once=True), 40)

    async def _look(self) -> None:
        """Somebody reads a session as it is just then, and now and then restores one that is archived; the deleted are judged."""
        agent = self.chance.choice(self.agents)
        if agent.sent and agent.tombstone is None and not await self._has_ended(agent):
            assert await messages(self.store, agent.name) == agent.messages[: agent.sent]
            if self.chance.random() < 0.1 and self.clock.time < self.end - ARCHIVE - LATE:  # In the end all have to be archived.
                await self.machine.run(lambda store: store.restore(agent.name), 5)
        for each in self.agents:
            if each.kind == "expires" and each.sent == len(each.messages) and not each.purged:
                await self._judge_end(each)

    async def _has_ended(self, agent: Agent) -> bool:
        (head,) = await self.store._core.backend.heads([self.store._context.key(agent.name)])
        return head is not None and head.status == Status.deleted

    async def _judge_end(self, agent: Agent) -> None:
        """It is deleted when it should be, whole until its grace is over, and nothing is left of it afterwards."""
        now, used = self.clock.time, agent.visits[-1][0]
        if agent.tombstone is None:
            if not await self._has_ended(agent):
                assert now < used + EXPIRE + LATE, f"{agent.name} should have expired"
                return
            history = [commit async for commit in self.store.history(agent.name, include_deleted=True)]
            agent.tombstone = history[-1]
            assert agent.tombstone.kind is Kind.tombstone and agent.tombstone.time >= used + EXPIRE
        since = now - agent.tombstone.time
        if since < GRACE - ROUND:
            assert await messages(self.store, agent.name, include_deleted=True) == agent.messages
        elif since > GRACE + LATE:
            with pytest.raises(perdure.Truncated) as caught:
                await messages(self.store, agent.name, include_deleted=True)
            assert caught.value.first == agent.tombstone.version
            core, key = self.store._core, self.store._context.key(agent.name)
            assert await core.segments.list(key) == []
            agent.purged = True

    async def judge(self) -> None:
        """Every message of every agent that did not expire is there once and in order; what was done was done when it should be."""
        for agent in self.agents:
            if agent.kind == "expires":
                assert agent.purged
                with pytest.raises(perdure.Deleted):
                    await self.store.read(agent.name)
                continue
            history = [commit async for commit in self.store.history(agent.name)]
            assert [event.data for commit in history for event in commit.events if event.type == "message"] == agent.messages
            view = await self.store.read(agent.name)
            assert (view.status, view.state) == (Status.archived, {"messages": len(agent.messages)}), agent.name
            await self.store.verify(agent.name)
            self._judge_archived(agent, history)
            agent.done = [event.type for commit in history for event in commit.events if event.type != "message"]
            if agent.kind == "wakes":
                _judge_woken(history, self.clock.time)

    def _judge_archived(self, agent: Agent, history: list[Commit]) -> None:
        """Not before its time after the message before it, and soon after it where no other message came."""
        times = [commit.time for commit in history if any(event.type == "message" for event in commit.events)]
        archived = [commit.time for commit in history if any(event.type == "archived" for event in commit.events)]
        for at in archived:
            used = max(time for time in times if time <= at)
            assert at >= used + ARCHIVE, (agent.name, used, at)
        for used, following in zip(times, [*times[1:], self.clock.time], strict=True):
            if following - used > ARCHIVE + LATE:
                assert any(used + ARCHIVE <= at <= used + ARCHIVE + LATE for at in archived), (agent.name, used, archived)


def _judge_woken(history: list[Commit], end: datetime) -> None:
    """Once for each alarm, soon after it was due."""
    configured = max(commit.time for commit in history if any(event.type == "configured" for event in commit.events))
    woken = [(commit.time, event.data) for commit in history for event in commit.events if event.type == "woken"]
    dues = [datetime.fromisoformat(data["due"]) for _, data in woken]
    assert abs(dues[0] - configured - WAKE) < ROUND  # Who configured it may have been killed after it, and the clock goes on.
    assert dues == [dues[0] + number * WAKE for number in range(len(dues))]
    for due, (at, data) in zip(dues, woken, strict=True):
        assert data["missed"] == 0 and due <= at <= due + LATE, (due, at, data)
    assert len(woken) >= (end - configured) // WAKE - 1


async def messages(store: perdure.Store, session: str, **options: Any) -> list[Any]:
    """What was said in a session."""
    return [event.data async for commit in store.history(session, **options) for event in commit.events if event.type == "message"]


async def all_at_once(store: perdure.Store, agents: list[Agent]) -> None:
    """The same messages in a store that archives nothing: what its bytes are compared with."""

    async def say(agent: Agent) -> None:
        for number, message in enumerate(agent.messages):
            await store.append(agent.name, Event("message", message, (op.add("/messages", 1),)), key=f"m{number}", actor="agent")

    await asyncio.gather(*[say(agent) for agent in agents])
