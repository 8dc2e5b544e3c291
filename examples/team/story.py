"""What the team did, from the session's history. What happened at the same time is sorted by name, so that every run reads alike."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

import perdure


async def story(store: perdure.Store, session: str) -> list[str]:
    """A line for each event, then the state."""
    events = [(commit.actor or "", event) async for commit in store.history(session) for event in commit.events]
    shown = [each for each in events if each[1].type != "pinned"]  # It only says that a fork was made.
    lines = []
    for type, same in groupby(shown, key=lambda each: each[1].type):
        lines += sorted(f"{actor:10}{type:15}{_said(event.data)}" for actor, event in same)
    state = (await store.read(session)).state
    state["board"] = sorted(state["board"])
    return [*lines, "", *(f"{name:10}{json.dumps(value, sort_keys=True)}" for name, value in sorted(state.items()))]


def _said(data: Any) -> str:
    """The data of an event in a few words."""
    words = [" and ".join(each) if isinstance(each, list) else str(each) for name, each in data.items() if name != "hash"]
    return ", ".join(words)
