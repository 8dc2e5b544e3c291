"""The session store beyond the SDK's own tests: its kit, commits, the log, bytes, deletion, forks, and the SDK's helpers on it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from claude_agent_sdk import (
    ClaudeAgentOptions,
    SessionStore,
    fold_session_summary,
    fork_session_via_store,
    get_session_messages_from_store,
    import_session_to_store,
    list_sessions_from_store,
    project_key_for_directory,
)
from claude_agent_sdk._internal.session_resume import materialize_resume_session
from claude_agent_sdk._internal.session_store_validation import _store_implements
from claude_agent_sdk._internal.transcript_mirror_batcher import TranscriptMirrorBatcher
from claude_agent_sdk.testing import run_session_store_conformance

import perdure
import perdure.sync
from perdure import Event
from perdure.adapters.claude_agent import PerdureSessionStore
from perdure.clock import SeededClock
from tests.support.adapters.claude_transcripts import ID, KEY, NAME, PROJECT, SUB, play, said, title, turn
from tests.support.adapters.commit_lines import lines_of

OPTIONAL = ("list_sessions", "list_session_summaries", "delete", "list_subkeys")


@pytest.mark.parametrize("blocking", [False, True], ids=["store", "sync store"])
def test_conformance(url: str, tmp_path: Path, *, blocking: bool) -> None:
    """All fourteen contracts of the SDK's kit hold on either kind of store; no method is missing, so none is passed over."""
    stores: list[Any] = []

    async def scenario() -> None:
        async def make() -> SessionStore:
            place = url if url == "memory:" else f"sqlite:///{tmp_path}/{len(stores)}.db"
            stores.append(perdure.sync.open(place) if blocking else await perdure.open(place))
            return PerdureSessionStore(stores[-1])

        ours = await make()
        assert all(_store_implements(ours, name) for name in OPTIONAL)
        await run_session_store_conformance(make)
        for store in stores:
            store.close() if blocking else await store.close()

    asyncio.run(scenario())
    assert len(stores) == 1 + 1 + 14  # ours, the one that the kit looks at first, and one for each contract


def test_a_batch_is_one_commit_that_people_can_read(url: str) -> None:
    """Each append is one commit, whose events are the lines; the log says who said and called what."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        await sessions.append(KEY, turn(1))
        await sessions.append(KEY, [*turn(2), title("Two nights in Rome")])
        await sessions.append(KEY, [])
        commits = [commit async for commit in store.history(NAME)]
        assert [[event.type for event in commit.events] for commit in commits] == [
            ["message", "tool_call", "tool_result", "message"],
            ["message", "tool_call", "tool_result", "message", "entry"],
        ]
        assert [event.data for commit in commits for event in commit.events] == [*turn(1), *turn(2), title("Two nights in Rome")]
        assert lines_of(commits[0]) == [
            "user: question 1",
            'assistant: find_rooms(city="Rome")',
            "tool: rooms 7 and 9",
            "assistant: answer 1",
        ]
        state = (await store.read(NAME)).state
        assert (state["project_key"], state["session_id"]) == (PROJECT, ID)
        assert (state["summary"]["custom_title"], state["summary"]["first_prompt"]) == ("Two nights in Rome", "question 1")

    play(scenario, url)


def test_a_turn_costs_what_was_said() -> None:
    """In a transcript of 300 turns, and of its subagent, no commit holds more than its lines and what they change in the summary."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        await sessions.append(KEY, [said("first", "long question " * 30), title("long title " * 30)])
        for number in range(300):
            await sessions.append(KEY, [*turn(number), {"type": "last-prompt", "lastPrompt": f"question {number}"}])
            await sessions.append(SUB, turn(number))
        for name, count in ((NAME, 301), (f"{NAME}/subagents/agent-7", 300)):
            commits = [commit async for commit in store.history(name)]
            assert len(commits) == count
            for commit in commits[1:]:
                assert len(msgspec.json.encode(commit.events)) < len(json.dumps([event.data for event in commit.events])) + 200

    play(scenario)


