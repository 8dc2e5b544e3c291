"""Keys and lines of every kind: what comes back as it was, what is refused by name, and what leaves nothing behind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from claude_agent_sdk import fold_session_summary
from hypothesis import given
from hypothesis import strategies as st

import perdure
from perdure.adapters.claude_agent import PerdureSessionStore, names
from perdure.model.values import same
from tests.support.adapters import unusual_values
from tests.support.adapters.claude_transcripts import KEY, NAME, PROJECT, play, said, turn

LONG = "-home-ann-" + "work-" * 38 + "x1y2z3"
"""A project key as long as the SDK makes them."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    lines=st.lists(st.dictionaries(st.sampled_from(["type", "message", "timestamp", "customTitle", "data"]), JSON), min_size=1, max_size=6)
)
def test_any_json_comes_back_as_it_was(lines: list[dict[str, Any]]) -> None:
    """Halves of surrogate pairs, NULs, big numbers, any shape: types and all, also in a process that did not write them."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        await sessions.append(KEY, lines)  # type: ignore[arg-type]
        await sessions.append(KEY, lines[:1])  # type: ignore[arg-type]
        assert same(await PerdureSessionStore(store).load(KEY), [*lines, lines[0]])

    play(scenario)


def test_what_values_cannot_hold_is_kept_as_text() -> None:
    """Nesting of 300 levels is in the log as JSON text, also with text cut in the middle of an emoji."""
    deep: Any = "bottom"
    for _ in range(300):
        deep = [deep]

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        lines = [{"type": "x", "deep": deep}, {"type": "x", "half of it: \ud83d": ["\ud83d", deep]}]
        await sessions.append(KEY, lines)
        assert await sessions.load(KEY) == lines
        (commit,) = [commit async for commit in store.history(NAME)]
        assert [(event.type, type(event.data)) for event in commit.events] == [("entry", str), ("entry", str)]

    play(scenario)


@pytest.mark.parametrize("half", unusual_values.HALVES)
def test_half_an_emoji_is_kept(url: str, half: str) -> None:
    """In what is said, in keys, ids and summaries: equal when another store reads it; a line that is sent again is there once."""
    key: Any = {"project_key": f"p{half}", "session_id": f"s{half}"}
    lines = [said(half, f"half of it: {half}"), {"type": half, half: [{half: half}], "customTitle": half}]

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        await sessions.append(key, lines)  # type: ignore[arg-type]
        other = PerdureSessionStore(store)
        await other.append(key, lines[:1])
        assert await other.load(key) == lines
        assert [one["session_id"] for one in await other.list_sessions(key["project_key"])] == [f"s{half}"]
        (summary,) = await other.list_session_summaries(key["project_key"])
        await other.append(key, [{"type": "x", "uuid": "z"}])
        fresh = fold_session_summary(None, key, lines)["data"]  # type: ignore[arg-type]
        assert (summary["data"], summary["session_id"]) == (fresh, f"s{half}")
        assert (await other.list_session_summaries(key["project_key"]))[0]["data"] == fresh
        beside = {**key, "subpath": f"{half * 60}/{half}"}
        await other.append(beside, lines[1:])  # type: ignore[arg-type]
        assert await other.list_subkeys(key) == [beside["subpath"]]
        assert await other.load(beside) == lines[1:]

    play(scenario, url)


def test_a_line_of_an_older_version_is_read() -> None:
    """A line with half of a surrogate pair was stored as its JSON text: it is read as it was, and so is a mark that it held."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        await sessions.append(KEY, [said("a", "first")])
        old = {"type": "user", "uuid": "b", "message": {"content": "cut \ud83d, \ufdd0d83d\ufdd1"}}
        await store.append(NAME, perdure.Event("entry", json.dumps(old)))
        await sessions.append(KEY, [old])  # type: ignore[list-item]
        assert await sessions.load(KEY) == [said("a", "first"), old]

    play(scenario)


@pytest.mark.parametrize(
    "line",
    [
        b"bytes",
        "text",
        None,
        {"type": b"x"},
        {"type": "x", "at": float("nan")},
        {1: "x"},
        {"t": (1, 2)},
        {"s": {1}},
        {"x": ["\ud83d", (1,)]},
    ],
    ids=lambda value: f"{value!a:.30}",
)
def test_what_is_no_json_is_refused(line: Any) -> None:
    """The batch is refused as a whole, with a message that names what is wrong; nothing is written."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        with pytest.raises(perdure.Invalid):
            await sessions.append(KEY, [*turn(1), line])
        assert [info async for info in store.list()] == []

    play(scenario)


@pytest.mark.parametrize("name", unusual_values.NAMES)
def test_odd_values_are_kept_or_refused(name: str) -> None:
    """As a line's content, as a line and in place of the lines: equal when it is read, or `Invalid`, and nothing is stored."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        value = unusual_values.values()[name]
        for lines in ([said("a", "x"), said("b", [value])], [said("a", "x"), value], value):
            try:
                await sessions.append(KEY, lines)
            except perdure.Invalid:
                assert await sessions.load(KEY) is None
            else:
                assert await PerdureSessionStore(store).load(KEY) == lines
                await sessions.append(KEY, [said("c", "goes on")])
                return

    play(scenario)


