"""Values in a conversation: text of any kind is kept, any number and size of items is one, and what is no JSON is refused by name."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from agents import SQLiteSession

import perdure
from perdure.adapters.common.cutting import PIECE_LENGTH
from perdure.adapters.openai_agents import PerdureSession
from perdure.adapters.openai_agents.importing import open_source
from tests.support.adapters import unusual_values


@pytest.mark.parametrize("half", unusual_values.HALVES)
async def test_half_an_emoji_is_kept(url: str, half: str) -> None:
    """In content, arguments, keys, types and ids: equal when another object reads it, by the end of the log or all of it."""
    items: list[Any] = [
        {"role": "user", "content": half},
        {"type": "function_call", "call_id": half, "name": half, "arguments": json.dumps({"a": half})},
        {"type": half, "output": [{half: half}, half]},
    ]
    async with perdure.open(url) as store:
        await PerdureSession(half, store).add_items(items)
        for session in (PerdureSession(half, store), PerdureSession(half, store)):
            assert await session.get_items() == items
        assert await PerdureSession(half, store).get_items(2) == items[1:]
        assert await PerdureSession(half, store).pop_item() == items[2]
        [info] = [info async for info in store.list(prefix="openai/")]
        assert (await store.verify(info.session)).version == 2


@pytest.mark.parametrize("half", unusual_values.HALVES)
async def test_half_an_emoji_is_brought_over(tmp_path: Path, half: str) -> None:
    """A file of the SDK's with such a text comes over whole, and once."""
    before = SQLiteSession("trip", str(tmp_path / "old.db"))
    items: list[Any] = [{"role": "user", "content": "hi"}, {"type": "function_call_output", "output": half, half: 1}]
    await before.add_items(items)
    known = await before.get_items()  # the SDK joins two halves that meet
    before.close()
    async with perdure.open("memory:") as store:
        source = open_source(str(tmp_path / "old.db"))
        assert [(await source.copy_session("trip", store)).written for _ in range(2)] == [2, 0]
        await source.close()
        assert await PerdureSession("trip", store).get_items() == known


@pytest.mark.parametrize("name", unusual_values.NAMES)
async def test_odd_values_are_kept_or_refused(name: str) -> None:
    """Whatever an item holds, it comes back equal or `Invalid` says why, and then nothing is stored."""
    async with perdure.open("memory:") as store:
        session = PerdureSession("s", store)
        item: Any = {"role": "user", "content": [unusual_values.values()[name]]}
        try:
            await session.add_items([{"role": "user", "content": "first"}, item])
        except perdure.Invalid:
            assert await session.get_items() == []
        else:
            assert (await PerdureSession("s", store).get_items())[1] == item


@pytest.mark.parametrize("items", [3, "text", {"role": "user"}, [3], [None], [["a"]], object()], ids=lambda items: f"{items!r:.15}")
async def test_what_is_no_list_of_items_is_refused(items: Any) -> None:
    """By name, and nothing is stored."""
    async with perdure.open("memory:") as store:
        session = PerdureSession("s", store)
        with pytest.raises(perdure.Invalid):
            await session.add_items(items)
        for limit in ("2", 2.5, object()):
            with pytest.raises(perdure.Invalid):
                await session.get_items(limit)  # type: ignore[arg-type]
        assert await session.get_items() == []


MANY = [{"role": "user", "content": str(number)} for number in range(10_001)]
LARGE = [{"role": "user", "content": f"{number}" + '"\\😀' * (2 << 20)} for number in range(2)]
"""Each of them alone is more than one commit holds, with what JSON escapes."""


@pytest.mark.long
@pytest.mark.parametrize("items", [MANY, LARGE], ids=["many", "large"])
async def test_any_number_and_size_is_added_whole(url: str, items: list[Any]) -> None:
    """More items or bytes than a commit may have are added by one call, in one place; popped, cleared and read as others."""
    async with perdure.open(url) as store:
        session = PerdureSession("s", store)
        first, last = {"role": "user", "content": "first"}, {"role": "user", "content": "last"}
        await session.add_items([first])
        await session.add_items(items)
        await session.add_items([last])
        expected = [first, *items, last]
        assert await session.get_items() == await PerdureSession("s", store).get_items() == expected
        assert await PerdureSession("s", store).get_items(3) == expected[-3:]
        assert [await PerdureSession("s", store).pop_item(), await session.pop_item()] == [last, items[-1]]
        assert await PerdureSession("s", store).get_items() == expected[:-2]
        await session.clear_session()
        assert await PerdureSession("s", store).get_items() == []
        assert (await store.verify("openai/s")).version > 5


