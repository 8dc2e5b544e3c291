"""What a commit says to a person: messages in every framework's shape, steps, tools; and nothing that no shape explains fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.cli.commands.messages import rows
from perdure.cli.output import graph
from perdure.cli.output.describe import describe
from perdure.cli.output.rows import CommitRow, EventRow, OpRow

STORED = Path(__file__).parent / "stored"
"""Commits that each adapter wrote, a session after the other, and beside them what is said of them."""


def commit(*events: EventRow) -> CommitRow:
    return CommitRow(1, "2026-11-29T07:32:13.000000000Z", "data", None, None, None, list(events), 0, "id", "00", "00")


def told(*events: EventRow) -> list[str]:
    return [str(line) for line in describe(commit(*events))]


CALL = {"name": "look", "args": {"at": 1}}
SHAPES: list[tuple[Any, str]] = [
    ({"role": "user", "content": "hi"}, "user: hi"),
    ({"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look"}}]}, "assistant: look()"),
    (
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "look", "arguments": '{"at": 1}'}}]},
        "assistant: look(at=1)",
    ),
    ({"role": "assistant", "content": "hm", "tool_calls": [CALL]}, "assistant: hm look(at=1)"),
    ({"role": "tool", "name": "look", "tool_call_id": "c", "content": "fine"}, "tool look: fine"),
    ({"message": {"role": "user", "content": [{"text": "hi"}, {"text": "there"}]}}, "user: hi there"),
    (
        {"message": {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t", "name": "look", "input": {"at": 1}}}]}},
        "assistant: look(at=1)",
    ),
    (
        {"message": {"role": "user", "content": [{"toolResult": {"toolUseId": "t", "content": [{"text": "a"}, {"json": {"b": 1}}]}}]}},
        'tool: a {"b":1}',
    ),
    (
        {"author": "planner", "content": {"parts": [{"text": "hi"}, {"function_call": CALL}], "role": "model"}},
        "planner: hi look(at=1)",
    ),
    (
        {"author": "planner", "content": {"parts": [{"function_response": {"name": "look", "response": {"ok": True}}}], "role": "user"}},
        'tool look: {"ok":true}',
    ),
    ({"author": "user", "message": {"parts": [{"content": "hi", "part_kind": "user-prompt"}]}}, "user: hi"),
    (
        {"author": "user", "message": {"parts": [{"content": ["hi", {"kind": "image"}], "part_kind": "user-prompt"}]}},
        "user: hi [image]",
    ),
    (
        {"author": "assistant", "message": {"parts": [{"tool_name": "look", "args": {"at": 1}, "part_kind": "tool-call"}]}},
        "assistant: look(at=1)",
    ),
    (
        {"author": "tool", "message": {"parts": [{"tool_name": "look", "content": {"ok": True}, "part_kind": "tool-return"}]}},
        'tool look: {"ok":true}',
    ),
    ({"role": "assistant", "contents": [{"type": "text", "text": "hi"}]}, "assistant: hi"),
    ({"role": "assistant", "contents": [{"type": "function_call", "name": "look", "arguments": "{}"}]}, "assistant: look()"),
    ({"role": "tool", "contents": [{"type": "function_result", "result": "fine", "items": []}]}, "tool: fine"),
    ({"message": {"role": "assistant", "content": [{"type": "tool_use", "name": "look", "input": {}}]}}, "assistant: look()"),
    ({"message": {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "x"}]}}, "assistant: (hm)"),
    ({"message": {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "a\nb"}]}}, "tool: a b"),
    ({"type": "function_call", "call_id": "c", "name": "look", "arguments": '{"at": 1}'}, "assistant: look(at=1)"),
    ({"type": "function_call_output", "call_id": "c", "output": "fine"}, "tool: fine"),
    ({"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]}, "assistant: (hm)"),
    (
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": "x"}]},
        "user: hi [input_image]",
    ),
    ({"role": "user", "content": [{"function_call": 5}, 7]}, 'user: {"function_call":5} 7'),
    ({"role": "assistant", "content": "x", "tool_calls": 5}, "assistant: x"),
    (
        {"role": "assistant", "content": "x", "tool_calls": [5, {"function": 7}, {"function": {"name": 3, "arguments": [1]}}]},
        "assistant: x ?([1])",
    ),
    ({"step_index": 1}, "message: step_index=1"),
    ({"name": "search", "hits": 3, "at": "2026-11-29T07:32:13Z"}, "message: name=search, hits=3"),
    ({"id": "38ad5898-0077-428a-8d9a-2ea9cd56ae4d"}, "message: id=38ad5898-0077-428a-8d9a-2ea9cd56ae4d"),
    ("a note", "message: a note"),
    (7, "message: 7"),
]


@pytest.mark.parametrize(("data", "shown"), SHAPES, ids=range(len(SHAPES)))
def test_a_message_is_shown_as_who_said_what(data: Any, shown: str) -> None:
    """The role or author, the text, calls with their arguments, answers with their tool; of anything else its members."""
    assert told(EventRow("message", data, [])) == [shown]


def test_messages_in_a_state_are_messages() -> None:
    """What is put into a list of messages of a state is shown as said; other operations in words, guards not at all."""
    said = {"role": "user", "content": "hi"}
    assert told(EventRow("edited", None, [OpRow("append", "/messages", [said])])) == ["user: hi"]
    ops = [OpRow("test", "/n", 1), OpRow("merge", "", {"a": {"b": 1, "c": None}}), OpRow("remove", "/d", None)]
    assert told(EventRow("edited", None, ops)) == ["edited: set /a/b 1; remove /a/c; remove /d"]
    assert told(EventRow("edited", None, [OpRow("set", "", {"a": 1, "b": 2})])) == ["edited: begin with a, b"]


@pytest.mark.parametrize(
    "name", ["checkpoint", "values", "writes", "popped", "cleared", "compacted", "pinned", "entry", "items", "snapshot"]
)
def test_an_event_of_the_callers_own_may_have_any_name(name: str) -> None:
    """An event that is named like one of an adapter's, and is none, is told by its shape."""
    assert told(EventRow(name, {"euro": 5}, [])) == [f"{name}: euro=5"]
    assert told(EventRow(name, None, [OpRow("set", "/x", 1)]))[0].endswith("set /x 1")


