"""One store, many callers: tasks, threads and event loops at once, bounded memory, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import tracemalloc
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event, op
from perdure.backends.sqlite.schema import connect, initialise, known_id, parse_url
from perdure.clock import SystemClock


async def test_many_tasks_edit_one_session(url: str) -> None:
    """A hundred edits at once on one session all count: additions, list items, a key each."""

    async with perdure.open(url) as store:

        async def edit(number: int) -> None:
            async with store.edit("s", actor=f"task-{number}") as draft:
                draft.add("/count", 1)
                draft.state.setdefault("items", []).append(number)
                await asyncio.sleep(0)
                draft.state[f"k{number}"] = number
                draft.event("done", number)

        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(edit(number))
        view = await store.read("s")
        assert (view.version, view.state["count"]) == (100, 100)
        assert sorted(view.state["items"]) == list(range(100))
        assert all(view.state[f"k{number}"] == number for number in range(100))
        done = [event.data async for commit in store.history("s", types={"done"}) for event in commit.events]
        assert done == view.state["items"]
        await store.verify("s")


def test_loops_and_threads_at_once(url: str) -> None:
    """Event loops in several threads, and threads without one, write one session through one store: nothing is lost."""

    async def opened() -> perdure.Store:
        return await perdure.open(url)

    async def several(store: perdure.Store, who: str) -> None:
        async def one(number: int) -> None:
            await store.append("s", Event("turn", f"{who}-{number}", (op.add("/count", 1),)))
            async with store.edit("s") as draft:
                draft.state.setdefault("items", []).append(f"{who}-{number}")
            await store.append(f"own-{who}", Event("turn"))
            assert (await store.read(f"own-{who}")).version >= 1

        await asyncio.gather(*[one(number) for number in range(6)])

    def blocking(store: perdure.Store, who: str) -> None:
        facade = perdure.sync.Store(store)
        for number in range(6):
            facade.append("s", Event("turn", f"{who}-{number}", (op.add("/count", 1),)))
            with facade.edit("s") as draft:
                draft.state.setdefault("items", []).append(f"{who}-{number}")
            assert facade.read("s").state["count"] >= 1

    store = asyncio.run(opened())
    with ThreadPoolExecutor(6) as pool:
        works: list[Callable[[int], object]] = [
            lambda number: asyncio.run(several(store, f"loop{number}")),
            lambda number: blocking(store, f"thread{number}"),
        ]
        for future in [pool.submit(works[number % 2], number) for number in range(6)]:
            future.result(timeout=120)
    view = asyncio.run(store.read("s"))
    names = [f"{'thread' if number % 2 else 'loop'}{number}-{turn}" for number in range(6) for turn in range(6)]
    assert (view.version, view.state["count"]) == (72, 36)
    assert sorted(view.state["items"]) == sorted(names)
    asyncio.run(store.verify("s"))
    asyncio.run(store.close())


def test_a_store_is_closed_from_another_loop(url: str) -> None:
    """Opened in one loop, used in a second, closed in a third."""

    async def opened() -> perdure.Store:
        return await perdure.open(url)

    store = asyncio.run(opened())
    assert asyncio.run(store.append("s", Event("x"))).version == 1
    asyncio.run(store.close())
    with pytest.raises(perdure.Closed):
        asyncio.run(store.read("s"))


def test_nothing_is_left_behind(url: str) -> None:
    """After close no thread of the store runs, no task is pending, and no file stays open."""
    before = {thread.name for thread in threading.enumerate()}
    files = _open_files()

    async def scenario() -> None:
        async with perdure.open(url) as store:
            await asyncio.gather(*[store.append(f"s{number}", Event("x")) for number in range(20)])
            await asyncio.gather(*[store.read(f"s{number}") for number in range(20)])
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
    assert {thread.name for thread in threading.enumerate()} <= before
    assert _open_files() == files


def _open_files() -> set[str]:
    links = Path("/proc/self/fd")
    if not links.exists():
        return set()
    found = set()
    for link in links.iterdir():
        if link.is_symlink() and "store.db" in str(link.readlink()):
            found.add(str(link.readlink()))
    return found


def test_a_store_left_unclosed_warns(url: str) -> None:
    """Forgetting `close` is told by a `ResourceWarning` that names the URL; a closed store says nothing."""

    async def opened() -> perdure.Store:
        return await perdure.open(url)

    store = asyncio.run(opened())
    asyncio.run(store.append("s", Event("x")))
    backend = store._core.backend
    held = [store]
    del store
    with pytest.warns(ResourceWarning, match="never closed") as caught:
        held.clear()
    assert url in str(caught[0].message)
    asyncio.run(backend.close())
    with warnings.catch_warnings(record=True) as quiet:
        warnings.simplefilter("always")
        store = asyncio.run(opened())
        asyncio.run(store.close())
        del store
        gc.collect()
    assert [warning for warning in quiet if "never closed" in str(warning.message)] == []


async def test_cancelled_edits_leave_a_commit_or_nothing(url: str) -> None:
    """Tasks cancelled at chosen moments leave whole commits; those behind them in the queue go on."""

    async with perdure.open(url) as store:
        done: set[int] = set()

        async def edit(number: int) -> None:
            async with store.edit("s") as draft:
                draft.add("/count", 1)
                draft.state.setdefault("items", []).append(number)
            done.add(number)

        tasks = [asyncio.create_task(edit(number)) for number in range(40)]
        chance = random.Random(3)
        for task in chance.sample(tasks, 15):
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        state = (await store.read("s")).state
        assert state["count"] == len(state["items"]) == len(set(state["items"]))
        assert done <= set(state["items"])
        async with asyncio.timeout(30):
            await edit(100)
        await store.verify("s")


@pytest.mark.parametrize(("cache_bytes", "bounded"), [(0, True), (200_000, True), (64 << 20, False)])
def test_the_cache_is_bounded(cache_bytes: int, bounded: bool, file_url: str) -> None:
    """What reading and editing many sessions leaves in memory is bounded by `cache_bytes`, not by the sessions ever seen."""
    text = random.Random(1).randbytes(20_000).hex()

    async def fill() -> None:
        async with perdure.open(file_url) as store:
            await asyncio.gather(*[store.append(f"s{n}", Event("x", None, (op.set("/text", f"{n}{text}"),))) for n in range(150)])

    async def scenario() -> int:
        async with perdure.open(file_url, cache_bytes=cache_bytes) as store:
            tracemalloc.start()
            try:
                for number in range(150):
                    for _ in range(2):
                        assert len((await store.read(f"s{number}")).state["text"]) > 40_000
                    async with store.edit(f"s{number}") as draft:
                        draft.add("/n", 1)
                gc.collect()
                kept, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert (await store.read("s7")).state["n"] == 1
            return kept

    asyncio.run(fill())
    kept = asyncio.run(scenario())
    assert (kept < 2_500_000) is bounded, kept


def test_a_file_that_another_process_is_creating(tmp_path: Path) -> None:
    """Whoever looks at a new file while another makes the schema sees it without, or whole: not the one half before and the other after."""
    options = parse_url(f"sqlite:///{tmp_path}/store.db")
    mine, theirs = connect(options, writing=True), connect(options, writing=True)

    class Slow:
        """My connection: after each pragma the other process has its turn."""

        def __getattr__(self, name: str) -> Any:
            return getattr(mine, name)

        def pragma(self, name: str) -> Any:
            value = mine.pragma(name)
            initialise(theirs, options, SystemClock())
            return value

    assert known_id(Slow(), options.path) is None  # type: ignore[arg-type]
    assert known_id(mine, options.path) == known_id(theirs, options.path) is not None
    mine.close()
    theirs.close()
