"""What each of the team does when it reads an event. Every step has a key, so a worker that starts again repeats nothing.

planner     asks the searchers, with a fork for each idea; opens the ballot when the blackboard is full
ann, bob    search fares and rooms; write to the forks and to the blackboard
reviewer    closes the ballot when all have voted
all         vote but for the planner; one of them acts, under a lease
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

import perdure
from perdure import Event, op

from .desk import Desk

SESSION = "trip-42"
IDEAS = ["plane", "train"]
SEARCHES = {
    "ann": ("fare", {"plane": 129, "train": 89}),
    "bob": ("room", {"plane": 70, "train": 95}),
}
"""What a searcher looks for, and what it finds. A model and its tools would stand here."""
VOTERS = ["ann", "bob", "reviewer"]
TEAM = ["planner", *VOTERS]
LAST = "booked"
"""The event after which there is nothing left to do."""


class Worker(NamedTuple):
    """One of the team: its name, the store, and the world outside of it."""

    name: str
    store: perdure.Store
    desk: Desk
    thinking: float
    """Seconds that a thought takes."""

    async def think(self) -> None:
        """Stands in for a call of a model."""
        await asyncio.sleep(self.thinking)

    async def say(self, key: str, event: Event, **options: Any) -> perdure.Receipt:
        """Write to the session that all share; once, however often it is called."""
        return await self.store.append(SESSION, event, key=key, actor=self.name, **options)


async def plan(worker: Worker, state: dict[str, Any]) -> None:
    """The planner makes a fork for each idea, and hands over to the searchers."""
    await worker.think()
    planned = await worker.say("plan", Event("planned", {"ideas": IDEAS}, (op.set("/board", []), op.set("/looked_at", 0))))
    for idea in IDEAS:
        with suppress(perdure.AlreadyExists):  # An earlier run of this worker made it.
            await worker.store.fork(SESSION, at=planned.version, id=f"{SESSION}-{idea}", actor=worker.name)
        began = Event("supposed", {"by": idea}, (op.set("/trip", {"by": idea, "total": 0}),))
        await worker.store.append(f"{SESSION}-{idea}", began, key="suppose", actor=worker.name)
    await worker.say("hand over", Event("handed over", {"to": list(SEARCHES)}))


async def search(worker: Worker, state: dict[str, Any]) -> None:
    """Both searchers write to the same forks and to one blackboard, at the same time. Their operations are merged."""
    what, found = SEARCHES[worker.name]
    for idea in IDEAS:
        await worker.think()
        price = found[idea]
        ops = (op.set(f"/trip/{what}", price), op.add("/trip/total", price))
        await worker.store.append(f"{SESSION}-{idea}", Event("worked out", {"what": what}, ops), key=what, actor=worker.name)
        note = f"{what} by {idea}: {price}"
        await worker.say(f"{what} {idea}", Event("found", {"note": note}, (op.append("/board", [note]), op.add("/looked_at", 1))))


async def open_ballot(worker: Worker, state: dict[str, Any]) -> None:
    """The planner opens the ballot, once the blackboard has all that was asked for."""
    if len(state["board"]) == len(IDEAS) * len(SEARCHES):
        await worker.say("ballot", Event("ballot opened", {"voters": VOTERS}, (op.set("/ballot", "open"), op.set("/votes", {}))))


async def vote(worker: Worker, state: dict[str, Any]) -> None:
    """A vote counts only while the ballot is open: the `test` refuses the whole commit otherwise."""
    await worker.think()
    cares_for = SEARCHES[worker.name][0] if worker.name in SEARCHES else "total"
    trips = {idea: (await worker.store.read(f"{SESSION}-{idea}")).state["trip"] for idea in IDEAS}
    choice = min(IDEAS, key=lambda idea: trips[idea][cares_for])
    ops = (op.test("/ballot", "open"), op.set(f"/votes/{worker.name}", choice))
    await worker.say(f"vote of {worker.name}", Event("voted", {"for": choice}, ops))


async def close_ballot(worker: Worker, state: dict[str, Any]) -> None:
    """The reviewer counts. A vote that came in since would fail the `test`, and the reviewer would count again."""
    votes = state["votes"]
    if len(votes) == len(VOTERS):
        winner = max(IDEAS, key=list(votes.values()).count)
        ops = (op.test("/votes", votes), op.set("/ballot", "closed"), op.set("/winner", winner))
        await worker.say("close", Event("decided", {"for": winner}, ops))


async def act(worker: Worker, state: dict[str, Any]) -> None:
    """All are ready to act, and one does: it holds the session, merges the fork that won, and books."""
    store = worker.store
    ttl = 3 if store.capabilities.notification else 10
    with suppress(perdure.Fenced):  # This process stood still for so long that another one acts now.
        async with store.lease(SESSION, owner=worker.name, ttl=ttl, wait=600) as lease:
            if await store.find(SESSION, "booked"):
                return
            winner = (await store.read(SESSION)).state["winner"]
            await store.merge(f"{SESSION}-{winner}", into=SESSION, key="merge", actor=worker.name, lease=lease)
            trip = (await store.read(SESSION)).state["trip"]
            await worker.say("booking", Event("booking", {"total": trip["total"]}), lease=lease)
            await worker.think()
            await lease.confirm()
            number = worker.desk.book(SESSION, trip["total"], lease.token)
            await worker.say("booked", Event(LAST, {"number": number}, (op.set("/booking", number),)), lease=lease)


Step = Callable[[Worker, dict[str, Any]], Awaitable[None]]


def steps_of(name: str) -> dict[str, Step]:
    """What this one of the team does, by the event that it waits for."""
    steps: dict[str, Step] = {"decided": act}
    if name == "planner":
        steps |= {"asked": plan, "found": open_ballot}
    if name in SEARCHES:
        steps["handed over"] = search
    if name in VOTERS:
        steps["ballot opened"] = vote
    if name == "reviewer":
        steps["voted"] = close_ballot
    return steps


async def work(worker: Worker) -> None:
    """Read the session from its first commit and do what each event asks for, until all is done."""
    steps = steps_of(worker.name)
    async for commit in worker.store.watch(SESSION):
        for event in commit.events:
            if event.type == LAST:
                return
            if event.type in steps:
                await steps[event.type](worker, (await worker.store.read(SESSION)).state)
