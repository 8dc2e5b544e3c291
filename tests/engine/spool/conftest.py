"""What the spool's tests share: where its file is, and a wait for a condition."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest


@pytest.fixture
def spool(tmp_path: Path) -> str:
    """The URL of a spool that is not there yet."""
    return f"sqlite:///{tmp_path}/spool.db"


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds; the test's own end is the limit."""
    while not await condition():  # noqa: ASYNC110 - what is waited for is another thread's, or another process's
        await asyncio.sleep(0.01)
