"""What a config names: thread, namespace and checkpoint; and the session that keeps a thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig

from perdure.errors import Invalid
from perdure.model.ids import check_name

PREFIX = "langgraph/"
"""What the ids of threads' sessions begin with, so that threads are listed apart from everything else in the store."""


class Place(NamedTuple):
    """What a config points at. `id` is `None` for the newest checkpoint."""

    thread: str
    ns: str
    id: str | None

    @property
    def session(self) -> str:
        """The session's id."""
        return session_of(self.thread)

    def config(self, id: str) -> RunnableConfig:
        """The config that names a checkpoint of this namespace: the framework's three names, and nothing else."""
        return {"configurable": {"thread_id": self.thread, "checkpoint_ns": self.ns, "checkpoint_id": id}}


def place(config: Mapping[str, Any]) -> Place:
    """What a config points at. Raises `Invalid` for one without a thread or with names that are no strings."""
    configurable = config.get("configurable") or {}
    thread = configurable.get("thread_id")
    if thread is None:
        raise Invalid("The config has no thread_id: pass {'configurable': {'thread_id': 'trip-42'}}.")
    ns, id = configurable.get("checkpoint_ns") or "", configurable.get("checkpoint_id") or None
    for name, value in (("checkpoint_ns", ns), ("checkpoint_id", id)):
        if value is not None and not isinstance(value, str):
            raise Invalid(f"{name} must be a string, not {type(value).__name__}.")
    return Place(str(thread), ns, id)


def is_run(config: Mapping[str, Any]) -> bool:
    """Whether a running graph made this config."""
    return any(name.startswith("__pregel_") for name in config["configurable"])


def session_of(thread: str) -> str:
    """The session that keeps a thread. Raises `Invalid` for an id that no session can have."""
    return check_name("A thread id, with the prefix that the adapter adds,", PREFIX + thread)


def thread_of(session: str) -> str:
    """The thread that a session keeps."""
    return session.removeprefix(PREFIX)
