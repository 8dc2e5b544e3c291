"""A pytest plugin for Strands' own tests, which stay as they are: the stores that they make are Perdure's.

Loaded by name in a process of its own, before any test module is imported. Runs coroutine tests too, so that no other plugin is needed.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from pathlib import Path
from typing import Any

import pytest
import strands.session.snapshot_session_manager
import strands.storage
import strands.storage.in_memory_storage
import strands.storage.local_file_storage
import tests.fixtures.mock_session_repository as fixture
from strands.storage.storage import _EPHEMERAL

import perdure
from perdure.adapters.strands import PerdureSessionRepository, PerdureStorage

STORES: dict[str, Any] = {}


def store(place: str) -> Any:
    """An open store for a place: one for each folder, in memory or on SQLite as the environment says; closed at the end."""
    if place not in STORES:
        url = "memory:" if os.environ["PERDURE_SUITE_ENGINE"] == "memory" else f"sqlite:///{place}/perdure.db"
        if url != "memory:":
            Path(place).mkdir(parents=True, exist_ok=True)
        STORES[place] = perdure.sync.open(url)
    return STORES[place]


class Repository(PerdureSessionRepository):
    """In place of MockedSessionRepository: one of its own for each test."""

    def __init__(self) -> None:
        super().__init__(store(fresh()))


class InMemoryStorage(PerdureStorage):
    """In place of the class of this name, with its mark for what does not outlive the process."""

    _ephemeral = _EPHEMERAL

    def __init__(self, *, search_strategy: Any = None) -> None:
        super().__init__(store(fresh()), search_strategy=search_strategy)


class LocalFileStorage(PerdureStorage):
    """In place of the class of this name: the folder becomes the place of the store."""

    def __init__(self, base_dir: str = "./.strands/") -> None:
        super().__init__(store(str(Path(base_dir).absolute())))


NUMBER = iter(range(1_000_000))


def fresh() -> str:
    return f"{os.environ['PERDURE_SUITE_PLACE']}/{next(NUMBER)}"


fixture.MockedSessionRepository = Repository  # type: ignore[misc]
for module in (strands.storage, strands.storage.in_memory_storage):
    module.InMemoryStorage = InMemoryStorage  # type: ignore[attr-defined]
for module in (strands.storage, strands.storage.local_file_storage, strands.session.snapshot_session_manager):
    module.LocalFileStorage = LocalFileStorage  # type: ignore[attr-defined]


@pytest.fixture
def agenerator() -> Any:
    """What the suite's own conftest, which needs more packages, gives: a list as an asynchronous generator."""

    async def one_by_one(items: list[Any]) -> Any:
        for item in items:
            yield item

    return one_by_one


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test in a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(pyfuncitem.obj(**wanted))
    return True


def pytest_configure(config: pytest.Config) -> None:
    """The mark that the tests carry."""
    config.addinivalue_line("markers", "asyncio: a coroutine test")


def pytest_sessionfinish() -> None:
    """Close what was opened."""
    for opened in STORES.values():
        opened.close()
