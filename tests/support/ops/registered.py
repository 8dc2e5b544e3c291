"""What tests of consumers share: sessions to handle, and the checkpoint of a name."""

from __future__ import annotations

import perdure
from perdure import Change, Event, Store, ops
from perdure.engine.store import system_store
from tests.support.ops.consumers import until_true


async def write(store: Store, sessions: str, commits: int = 1) -> None:
    """So many commits to each of these sessions in turn."""
    for number in range(commits):
        for session in sessions:
            await store.append(session, Event("n", number))


async def checkpoint(store: Store, name: str = "indexer") -> perdure.View:
    """The session that is a consumer's checkpoint."""
    return await system_store(store).read(f"consumer/{name}")


async def until_saved(store: Store, change: Change) -> None:
    """Wait until the checkpoint says that this change was handled."""

    async def saved() -> bool:
        return (await ops.consumers(store, "indexer"))[0].at == change.commit.time

    await until_true(saved)
