"""The conformance kit on other versions of the servers: the oldest and newest that the pages name."""

from __future__ import annotations

import pytest

from perdure.backends.conformance import CASES, Case
from tests.backends.test_engines import opened
from tests.servers.fixture import Servers
from tests.servers.process import Server
from tests.servers.versions import Etcd36, PostgreSQL15, Redis7
from tests.support.backends.engines import Engine, diagnosis

VERSIONS = {
    "PostgreSQL 15.": Engine("postgresql-15", PostgreSQL15),
    "Redis 7.": Engine("redis-7", Redis7),
    "etcd 3.6": Engine("etcd-3.6", Etcd36),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("engine", VERSIONS.values(), ids=str)
def test_version_conforms(engine: Engine, case: Case, servers: Servers[Server]) -> None:
    """What the kit asks of an engine holds on this version too."""
    url = engine.url(servers(engine.server))
    case.run(lambda: opened(url), lambda _: opened(url))


@pytest.mark.parametrize("version", VERSIONS)
def test_it_is_the_version_that_is_meant(version: str, servers: Servers[Server]) -> None:
    """`perdure doctor` tells that version."""
    engine = VERSIONS[version]
    assert version in str(diagnosis(engine.url(servers(engine.server)))["server"]["server"])
