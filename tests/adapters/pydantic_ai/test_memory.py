"""The contract of the harness's memory stores, in our words: on Perdure, and on the harness's own store, so that neither is misread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai_harness.memory import (
    MemoryConflictError,
    MemoryOperation,
    MemoryOperationConflictError,
    MemoryStore,
    MetadataMemoryStore,
    SearchableMemoryStore,
    SqliteMemoryStore,
)

import perdure
from perdure.adapters.pydantic_ai import PerdureMemoryStore

DIRECTORY = "pydantic-ai/memory/team/main"
ALL = {"limit": 10, "max_files": 10, "max_chars": 100, "max_file_chars": 1000}


@pytest.fixture(params=["perdure memory", "perdure sqlite", "perdure sync", "harness"])
def kind(request: pytest.FixtureRequest) -> str:
    """Whose store it is."""
    return str(request.param)


@asynccontextmanager
async def opened(kind: str, place: Path) -> AsyncIterator[Any]:
    """A fresh memory store of a kind."""
    if kind == "harness":
        yield SqliteMemoryStore(database=place / "harness.db")
    elif kind == "perdure sync":
        with perdure.sync.open(f"sqlite:///{place}/store.db") as store:
            yield PerdureMemoryStore(store)
    else:
        async with perdure.open("memory:" if kind == "perdure memory" else f"sqlite:///{place}/store.db") as store:
            yield PerdureMemoryStore(store)


async def content(memory: Any, path: str) -> str | None:
    found = await memory.read(path, max_chars=1000)
    return None if found is None else found.content


async def test_it_is_a_memory_store_that_searches_and_records_metadata(kind: str, tmp_path: Path) -> None:
    """The store has all methods of the harness's three protocols."""
    async with opened(kind, tmp_path) as memory:
        assert isinstance(memory, MemoryStore)
        assert isinstance(memory, SearchableMemoryStore)
        assert isinstance(memory, MetadataMemoryStore)


async def test_a_change_names_the_version_it_rests_on(kind: str, tmp_path: Path) -> None:
    """Create, replace and delete need the note's version, or that there is none; else they are refused and change nothing."""
    async with opened(kind, tmp_path) as memory:
        made = await memory.write("team/main/a.md", "one", expected_version=None)
        assert (made.replayed, made.existed) == (False, False)
        found = await memory.read("team/main/a.md", max_chars=1000)
        assert (found.content, found.version, found.operation_id, found.truncated) == ("one", made.version, None, False)
        again = await memory.write("team/main/a.md", "two", expected_version=made.version)
        assert again.existed and again.version != made.version
        for stale in (made.version, None, "7", ""):
            with pytest.raises(MemoryConflictError):
                await memory.write("team/main/a.md", "stale", expected_version=stale)
            with pytest.raises(MemoryConflictError):
                await memory.delete("team/main/a.md", expected_version=stale)
        assert await content(memory, "team/main/a.md") == "two"
        gone = await memory.delete("team/main/a.md", expected_version=again.version)
        assert (gone.version, gone.existed) == (None, True)
        assert await memory.read("team/main/a.md", max_chars=1000) is None
        assert not (await memory.delete("team/main/a.md", expected_version=None)).existed


async def test_a_version_never_comes_again(kind: str, tmp_path: Path) -> None:
    """A note that is deleted and written anew has another version: who knew the old one is refused."""
    async with opened(kind, tmp_path) as memory:
        first = await memory.write("a.md", "same", expected_version=None)
        await memory.delete("a.md", expected_version=first.version)
        second = await memory.write("a.md", "same", expected_version=None)
        assert second.version != first.version
        with pytest.raises(MemoryConflictError):
            await memory.write("a.md", "stale", expected_version=first.version)
        with pytest.raises(MemoryConflictError):
            await memory.delete("a.md", expected_version=first.version)


