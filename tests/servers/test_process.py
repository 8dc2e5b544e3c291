"""The harness itself: a server that is killed comes back with its data on its port, one that is paused goes on."""

from __future__ import annotations

import pytest

from tests.servers.fixture import Servers
from tests.servers.process import Missing
from tests.servers.valkey import Valkey, ask


def test_a_server_is_killed_and_brought_back(server_of_my_own: Servers[Valkey]) -> None:
    """After kill -9 nothing runs; started again it has its data, on the same port."""
    server = server_of_my_own(Valkey)
    port = server.port("primary")
    ask(port, "SET", "a", "1")
    server.kill()
    assert not server.runs("primary")
    with pytest.raises(ConnectionError):
        ask(port, "GET", "a")
    server.start()
    assert ask(server.port("primary"), "GET", "a") == "1"
    server.pause()
    server.resume()
    assert ask(port, "PING") == "PONG"


def test_a_missing_server_names_the_line_that_installs_it() -> None:
    """What is not installed is told with the command to mend it."""

    class Nowhere(Valkey):
        name = "nowhere"
        install = "pip install nowhere"

        @classmethod
        def program(cls) -> str:
            return cls.found("nowhere/*", "nowhere-server")

    with pytest.raises(Missing, match="nowhere is not installed: pip install nowhere"):
        Nowhere.program()
