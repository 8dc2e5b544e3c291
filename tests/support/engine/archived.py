"""What tests of the archive share: a place, a session with turns, and what is where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import perdure
from perdure import Store
from perdure.model.ids import SessionKey

S = "trip-42"


def place(folder: Path) -> str:
    return f"file://{folder}/archive"


async def turns(store: Store, count: int, session: str = S, start: int = 0) -> None:
    for number in range(start, start + count):
        async with store.edit(session, key=f"k{number}") as draft:
            draft.state.setdefault("turns", []).append(number)
            draft.event("message", {"n": number, "text": "hello " * 20})


async def history(store: Store, session: str = S, **options: Any) -> list[perdure.Commit]:
    return [commit async for commit in store.history(session, **options)]


async def held(store: Store, session: str = S) -> list[int]:
    """The versions that the engine itself still holds."""
    return [record.head.version for record in await store._core.backend.read(SessionKey("default", session), limit=10_000)]


def segments(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "archive").rglob("*-*-*") if path.is_file())
