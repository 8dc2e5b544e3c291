"""The conformance kit, and `perdure doctor`, on every engine that needs a server."""

from __future__ import annotations

import pytest

from perdure.backends.conformance import CASES, Case
from tests.servers.fixture import Servers
from tests.servers.process import Server
from tests.support.backends.engines import ENGINES, Engine, diagnosis
from tests.support.backends.scenarios import opened


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_engine_conforms(engine: Engine, case: Case, servers: Servers[Server]) -> None:
    """Each engine does what the specification says on its real server, through two handles where the case asks for them."""
    url = engine.url(servers(engine.server))
    case.run(lambda: opened(url), lambda _: opened(url))


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_doctor_tells_what_the_server_is(engine: Engine, servers: Servers[Server]) -> None:
    """`perdure doctor` shows the server's name and version, and what it found, with how to mend it."""
    told = diagnosis(engine.url(servers(engine.server)))
    assert told["healthy"], told
    assert told["status"] == 0
    assert any(character.isdigit() for character in told["server"]["server"])
    assert all(finding["what"].endswith(".") and finding["fix"] for finding in told["findings"])
