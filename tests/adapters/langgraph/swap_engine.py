"""A pytest plugin: where the suites of LangGraph's engine and agents take an SQLite saver they get a PerdureSaver. Loaded by `-p`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langgraph.checkpoint import sqlite
from langgraph.checkpoint.sqlite import aio

import perdure
import perdure.sync
from perdure.adapters.langgraph import PerdureSaver


class Blocking(PerdureSaver):
    """What stands for SqliteSaver."""

    @classmethod
    @contextlib.contextmanager
    def from_conn_string(cls, conn_string: str = ":memory:") -> Iterator[PerdureSaver]:
        assert conn_string == ":memory:"
        with perdure.sync.open("memory:") as store:
            yield cls(store)


class Asynchronous(PerdureSaver):
    """What stands for AsyncSqliteSaver."""

    @classmethod
    @contextlib.asynccontextmanager
    async def from_conn_string(cls, conn_string: str = ":memory:") -> AsyncIterator[PerdureSaver]:
        assert conn_string == ":memory:"
        async with perdure.open("memory:") as store:
            yield cls(store)


sqlite.SqliteSaver = Blocking
aio.AsyncSqliteSaver = Asynchronous


def pytest_plugin_registered(plugin: Any) -> None:
    """LangChain's conftest takes a saver in memory where it says SQLite."""
    if getattr(plugin, "__name__", "").endswith("conftest") and "langchain" in (getattr(plugin, "__file__", "") or ""):
        plugin._checkpointer_sqlite = Blocking.from_conn_string
        plugin._checkpointer_sqlite_aio = Asynchronous.from_conn_string