@pytest.mark.parametrize("text", ["", "\n", "a\n", "\na\r\nb\u2028c\x0b", "same\nsame\nsame", "Ein Bär 🐻\n" * 50])
async def test_text_comes_back_exactly(kind: str, tmp_path: Path, text: str) -> None:
    """Line ends of every kind, empty notes and repeated lines survive, as the first text and as a later one."""
    async with opened(kind, tmp_path) as memory:
        made = await memory.write("a.md", text, expected_version=None)
        assert await content(memory, "a.md") == text
        made = await memory.write("a.md", f"top\n{text}", expected_version=made.version)
        assert await content(memory, "a.md") == f"top\n{text}"
        await memory.write("a.md", text, expected_version=made.version)
        assert await content(memory, "a.md") == text


async def test_reads_and_lists_are_bounded(kind: str, tmp_path: Path) -> None:
    """A read gives the first characters and says that there are more; a list gives the first paths in their order, in any depth."""
    async with opened(kind, tmp_path) as memory:
        for path in ("b.md", "a.md", "a/b/c.md", "a/b.md", "ab/x.md", "a-b/y.md"):
            await memory.write(path, "0123456789", expected_version=None)
        cut = await memory.read("a.md", max_chars=4)
        assert (cut.content, cut.truncated) == ("0123", True)
        assert not (await memory.read("a.md", max_chars=10)).truncated
        assert await memory.list_paths(limit=10) == ["a-b/y.md", "a.md", "a/b.md", "a/b/c.md", "ab/x.md", "b.md"]
        assert await memory.list_paths(limit=2) == ["a-b/y.md", "a.md"]
        assert await memory.list_paths("a/", limit=9) == ["a/b.md", "a/b/c.md"]
        assert await memory.list_paths("a/b", limit=9) == ["a/b.md", "a/b/c.md"]
        assert await memory.list_paths("a", limit=9) == ["a-b/y.md", "a.md", "a/b.md", "a/b/c.md", "ab/x.md"]
        assert await memory.list_paths("zz", limit=9) == []
        for bad in (0, -1):
            with pytest.raises(ValueError, match="max_chars"):
                await memory.read("a.md", max_chars=bad)
            with pytest.raises(ValueError, match="limit"):
                await memory.list_paths(limit=bad)


@pytest.mark.parametrize("path", ["../a.md", "/a.md", "a//b.md", "a/../../b.md", "a b.md", "", ".", "a/./b.md", "ä.md", "x" * 201])
async def test_unsafe_paths_are_refused(kind: str, tmp_path: Path, path: str) -> None:
    """What could name another file is a ValueError, reading, writing and deleting."""
    async with opened(kind, tmp_path) as memory:
        for call in (
            memory.read(path, max_chars=9),
            memory.write(path, "x", expected_version=None),
            memory.delete(path, expected_version=None),
        ):
            with pytest.raises(ValueError, match="invalid memory path"):
                await call


async def test_an_operation_is_carried_out_once(kind: str, tmp_path: Path) -> None:
    """Its second call gets the first one's result, even when the note has moved on; other arguments under its id are refused."""
    async with opened(kind, tmp_path) as memory:
        write = MemoryOperation(id="run-1:call-1", fingerprint="write a.md one")
        assert await memory.get_operation(write) is None
        first = await memory.write("team/a.md", "one", expected_version=None, operation=write)
        assert (await memory.read("team/a.md", max_chars=9)).operation_id == write.id
        await memory.write("team/a.md", "two", expected_version=first.version)
        replay = await memory.write("team/a.md", "one", expected_version=None, operation=write)
        assert (replay.version, replay.replayed, replay.existed) == (first.version, True, False)
        assert await memory.get_operation(write) == replay
        assert await content(memory, "team/a.md") == "two"
        for path in ("team/a.md", "elsewhere/b.md"):
            with pytest.raises(MemoryOperationConflictError):
                await memory.write(path, "x", expected_version=None, operation=MemoryOperation(write.id, "other"))
        with pytest.raises(MemoryOperationConflictError):
            await memory.get_operation(MemoryOperation(write.id, "other"))
        assert await memory.read("elsewhere/b.md", max_chars=9) is None
        delete = MemoryOperation(id="run-1:call-2", fingerprint="delete missing.md")
        assert not (await memory.delete("missing.md", expected_version=None, operation=delete)).replayed
        again = await memory.delete("missing.md", expected_version=None, operation=delete)
        assert (again.version, again.replayed, again.existed) == (None, True, False)