@pytest.mark.parametrize("path", sorted(STORED.glob("*.jsonl")), ids=lambda path: path.stem)
def test_commits_of_each_adapter(path: Path) -> None:
    """What adapters stored is told as who said what, which tool, which step; never as the operations that keep it."""
    lines, last = [], None
    for line in path.read_text().splitlines():
        stored = json.loads(line)
        if stored["session"] != last:
            last = stored["session"]
            lines.append(f"[{last}]")
        row = msgspec.convert(stored["commit"], CommitRow)
        lines += [f"{row.version} {found}" for found in describe(row)]
    assert lines == path.with_suffix(".txt").read_text().splitlines()


def test_a_dialogue_has_each_message_once() -> None:
    """A graph's input, the step that takes it up, and a subgraph that hands it on are one message; calls and answers find each other."""
    stored = [json.loads(line) for line in (STORED / "langgraph.jsonl").read_text().splitlines()]
    found = rows(msgspec.convert(one["commit"], CommitRow) for one in stored if one["session"] == "langgraph/sub")
    assert [(row.who, row.text, [call.name for call in row.calls], [answer.name for answer in row.answers]) for row in found] == [
        ("user", "Sub, please", [], []),
        ("assistant", "Let me look.", ["find_rooms"], []),
        ("tool", "", [], ["find_rooms"]),
        ("assistant", "Room 7 is free.", [], []),
    ]


WORDS = """type role content parts contents message author tool_calls function name args arguments input output text thinking toolUse
toolResult function_call function_response $ ai step source nodes ns from until version index fork session tags put deleted writes __start__
messages
summary call_id id part inline_data mime_type items value ext part_kind kind"""
NAMES = st.sampled_from(WORDS.split())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=2), inner, max_size=5),
    max_leaves=12,
)
PATHS = st.sampled_from(
    ["", "/values", "/values/__start__", "/messages", "/values/messages", "/x", "/items/k", "/run", "/agents/a/agent/at"]
)
LISTS = st.lists(VALUES, max_size=3)
OPS = st.one_of(
    st.builds(OpRow, st.sampled_from(["set", "init", "test"]), PATHS, VALUES),
    st.builds(OpRow, st.sampled_from(["append", "union"]), PATHS, LISTS),
    st.builds(OpRow, st.just("splice"), PATHS, st.tuples(st.integers(0, 3), st.integers(0, 3), LISTS).map(list)),
    st.builds(OpRow, st.just("merge"), PATHS, st.dictionaries(NAMES, VALUES, max_size=4)),
    st.builds(OpRow, st.just("add"), PATHS, st.integers()),
    st.builds(OpRow, st.just("remove"), PATHS, st.none()),
)
"""Operations as the store takes them."""
KINDS = """message checkpoint values writes popped cleared compacted pinned forked merged configured written entry items state_shared
artifact_saved run_registered snapshot tool_effect run_started agent_created agent_updated other"""
TYPES = st.sampled_from(KINDS.split())


@settings(max_examples=400, deadline=None)
@given(st.lists(st.builds(EventRow, TYPES, VALUES, st.lists(OPS, max_size=3)), max_size=3))
def test_nothing_that_is_stored_breaks_a_description(events: list[EventRow]) -> None:
    """Whatever JSON an event holds, a commit is told on at least one printable line, and its messages can be listed."""
    lines = describe(commit(*events))
    assert lines and all("\n" not in str(line) for line in lines)
    for row in rows([commit(*events)]):
        msgspec.json.encode(row)


def test_objects_are_shown_by_what_they_hold() -> None:
    """Of an object in a LangGraph state people see the content, in the form that is written now and in the older one."""
    now = {"$": "tuple", "items": [{"$": "langgraph.types:Interrupt", "fields": {"value": {"question": "ok?"}, "id": "i"}}]}
    before = {"$": "tuple", "items": [{"$": "langgraph.types.Interrupt", "ext": 2, "value": {"value": {"question": "ok?"}, "id": "i"}}]}
    assert graph.plain(now) == graph.plain(before) == [{"value": {"question": "ok?"}, "id": "i"}]
    assert graph.plain([{"$": "app:Color", "member": "RED", "value": "r"}, {"$": "app:Rows", "root": [1]}]) == ["r", [1]]
