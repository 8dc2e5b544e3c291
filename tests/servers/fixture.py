"""Real servers for a run: each started by the first test that asks for it, shared, and stopped for certain at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from tests.servers.process import Missing, Server
from tests.support.needs import missing

S = TypeVar("S", bound=Server)
Servers = Callable[[type[S]], S]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers[Server]]:
    """`servers(Valkey)` is a running server of that kind, the same one all through the run (of this worker)."""
    running: dict[type[Server], Server] = {}

    def get(kind: type[Server]) -> Server:
        if kind not in running:
            running[kind] = started(kind, tmp_path_factory, [])
        return running[kind]

    try:
        yield get
    finally:
        for server in running.values():
            server.stop()


@pytest.fixture
def server_of_my_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers[Server]]:
    """As `servers`, but started for this test alone, which may kill it."""
    mine: list[Server] = []

    def get(kind: type[Server]) -> Server:
        return started(kind, tmp_path_factory, mine)

    try:
        yield get
    finally:
        for server in mine:
            server.stop()


def started(kind: type[S], places: pytest.TempPathFactory, mine: list[Server]) -> S:
    """A server that serves, noted in `mine` before it starts. A port that was free when it was chosen may be taken when the server comes
    to it: then another one is made."""
    for last in (False, False, True):
        server = make(kind, places)
        mine.append(server)
        try:
            server.start()
        except RuntimeError as error:
            if last or "in use" not in str(error):
                raise
            server.stop()
        except BaseException:
            server.stop()
            raise
        else:
            return server
    raise AssertionError("The last try raises.")


def make(kind: type[S], places: pytest.TempPathFactory) -> S:
    """A server that is not started yet; skips the test where it is not installed, or fails it where it should be."""
    with missing_skips(obtainable=kind.obtainable):
        return kind(places.mktemp(kind.name))


@contextmanager
def missing_skips(*, obtainable: bool = True) -> Iterator[None]:
    """What is `Missing` within skips the test, or fails it where it should be there."""
    try:
        yield
    except Missing as error:
        if obtainable:
            missing(str(error))
        pytest.skip(str(error))
