"""A node leaves the list that clients follow while another one joins, under load: told once for every kind of list."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

import perdure
from perdure import Event
from tests.support.backends.scenarios import until
from tests.support.service.nodes import Serving

TASKS = 6
"""Tasks that write, each to a session of its own."""


def port(url: str) -> int:
    """The port of a node."""
    return urlsplit(url).port or 0


def listed(store: perdure.Store) -> set[int]:
    """The ports of the nodes that a client knows."""
    driver = store._core.backend.driver  # type: ignore[attr-defined]
    return {port(member.url) for member in driver.calls._pool.members}


async def one_leaves_and_one_joins(
    store: perdure.Store,
    nodes: tuple[Serving, Serving],
    joining: AbstractContextManager[Serving],
    show: Callable[..., None],
    failures: Sequence[Callable[[], Awaitable[object]]],
) -> None:
    """No call fails, nothing is lost or doubled, and the work goes to the nodes that are listed.

    `show` puts nodes of these ports in the list. Each of `failures` leaves the list without an answer, and returns once it was asked.
    """
    leaving, staying = nodes
    over, written = asyncio.Event(), dict.fromkeys(range(TASKS), 0)

    async def write(task: int) -> None:
        while not over.is_set():
            await store.append(f"s{task}", Event("note", written[task]))
            written[task] += 1

    async def progress() -> None:
        least = {task: count + 5 for task, count in written.items()}
        await until(lambda: all(written[task] >= count for task, count in least.items()))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(write(task)) for task in written]
        await progress()
        with joining as joined:
            now = {port(staying.url), port(joined.url)}
            show(*now)
            await until(lambda: listed(store) == now)
            await progress()
            await asyncio.to_thread(leaving.stop)
            await progress()
            for fail in failures:
                await fail()
                assert listed(store) == now
            await progress()
            over.set()
            await asyncio.wait(tasks)
            for task, count in written.items():
                assert [commit.events[0].data async for commit in store.history(f"s{task}")] == list(range(count))