def test_the_summary_is_the_fold_of_all_lines(url: str) -> None:
    """What the listing says is what the SDK's fold makes of the whole transcript, whichever objects appended it."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        lines = [*turn(1), title("one"), {"type": "tag", "tag": "trip"}, *turn(2), title("two"), {"type": "tag", "tag": ""}]
        for number, line in enumerate(lines):
            await (sessions if number % 2 else PerdureSessionStore(store)).append(KEY, [line])
        await sessions.append(SUB, [title("a subagent's")])
        (summary,) = await sessions.list_session_summaries(PROJECT)
        assert summary["data"] == fold_session_summary(None, KEY, lines)["data"]
        (listed,) = await sessions.list_sessions(PROJECT)
        assert listed == {"session_id": ID, "mtime": summary["mtime"]}

    play(scenario, url)


def test_a_deleted_session_stays_deleted(url: str) -> None:
    """After deletion nothing is read or listed; late lines, known ones and a new subagent's are refused, and leave nothing behind."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        other = KEY | {"session_id": "other"}
        for key in (KEY, SUB, other):
            await sessions.append(key, turn(1))
        await sessions.delete(KEY)
        await sessions.delete(KEY)
        late = SUB | {"subpath": "subagents/agent-8"}
        for writer in (sessions, PerdureSessionStore(store)):
            for key, lines in ((KEY, turn(2)), (KEY, turn(1)), (SUB, turn(2)), (late, turn(1)), (late, turn(1))):
                with pytest.raises(perdure.Deleted):
                    await writer.append(key, lines)
        for key in (KEY, SUB, late):
            assert await sessions.load(key) is None
        assert await sessions.list_subkeys(KEY) == []
        assert [found["session_id"] for found in await sessions.list_sessions(PROJECT)] == ["other"]
        assert [found["session_id"] for found in await sessions.list_session_summaries(PROJECT)] == ["other"]
        assert await sessions.load(other) == turn(1)
        assert (await store.verify(NAME)).commits == 2

    play(scenario, url)


def test_a_session_deleted_by_another_process_is_known_to_be(file_url: str) -> None:
    """A process that has the whole transcript in mind does not take sent lines for stored ones when another has deleted it."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        await sessions.append(KEY, turn(1))
        await sessions.append(KEY, turn(2))
        async with perdure.open(file_url) as other:
            await PerdureSessionStore(other).delete(KEY)
        for lines in (turn(1), turn(2), [*turn(1), *turn(2)], turn(3)):
            with pytest.raises(perdure.Deleted):
                await sessions.append(KEY, lines)

    play(scenario, file_url)


def test_a_deletion_that_was_cut_short_is_completed(url: str) -> None:
    """Where only the main transcript is closed, deleting once more closes those beside it."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        await sessions.append(KEY, turn(1))
        await sessions.append(SUB, turn(1))
        await store.delete(NAME)
        await sessions.delete(KEY)
        assert await sessions.load(SUB) is None
        assert [info async for info in store.list()] == []

    play(scenario, url)


def test_the_sdk_resumes_what_it_mirrored(file_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the SDK's mirror flushed, another process's resume writes to disk for the CLI: each line, in order, and subagents' too."""
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "config"))
    work = tmp_path / "work"
    work.mkdir()
    key = project_key_for_directory(str(work))
    files = {
        f"{ID}.jsonl": [*turn(1), title("Rome"), *turn(2)],
        f"{ID}/subagents/agent-7.jsonl": turn(3),
    }

    async def mirror(_store: perdure.Store, sessions: PerdureSessionStore) -> None:
        errors: list[str] = []

        async def on_error(_key: Any, message: str) -> None:
            errors.append(message)

        mirror = TranscriptMirrorBatcher(store=sessions, projects_dir="/projects", on_error=on_error, max_pending_entries=0)
        for name, lines in files.items():
            for line in lines:
                mirror.enqueue(f"/projects/{key}/{name}", [line])
        await mirror.close()
        assert errors == []

    async def resume(_store: perdure.Store, sessions: PerdureSessionStore) -> None:
        for options in ({"resume": ID}, {"continue_conversation": True}):
            resumed = await materialize_resume_session(ClaudeAgentOptions(cwd=str(work), session_store=sessions, **options))  # type: ignore[arg-type]
            assert resumed is not None and resumed.resume_session_id == ID
            place = resumed.config_dir / "projects" / key
            for name, lines in files.items():
                assert [json.loads(line) for line in (place / name).read_text().splitlines()] == lines
            await resumed.cleanup()

    play(mirror, file_url)
    play(resume, file_url)


