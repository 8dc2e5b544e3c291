"""What the tests of the Claude adapter share: one session of one project, lines as the CLI writes them, a store to play on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import perdure
from perdure.adapters.claude_agent import PerdureSessionStore

ID = "0f0e5a0c-6a54-4c9b-8d0e-5d1c1f5a7b42"
PROJECT = "-home-ann-trip"
KEY: Any = {"project_key": PROJECT, "session_id": ID}
SUB: Any = KEY | {"subpath": "subagents/agent-7"}
NAME = f"claude/{PROJECT}/{ID}"
"""The Perdure session of KEY."""


def said(id: str | None, text: Any, role: str = "user", **more: Any) -> Any:
    """A line of a turn; without an id, as some lines are."""
    line = {"type": role, "sessionId": ID, "timestamp": "2026-11-23T10:00:00.000Z", "message": {"role": role, "content": text}, **more}
    return line if id is None else line | {"uuid": id}


def title(text: str) -> Any:
    """A line without an id."""
    return {"type": "custom-title", "customTitle": text, "sessionId": ID}


def turn(number: int) -> list[Any]:
    """A turn with a tool: question, call, result, answer."""
    call = {"type": "tool_use", "id": f"t{number}", "name": "find_rooms", "input": {"city": "Rome"}}
    result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": [{"type": "text", "text": "rooms 7 and 9"}]}
    return [
        said(f"{number}-question", f"question {number}"),
        said(f"{number}-call", [call], "assistant"),
        said(f"{number}-result", [result]),
        said(f"{number}-answer", [{"type": "text", "text": f"answer {number}"}], "assistant"),
    ]


def play(scenario: Callable[[perdure.Store, PerdureSessionStore], Coroutine[Any, Any, None]], url: str = "memory:") -> None:
    """Run a scenario on a fresh store."""

    async def opened() -> None:
        async with perdure.open(url) as store:
            await scenario(store, PerdureSessionStore(store))

    asyncio.run(asyncio.wait_for(opened(), 60))
