"""A pytest plugin: what the framework's tests of delta channels take for SQLite savers is PerdureSaver. Loaded by `-p` before them."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Iterator

import pytest
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


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test in a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}))
    return True


@pytest.fixture
def anyio_backend() -> str:
    """On which loop the coroutine tests run."""
    return "asyncio"


def pytest_configure(config: pytest.Config) -> None:
    """The mark that the tests carry."""
    config.addinivalue_line("markers", "asyncio: a coroutine test")
