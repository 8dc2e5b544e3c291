"""A small life of a store, step by step, with what each step acknowledged and where in the disk's journal it began and ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import apsw
import msgspec

import perdure
from perdure import Event, op
from perdure.clock import SeededClock

Receipts = Mapping[str, perdure.Receipt | None]
SESSIONS = ("a", "b", "c", "child")
NOISE = "".join(chr(33 + (number * number * 7 + number // 5) % 90) for number in range(1800))
"""Text that compression does not make vanish: a commit with it takes several pages."""


class Step(msgspec.Struct, frozen=True):
    """One thing that a caller does. `run` gives the receipts of the sessions that it wrote to. A `keyed` one, sent again, gets the same
    receipts; a `repeatable` one leads to the same state. One that is not `alone` makes several commits, one after the other."""

    name: str
    run: Callable[[perdure.Store], Awaitable[Receipts]]
    keyed: bool = True
    repeatable: bool = True
    alone: bool = True


async def nothing(store: perdure.Store) -> Receipts:
    return {}


def append(session: str, number: int, *, keyed: bool = True, ops: bool = True, fill: str = "", **options: Any) -> Step:
    async def run(store: perdure.Store) -> Receipts:
        operations = (op.add("/count", 1), op.append("/items", [f"{number}{fill}"])) if ops else ()
        key = f"step-{number}" if keyed else None
        return {session: await store.append(session, Event("step", {"n": number, "text": fill}, operations), key=key, **options)}

    return Step(f"{number}: append to {session}", run, keyed, keyed)


def edit(session: str, number: int, *, fill: str = "") -> Step:
    async def run(store: perdure.Store) -> Receipts:
        async with store.edit(session, key=f"step-{number}") as draft:
            draft.state.setdefault("edits", {})[f"e{number}"] = {"by": [number], "fill": fill}
            draft.event("edited by", {"n": number})
            draft.add("/count", 1)
        return {session: draft.receipt}

    return Step(f"{number}: edit of {session}", run)


def update(session: str, number: int) -> Step:
    def change(draft: perdure.Draft) -> None:
        draft.state["doubled"] = draft.state.get("count", 0) * 2
        draft.add("/count", 1)

    async def run(store: perdure.Store) -> Receipts:
        return {session: (await store.update(session, change, key=f"step-{number}"))[0]}

    return Step(f"{number}: update of {session}", run)


def together(number: int) -> Step:
    """Three sessions at once: one transaction or several, each session's commit whole in any case."""

    async def run(store: perdure.Store) -> Receipts:
        calls = [append(session, number).run(store) for session in ("a", "b", "c")]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return {session: receipt for receipts in answers for session, receipt in receipts.items()}

    return Step(f"{number}: append to three at once", run, alone=False)


def tag(session: str, number: int) -> Step:
    async def run(store: perdure.Store) -> Receipts:
        return {session: await store.configure(session, tags={"step": str(number), "kind": "crash"})}

    return Step(f"{number}: tags of {session}", run, keyed=False)


def fork(session: str, at: int, number: int) -> Step:
    async def run(store: perdure.Store) -> Receipts:
        try:
            await store.fork(session, at=at, id="child")
        except perdure.AlreadyExists:
            return {}
        return {}

    return Step(f"{number}: fork of {session}", run, keyed=False, alone=False)


def merge(number: int) -> Step:
    async def run(store: perdure.Store) -> Receipts:
        return {"a": await store.merge("child", into="a", key=f"step-{number}", on_conflict=lambda clash: clash.mine)}

    return Step(f"{number}: merge of child into a", run)


def delete(session: str, number: int) -> Step:
    async def run(store: perdure.Store) -> Receipts:
        try:
            return {session: await store.delete(session)}
        except perdure.Deleted:
            return {}

    return Step(f"{number}: deletion of {session}", run, keyed=False)


LIFE = (
    append("a", 1, keyed=False, ops=False),
    append("a", 2),
    edit("a", 3),
    append("b", 4, ops=False),
    edit("b", 5, fill=NOISE),
    update("c", 6),
    together(7),
    CHECKPOINT := Step("checkpoint", nothing, keyed=False),
    append("b", 8, fill=NOISE),
    tag("a", 9),
    fork("a", 3, 10),
    edit("child", 11),
    REOPENING := Step("reopening", nothing, keyed=False),
    append("child", 12),
    append("a", 13),
    delete("c", 14),
    merge(15),
    append("b", 16, fill=NOISE[:700]),
    append("c", 17, recreate=True),
    CHECKPOINT,
    update("a", 18),
    delete("b", 19),
)


def checkpoint(path: str, vfs: str, mode: int) -> None:
    """What another program of the machine may do at any time: fold the log into the file."""
    connection = apsw.Connection(path, vfs=vfs)
    try:
        connection.wal_checkpoint(mode=mode)
    finally:
        connection.close()


def opening(path: str, vfs: str = "", seed: int = 1, *, durability: str = "local") -> Any:
    """The store on a file, with settings so small that every mechanism is met. A higher seed comes later in time."""
    suffix = f"&vfs={vfs}" if vfs else ""
    clock = SeededClock(seed, start=1_700_000_000_000_000_000 + seed * 3_600_000_000_000)
    return perdure.open(f"sqlite:///{path}?readers=1{suffix}", clock=clock, durability=durability, snapshot_bytes_min=600)
