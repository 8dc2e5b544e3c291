"""How `perdure log` shows what the frameworks' messages say, whatever shape they have."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.cli.rows import EventRow, preview

SHAPES: list[tuple[Any, str]] = [
    ({"role": "user", "content": "hi"}, "user: hi"),
    ({"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look"}}]}, "assistant: look(…)"),
    ({"message": {"role": "user", "content": [{"text": "hi"}, {"text": "there"}]}}, "user: hi there"),
    (
        {"author": "planner", "content": {"parts": [{"text": "hi"}, {"function_call": {"name": "look"}}], "role": "model"}},
        "planner: hi look(…)",
    ),
    ({"author": "user", "message": {"parts": [{"content": "hi", "part_kind": "user-prompt"}]}}, "user: hi"),
    ({"author": "user", "message": {"parts": [{"content": ["hi", {"kind": "image"}]}]}}, 'user: "hi" {"kind":"image"}'),
    ({"author": "assistant", "message": {"parts": [{"tool_name": "look", "args": {"at": 1}}]}}, "assistant: look(…)"),
    ({"author": "tool", "message": {"parts": [{"tool_name": "look", "content": {"ok": True}}]}}, 'tool: {"ok":true}'),
    ({"role": "assistant", "contents": [{"type": "text", "text": "hi"}]}, "assistant: hi"),
    ({"role": "assistant", "contents": [{"type": "function_call", "name": "look", "arguments": "{}"}]}, "assistant: look(…)"),
    ({"role": "tool", "contents": [{"type": "function_result", "result": "fine", "items": []}]}, "tool: fine"),
    ({"role": "user", "content": [{"function_call": 5}, 7]}, "user: ?(…) 7"),
    ({"message": {"role": "assistant", "content": [{"type": "tool_use", "name": "look", "input": {}}]}}, "assistant: look(…)"),
    ({"message": {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "x"}]}}, "assistant: hm"),
    ({"step_index": 1}, '{"step_index":1}'),
]


@pytest.mark.parametrize(("data", "shown"), SHAPES, ids=range(len(SHAPES)))
def test_a_message_is_shown_as_who_said_what(data: Any, shown: str) -> None:
    """The role or author, the text, and calls by name; anything else as compact JSON."""
    assert preview(EventRow("message", data, [])) == shown
