"""Half a surrogate pair in a thread: kept in values, keys, metadata, writes and store items. A thread id with one is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint

import perdure.sync
from perdure.adapters.langgraph import PerdureSaver, PerdureStore
from tests.support.adapters import unusual_values


@pytest.mark.parametrize("half", unusual_values.HALVES)
def test_half_an_emoji_is_kept(half: str) -> None:
    """Equal when another saver of the same store reads it."""
    with perdure.sync.open("memory:") as store:
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        checkpoint: Any = empty_checkpoint() | {
            "channel_values": {"x": half, "m": {half: [half]}},
            "channel_versions": {"x": "1", "m": "1"},
        }
        saver = PerdureSaver(store)
        saved = saver.put(config, checkpoint, {"source": "input", "step": 0, "note": half}, {"x": "1", "m": "1"})  # type: ignore[typeddict-unknown-key]
        saver.put_writes(saved, [("x", half)], "task")
        found = PerdureSaver(store).get_tuple(config)
        assert found is not None
        assert found.checkpoint["channel_values"] == {"x": half, "m": {half: [half]}}
        assert found.metadata["note"] == half  # type: ignore[typeddict-item]
        assert found.pending_writes == [("task", "x", half)]
        items = PerdureStore(store)
        items.put(("notes",), "k", {half: [half]}, index=False)
        item = PerdureStore(store).get(("notes",), "k")
        assert item is not None
        assert item.value == {half: [half]}


def test_a_thread_id_with_half_an_emoji_is_refused() -> None:
    """By `Invalid`, on every call, before anything is written."""
    with perdure.sync.open("memory:") as store:
        config: Any = {"configurable": {"thread_id": "t\ud83d", "checkpoint_ns": ""}}
        for call in (
            lambda: PerdureSaver(store).put(config, empty_checkpoint(), {"source": "input", "step": 0}, {}),
            lambda: PerdureSaver(store).get_tuple(config),
        ):
            with pytest.raises(perdure.Invalid, match="lone surrogate"):
                call()
        assert list(store.list()) == []
