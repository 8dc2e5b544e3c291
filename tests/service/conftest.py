"""A node in this process on an empty store, and nodes that are processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure.service.app import App
from perdure.service.node import Node
from perdure.service.options import ServeOptions
from tests.servers.node import Nodes
from tests.support.service.asking import Asker

Serving = Callable[..., AbstractAsyncContextManager[Asker]]


@pytest.fixture
def serving() -> Serving:
    """Makes applications in this process.

    `async with serving() as ask`; `ask.app.node` is its node. It takes settings of `ServeOptions`, and an open store.
    """

    @asynccontextmanager
    async def make(store: perdure.Store | None = None, **options: Any) -> AsyncIterator[Asker]:
        if store is not None:
            yield Asker(App(Node(store, ServeOptions(**options))))
            return
        async with perdure.open("memory:") as made:
            yield Asker(App(Node(made, ServeOptions(**options))))

    return make


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """One node as a process, on a SQLite store."""
    nodes = Nodes(tmp_path / "nodes")
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()