def test_a_transcript_on_disk_is_imported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's import of a local transcript, run again after it grew, and again, adds what came in and nothing twice."""
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path))
    file = tmp_path / "projects" / PROJECT / f"{ID}.jsonl"
    file.parent.mkdir(parents=True)
    lines = [*turn(1), title("Rome"), *turn(2)]

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        await import_session_to_store(ID, sessions, batch_size=5)
        file.write_text("".join(json.dumps(line) + "\n" for line in [*lines, *turn(3)]))
        for again in (sessions, PerdureSessionStore(store), sessions):
            await import_session_to_store(ID, again, batch_size=5)
        assert await sessions.load(KEY) == [*lines, *turn(3)]

    play(scenario)


def test_forks_and_the_past(url: str, tmp_path: Path) -> None:
    """A fork by Perdure and one by the SDK go on from a session without changing it; the past is read; the chains verify."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        key = KEY | {"project_key": project_key_for_directory(str(tmp_path))}
        name = f"claude/{key['project_key']}/{ID}"
        other = "1f0e5a0c-6a54-4c9b-8d0e-5d1c1f5a7b42"
        chained = [said("00000000-0000-0000-0000-000000000001", "hello", parentUuid=None)]
        await sessions.append(key, chained)
        await sessions.append(key, [*turn(2), title("two")])
        await store.fork(name, at=1, id=name.replace(ID, other))
        await sessions.append(key | {"session_id": other}, turn(3))
        assert await sessions.load(key | {"session_id": other}) == [*chained, *turn(3)]
        assert await sessions.load(key) == [*chained, *turn(2), title("two")]
        assert "custom_title" not in (await store.read(name, at=1)).state["summary"]
        for session in (ID, other):
            await store.verify(name.replace(ID, session))
        forked = await fork_session_via_store(sessions, ID, directory=str(tmp_path))
        assert len(await get_session_messages_from_store(sessions, forked.session_id, directory=str(tmp_path))) >= 1
        assert {info.session_id for info in await list_sessions_from_store(sessions, directory=str(tmp_path))} == {
            ID,
            other,
            forked.session_id,
        }

    play(scenario, url)


def test_a_session_that_the_application_makes_again_is_another_one(url: str) -> None:
    """Behind its tombstone it starts empty, and takes the same lines that it held before, from who knew it and who did not."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        batches = [[*turn(1), title("one")], turn(2)]
        await sessions.append(KEY, batches[0])
        for writer in (sessions, PerdureSessionStore(store)):
            await sessions.delete(KEY)
            state = {"project_key": PROJECT, "session_id": ID, "summary": {}}
            await store.append(NAME, Event("restored", None, (perdure.op.set("", state),)), recreate=True)
            assert await PerdureSessionStore(store).load(KEY) is None
            for batch in (*batches, *batches):
                await writer.append(KEY, batch)
            for reader in (sessions, writer, PerdureSessionStore(store)):
                assert await reader.load(KEY) == [*turn(1), title("one"), *turn(2)]

    play(scenario, url)


def test_listings_say_what_another_process_wrote(file_url: str) -> None:
    """The summary of a session that this process remembers is today's; of two written in one millisecond the later comes first."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        await sessions.append(KEY, [title("old")])
        await sessions.list_session_summaries(PROJECT)
        async with perdure.open(file_url, clock=SeededClock(1, start=2_000_000_000_000_000_000, step=1_000)) as other:
            for id in (ID, "b", "a", "c"):
                await PerdureSessionStore(other).append(KEY | {"session_id": id}, [title(f"new {id}")])
        listed = await sessions.list_sessions(PROJECT)
        assert [found["session_id"] for found in listed] == ["c", "a", "b", ID]
        assert len({found["mtime"] for found in listed}) == 1
        summaries = await sessions.list_session_summaries(PROJECT)
        assert [found["data"]["custom_title"] for found in summaries] == ["new c", "new a", "new b", f"new {ID}"]
        assert [found["mtime"] for found in summaries] == [found["mtime"] for found in listed]

    play(scenario, file_url)


def test_a_note_of_ones_own_is_no_line(url: str) -> None:
    """Events that the application adds to the session are in its history, and in no transcript."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        await sessions.append(KEY, turn(1))
        await store.append(NAME, Event("reviewed", {"by": "ann"}))
        await store.append(NAME, Event("entry", 7))
        await sessions.append(KEY, turn(2))
        assert await sessions.load(KEY) == [*turn(1), *turn(2)]

    play(scenario, url)
