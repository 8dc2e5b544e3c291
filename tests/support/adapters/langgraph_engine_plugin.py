"""A pytest plugin: where the suites of LangGraph's engine and agents take an SQLite saver they get a PerdureSaver. Loaded by `-p`."""

from __future__ import annotations

from typing import Any

from langgraph_saver_plugin import Asynchronous, Blocking  # it stands beside this file, and replaces the savers when it is imported


def pytest_plugin_registered(plugin: Any) -> None:
    """LangChain's conftest takes a saver in memory where it says SQLite."""
    if getattr(plugin, "__name__", "").endswith("conftest") and "langchain" in (getattr(plugin, "__file__", "") or ""):
        plugin._checkpointer_sqlite = Blocking.from_conn_string
        plugin._checkpointer_sqlite_aio = Asynchronous.from_conn_string