async def test_a_refused_operation_may_be_tried_again(kind: str, tmp_path: Path) -> None:
    """An operation that lost its race did nothing: with the new version it is carried out, once."""
    async with opened(kind, tmp_path) as memory:
        made = await memory.write("a.md", "one", expected_version=None)
        write = MemoryOperation(id="o", fingerprint="f")
        with pytest.raises(MemoryConflictError):
            await memory.write("a.md", "two", expected_version=None, operation=write)
        assert await memory.get_operation(write) is None
        assert not (await memory.write("a.md", "two", expected_version=made.version, operation=write)).replayed
        assert (await memory.get_operation(write)).existed


async def test_metadata_is_of_the_write_that_made_the_version(kind: str, tmp_path: Path) -> None:
    """Metadata comes back with the note, goes with the next write that has none, and is refused where the harness refuses it."""
    async with opened(kind, tmp_path) as memory:
        made = await memory.write_with_metadata("a.md", "one", expected_version=None, metadata={"by": "ann"})
        assert (await memory.read("a.md", max_chars=9)).metadata == {"by": "ann"}
        made = await memory.write("a.md", "two", expected_version=made.version)
        assert (await memory.read("a.md", max_chars=9)).metadata is None
        await memory.write_with_metadata("a.md", "three", expected_version=made.version, metadata={})
        assert (await memory.read("a.md", max_chars=9)).metadata is None
        for bad, error in (({"n": 1}, TypeError), ({"n": "\0"}, ValueError), ({"n": "x" * 5000}, ValueError)):
            with pytest.raises(error):
                await memory.write_with_metadata("b.md", "x", expected_version=None, metadata=bad)
        assert await memory.read("b.md", max_chars=9) is None


async def test_search_finds_in_its_scope_only_and_says_when_it_was_cut(kind: str, tmp_path: Path) -> None:
    """Notes directly below the prefix are ranked by how often a word occurs; other scopes and nested ones are not looked at."""
    async with opened(kind, tmp_path) as memory:
        notes = {"a/one.md": "river river", "a/two.md": "river", "a/three.md": "hill", "b/one.md": "river", "a/deep/one.md": "river"}
        for path, text in notes.items():
            await memory.write(path, text, expected_version=None)
        found = await memory.search("a/", "River", **ALL)
        assert [match.path for match in found.matches] == ["a/one.md", "a/two.md"]
        assert (found.scanned, found.truncated) == (3, False)
        few = await memory.search("a/", "river", **ALL | {"max_files": 1})
        assert (few.scanned, few.truncated) == (1, True)
        cut = await memory.search("a/", "river", **ALL | {"max_file_chars": 3})
        assert (cut.matches, cut.truncated) == ([], True)
        for nothing in ({"limit": 0}, {"max_files": 0}, {"max_chars": 0}, {"max_file_chars": 0}):
            empty = await memory.search("a/", "river", **ALL | nothing)
            assert (empty.matches, empty.scanned, empty.truncated) == ([], 0, False)
        assert (await memory.search("a/", " ", **ALL)).scanned == 0
        assert (await memory.search("nobody/", "river", **ALL)).scanned == 0