async def test_nobody_sees_a_half_of_what_is_added(url: str) -> None:
    """A writer that dies between the parts of its items leaves nothing that a reader sees, and a second call adds them once."""
    async with perdure.open(url) as store:
        session = PerdureSession("s", store)
        append, calls = session._store.append, 0

        async def dying(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > 2:
                raise perdure.Unavailable("gone")
            return await append(*args, **options)

        session._store = _Wrapped(store, dying)  # type: ignore[assignment]
        with pytest.raises(perdure.Unavailable):
            await session.add_items(LARGE)
        assert calls == 3
        for reader in (PerdureSession("s", store), session):
            assert await reader.get_items() == await reader.get_items(5) == []
        await PerdureSession("s", store).add_items(LARGE)
        assert await session.get_items() == LARGE


class _Wrapped:
    """A store with another `append`."""

    def __init__(self, store: perdure.Store, append: Any) -> None:
        self._store, self.append = store, append

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_an_item_that_no_commit_holds_is_brought_over(tmp_path: Path) -> None:
    """Also after the import was stopped between its parts; rows of 64 that are too large together come over too."""
    items: list[Any] = [{"role": "user", "content": "small"}, LARGE[0], *[{"role": "user", "content": "x" * (1 << 20)}] * 20]
    before = SQLiteSession("trip", str(tmp_path / "old.db"))
    await before.add_items(items)
    before.close()
    async with perdure.open(f"sqlite:///{tmp_path}/store.db") as store:
        source = open_source(str(tmp_path / "old.db"))
        calls = 0

        async def dying(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 4:
                raise perdure.Unavailable("gone")
            return await store.append(*args, **options)

        with pytest.raises(perdure.Unavailable):
            await source.copy_session("trip", _Wrapped(store, dying))  # type: ignore[arg-type]
        done = [await source.copy_session("trip", store) for _ in range(2)]
        assert [(one.written, one.skipped) for one in done] == [(21, 1), (0, 22)]
        assert await PerdureSession("trip", store).get_items() == items
        await source.close()


async def test_a_row_that_is_no_item_is_named(tmp_path: Path) -> None:
    """A number that JSON lacks, nesting without end, bytes that are no text: `Invalid` names the row, and other sessions come over."""
    path = tmp_path / "old.db"
    before = SQLiteSession("good", str(path))
    await before.add_items([{"role": "user", "content": "hi"}])
    before.close()
    rows = {"nan": '{"a": NaN}', "deep": "[" * 100_000, "bytes": b"\xff\xfe", "list": "[1]", "null": b"null"}
    with sqlite3.connect(path) as connection:
        for id, data in rows.items():
            connection.execute("INSERT INTO agent_sessions (session_id) VALUES (?)", (id,))
            connection.execute("INSERT INTO agent_messages (session_id, message_data) VALUES (?, CAST(? AS TEXT))", (id, data))
    connection.close()
    async with perdure.open("memory:") as store:
        source = open_source(str(path))
        assert sorted(await source.ids()) == sorted([*rows, "good"])
        for id in rows:
            with pytest.raises(perdure.Invalid, match=r"Row \d|Could not decode"):
                await source.copy_session(id, store)
        assert (await source.copy_session("good", store)).written == 1
        await source.close()


@pytest.mark.parametrize("awaited", [False, True])
async def test_a_closed_session_says_so(awaited: bool) -> None:
    """`close` may be called or awaited, twice too; each method then raises `Closed`, and store and conversation stay as they are."""
    async with perdure.open("memory:") as store:
        session = PerdureSession("s", store)
        await session.add_items([{"role": "user", "content": "a"}])
        for _ in range(2):
            closing = session.close()
            if awaited:
                assert await closing is None  # type: ignore[func-returns-value]
        for call in (
            session.get_items,
            lambda: session.get_items(0),
            lambda: session.add_items([]),
            session.pop_item,
            session.clear_session,
        ):
            with pytest.raises(perdure.Closed, match="another session object"):
                await call()
        assert len(await PerdureSession("s", store).get_items()) == 1


def test_a_piece_fits_into_a_commit() -> None:
    """Whatever a piece holds, its JSON is below the store's limit: emojis, quotes and backslashes are the longest."""
    for letter in ("😀", '"', "\\", "\n", "ä"):
        assert len(json.dumps(letter * PIECE_LENGTH, ensure_ascii=False).encode()) < 15 << 20


async def test_a_second_life_holds_nothing_of_the_first(url: str) -> None:
    """An object that knew the conversation before it was deleted and begun again sees what was added since, and nothing else."""
    async with perdure.open(url) as store:
        session = PerdureSession("s", store)
        await session.add_items([{"role": "user", "content": "old"}])
        assert len(await session.get_items()) == 1
        await store.delete("openai/s")
        await store.append("openai/s", perdure.Event("message", {"role": "user", "content": "new"}), recreate=True)
        for reader in (session, PerdureSession("s", store)):
            assert await reader.get_items() == [{"role": "user", "content": "new"}]
