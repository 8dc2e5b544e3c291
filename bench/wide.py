"""Edits of wide containers: the processor time of one edit in 10,000 members, to one in 20 (guarantee 11: cost follows the change)."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

from _harness import folder, machine, small, table

import perdure
from perdure import op

NARROW, WIDE = 20, 200 if small() else 10_000
EDITS = 3 if small() else 40
ROUNDS = 1 if small() else 5

CHANGES: dict[str, Callable[[perdure.Draft, int], object]] = {
    "list: append": lambda draft, number: draft.state["list"].append({"id": number}),
    "list: set": lambda draft, number: draft.state["list"].__setitem__(7, {"id": number}),
    "list: insert": lambda draft, number: draft.state["list"].insert(7, {"id": number}),
    "list: delete": lambda draft, number: draft.state["list"].__delitem__(NARROW - number % 2),
    "list: a member's member": lambda draft, number: draft.state["list"][7].__setitem__("id", -number),
    "dict: insert": lambda draft, number: draft.state["dict"].__setitem__(f"new {number}", {"id": number}),
    "dict: set": lambda draft, number: draft.state["dict"].__setitem__("7", {"id": number}),
    "dict: delete": lambda draft, number: draft.state["dict"].__delitem__(str(number + 8)),
    "dict: a member's member": lambda draft, number: draft.state["dict"]["7"].__setitem__("id", -number),
    "list: append, by an operation": lambda draft, number: draft.do(op.append("/list", [{"id": number}])),
    "dict: insert, by an operation": lambda draft, number: draft.do(op.set(f"/dict/new {number}", {"id": number})),
    "dict: set, by an operation": lambda draft, number: draft.do(op.set("/dict/7", {"id": number})),
    "dict: delete, by an operation": lambda draft, number: draft.do(op.remove(f"/dict/{number + 8}")),
    "dict: a member's member, by an operation": lambda draft, number: draft.add("/dict/7/id", number + 1),
}


def state_of(width: int) -> dict[str, Any]:
    """A list and a dict of so many small objects; they have room for every deletion of a round."""
    size = width + EDITS
    return {"list": [{"id": number} for number in range(size)], "dict": {str(number): {"id": number} for number in range(size)}}


async def edits(store: perdure.Store, session: str, width: int, change: Callable[[perdure.Draft, int], object]) -> float:
    """Microseconds of processor time of an edit, in all threads; the first one, which makes the state, does not count."""
    async with store.edit(session) as draft:
        draft.state = state_of(width)
    start = time.process_time()
    for number in range(EDITS):
        async with store.edit(session) as draft:
            change(draft, number)
    return (time.process_time() - start) / EDITS * 1e6


async def measure() -> dict[str, tuple[float, float]]:
    """The median of each change at both widths, measured in turn."""
    figures: dict[tuple[str, int], list[float]] = {(name, width): [] for name in CHANGES for width in (NARROW, WIDE)}
    for number in range(ROUNDS):
        with folder() as place:
            async with perdure.open(f"sqlite:///{place}/wide.db") as store:
                for (name, width), found in figures.items():
                    found.append(await edits(store, f"{name} {width} {number}", width, CHANGES[name]))
    return {name: (statistics.median(figures[name, NARROW]), statistics.median(figures[name, WIDE])) for name in CHANGES}


def main() -> None:
    """Print the table."""
    machine()
    rows = [(name, f"{narrow:,.0f}", f"{wide:,.0f}", f"{wide / narrow:.2f}") for name, (narrow, wide) in asyncio.run(measure()).items()]
    table("Processor time of an edit, SQLite", [("one change", f"µs at {NARROW} members", f"µs at {WIDE:,}", "ratio"), *rows])


if __name__ == "__main__":
    main()