async def test_of_two_writers_of_one_note_one_is_refused(url: str) -> None:
    """Writers that hold the same version: one is stored, the others hear of a conflict; writers of different notes all succeed."""
    async with perdure.open(url) as store:
        memories = [PerdureMemoryStore(store) for _ in range(6)]
        made = await memories[0].write("team/main/a.md", "one", expected_version=None)
        same = [memory.write("team/main/a.md", f"{n}", expected_version=made.version) for n, memory in enumerate(memories)]
        results = await asyncio.gather(*same, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["MemoryConflictError"] * 5 + ["MemoryMutation"]
        new = [memory.write("team/main/b.md", f"{n}", expected_version=None) for n, memory in enumerate(memories)]
        results = await asyncio.gather(*new, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["MemoryConflictError"] * 5 + ["MemoryMutation"]
        (held,) = [result.version for result in results if not isinstance(result, Exception)]
        gone = [memory.delete("team/main/b.md", expected_version=held) for memory in memories]
        results = await asyncio.gather(*gone, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["MemoryConflictError"] * 5 + ["MemoryMutation"]
        others = [memory.write(f"team/main/{n}.md", "x", expected_version=None) for n, memory in enumerate(memories)]
        assert {(await other).existed for other in others} == {False}


async def test_an_operation_that_two_processes_carry_out_is_carried_out_once(file_url: str) -> None:
    """Stores of their own on one file, as in two processes: one writes, the other is told what was written."""
    async with perdure.open(file_url) as one, perdure.open(file_url) as two:
        operation = MemoryOperation(id="o", fingerprint="f")
        calls = [PerdureMemoryStore(store).write("a.md", "x", expected_version=None, operation=operation) for store in (one, two)]
        results = await asyncio.gather(*calls)
        assert sorted(result.replayed for result in results) == [False, True]
        assert len({result.version for result in results}) == 1


async def test_an_operation_that_is_carried_out_while_another_call_of_it_waits(file_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call finds its operation new, then the note changed by that very operation: it is told what was written, not of a conflict."""
    async with perdure.open(file_url) as one, perdure.open(file_url) as two:
        operation = MemoryOperation(id="o", fingerprint="f")
        here, there = PerdureMemoryStore(one), PerdureMemoryStore(two)
        look, looks = here._replay, 0

        async def first_look(*asked: Any) -> Any:
            nonlocal looks
            looks += 1
            found = await look(*asked)
            if looks == 1:
                await there.write("a.md", "x", expected_version=None, operation=operation)
            return found

        monkeypatch.setattr(here, "_replay", first_look)
        told = await here.write("a.md", "x", expected_version=None, operation=operation)
        assert told.replayed and not told.existed
        with pytest.raises(MemoryConflictError):
            await here.write("a.md", "y", expected_version=None, operation=MemoryOperation(id="other", fingerprint="g"))


async def test_a_change_of_one_line_writes_one_line(url: str) -> None:
    """What a commit of a long note holds is the line that changed, and the history reads as a text's differences."""
    async with perdure.open(url) as store:
        memory = PerdureMemoryStore(store)
        lines = [f"fact {number}" for number in range(1000)]
        made = await memory.write("team/main/a.md", "\n".join(lines), expected_version=None)
        await memory.write("team/main/a.md", "\n".join([*lines[:500], "new", *lines[501:], "last"]), expected_version=made.version)
        commits = [commit async for commit in store.history(DIRECTORY)]
        (event,) = commits[-1].events
        touched = {(op.kind, op.path): op.value for op in event.ops if "lines" in op.path}
        assert touched == {("set", "/files/a.md/lines/500"): "new", ("append", "/files/a.md/lines"): ["last"]}
        assert event.type == "memory_written" and event.data["path"] == "team/main/a.md"


async def test_sessions_that_are_not_ours_are_refused(url: str) -> None:
    """A session of that name that something else made is named in the error; a directory too long for a session id too."""
    async with perdure.open(url) as store:
        memory = PerdureMemoryStore(store)
        await store.append(DIRECTORY, perdure.Event("x", None, (perdure.op.set("/files", 3),)))
        with pytest.raises(perdure.Invalid, match="team/main"):
            await memory.read("team/main/a.md", max_chars=9)
        with pytest.raises(perdure.Invalid, match="at most 236 characters"):
            await memory.write(f"{'a' * 150}/{'b' * 150}/c.md", "x", expected_version=None)