def test_large_lines(url: str) -> None:
    """A tool's result of 10 MB is stored; one that no commit can hold is refused with both numbers, and the session goes on."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        large = said("large", "0123456789" * 1_000_000)
        await sessions.append(KEY, [*turn(1), large])
        with pytest.raises(perdure.TooLarge) as caught:
            await sessions.append(KEY, [said("larger", "0123456789" * 2_000_000)])
        assert caught.value.facts["size"] > caught.value.facts["limit"] >= 16 << 20
        await sessions.append(KEY, turn(2))
        assert await sessions.load(KEY) == [*turn(1), large, *turn(2)]

    play(scenario, url)


@pytest.mark.parametrize(
    "key",
    [
        None,
        {},
        {"project_key": "p"},
        {"project_key": "", "session_id": "s"},
        {"project_key": "p", "session_id": ""},
        {"project_key": "p", "session_id": 7},
        {"project_key": "p", "session_id": "s", "subpath": ""},
        {"project_key": "p", "session_id": "s" * 300},
    ],
    ids=lambda value: f"{value!a:.60}",
)
def test_keys_that_are_none(key: Any) -> None:
    """Each method that takes the key refuses it; nothing is written."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        for call in (lambda: sessions.append(key, turn(1)), lambda: sessions.load(key), lambda: sessions.delete(key)):
            with pytest.raises(perdure.Invalid):
                await call()
        assert [info async for info in store.list()] == []

    play(scenario)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20) | st.sampled_from(
    ["a/b", "%2F", "..", "a//", "/", "%", "a%~b"]
)


@given(keys=st.lists(st.tuples(NAMES, NAMES, st.none() | NAMES), max_size=6), tail=st.text("ab/%~", max_size=120))
def test_each_key_has_a_transcript_of_its_own(keys: list[tuple[str, str, str | None]], tail: str) -> None:
    """Whatever separators and escapes the parts hold, and however long they are: lines and listings are those of that very key."""
    keys = [*keys, ("p" + tail, "s", None), ("p" + tail, "s", "q" + tail), (LONG, "s", "subagents/agent-7"), (LONG + tail, "s", None)]

    async def scenario(_store: perdure.Store, sessions: PerdureSessionStore) -> None:
        asked = [{"project_key": p, "session_id": s} | ({} if sub is None else {"subpath": sub}) for p, s, sub in dict.fromkeys(keys)]
        for key in asked:
            await sessions.append(key, [{"type": "x", "key": key}])  # type: ignore[arg-type, typeddict-unknown-key]
        for key in asked:
            assert await sessions.load(key) == [{"type": "x", "key": key}]  # type: ignore[arg-type]
        for project in {key["project_key"] for key in asked}:
            mains = {key["session_id"] for key in asked if key["project_key"] == project and "subpath" not in key}
            assert {found["session_id"] for found in await sessions.list_sessions(project)} == mains
            for session in {key["session_id"] for key in asked if key["project_key"] == project}:
                beside = {k["subpath"] for k in asked if (k["project_key"], k["session_id"]) == (project, session) and "subpath" in k}
                assert set(await sessions.list_subkeys({"project_key": project, "session_id": session})) == beside

    play(scenario)


def test_a_long_path_leaves_room_for_subagents() -> None:
    """A project key of 200 characters and a workflow's subpath of 120 make an id that fits, and that no other key can make."""
    key = {
        "project_key": LONG,
        "session_id": "0f0e5a0c-6a54-4c9b-8d0e-5d1c1f5a7b42",
        "subpath": "subagents/" + "workflow/" * 12 + "agent-7",
    }
    place = names.place(key)
    assert len(LONG) > 200 and len(place.session) <= 255
    project = place.session.split("/")[1]
    assert names.project(project) != names.project(LONG)


def test_what_is_not_ours_is_refused(url: str) -> None:
    """A session of somebody else's under a transcript's id is neither read nor added to."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        async with store.edit(NAME) as draft:
            draft.state["messages"] = []
        for call in (lambda: sessions.append(KEY, turn(1)), lambda: sessions.load(KEY), lambda: sessions.list_session_summaries(PROJECT)):
            with pytest.raises(perdure.Invalid, match="something else made it"):
                await call()
        assert (await store.read(NAME)).version == 1

    play(scenario, url)


def test_tenants_and_closed_stores(url: str) -> None:
    """Another tenant sees nothing of a session; a closed store says that it is closed."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        await sessions.append(KEY, turn(1))
        other = PerdureSessionStore(store.for_tenant("other"))
        assert await other.load(KEY) is None
        assert await other.list_sessions(PROJECT) == []
        await store.close()
        with pytest.raises(perdure.Closed):
            await sessions.load(KEY)
        with pytest.raises(perdure.Closed):
            await sessions.append(KEY, turn(2))

    play(scenario, url)


def test_only_a_store_is_taken() -> None:
    """A URL in place of an open store is refused in words."""
    with pytest.raises(perdure.Invalid, match="takes an open store"):
        PerdureSessionStore("memory:")  # type: ignore[arg-type]
