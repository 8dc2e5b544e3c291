"""A pytest plugin: what the framework's store tests take for their SQLite stores is PerdureStore. Loaded by `-p` before they are."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.store import sqlite
from langgraph.store.sqlite import aio, base

import perdure
import perdure.sync
from perdure.adapters.langgraph import PerdureStore


def address(conn_string: str) -> str:
    """The store for the database that a test names; a file that it made, and that is empty, becomes ours."""
    return "memory:" if conn_string == ":memory:" else f"sqlite:///{Path(conn_string).resolve()}.perdure"


class Blocking(PerdureStore):
    """What stands for SqliteStore."""

    MIGRATIONS = base.SqliteStore.MIGRATIONS

    def setup(self) -> None: ...

    @classmethod
    @contextlib.contextmanager
    def from_conn_string(cls, conn_string: str, **options: Any) -> Iterator[PerdureStore]:
        with perdure.sync.open(address(conn_string)) as store:
            yield cls(store, **options)


class Asynchronous(PerdureStore):
    """What stands for AsyncSqliteStore."""

    async def setup(self) -> None: ...

    @classmethod
    @contextlib.asynccontextmanager
    async def from_conn_string(cls, conn_string: str, **options: Any) -> AsyncIterator[PerdureStore]:
        async with perdure.open(address(conn_string)) as store:
            yield cls(store, **options)


sqlite.SqliteStore = base.SqliteStore = Blocking
sqlite.AsyncSqliteStore = aio.AsyncSqliteStore = Asynchronous


@pytest.fixture
def anyio_backend() -> str:
    """On which loop the coroutine tests run."""
    return "asyncio"
