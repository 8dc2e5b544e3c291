"""A server that is stopped: connections stay, no answer comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import perdure
from perdure import Event, op
from tests.servers.mongodb import MongoDB
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Server
from tests.servers.valkey import Valkey

TIMEOUT, WRITERS = 3, 8
pytestmark = pytest.mark.server


@pytest.mark.parametrize("kind", [Valkey, PostgreSQL, MongoDB])
async def test_edits_of_one_session_are_answered_together(server_of_my_own: Callable[[type[Server]], Any], kind: type[Server]) -> None:
    """Eight edits that end while the server is stopped wait for one deadline, not each for its own after the other; then all goes on."""
    server = server_of_my_own(kind)

    mark = "&" if "?" in server.url else "?"
    async with perdure.open(f"{server.url}{mark}timeout={TIMEOUT}") as store:
        await store.append("s", Event("first", None, (op.add("/n", 1),)))
        edits = [store.edit("s") for _ in range(WRITERS)]
        for edit in edits:
            (await edit.__aenter__()).add("/n", 1)
        server.pause()
        try:
            leaving = [edit.__aexit__(None, None, None) for edit in edits]
            # One after the other they would take eight time-outs and more.
            answers = await asyncio.wait_for(asyncio.gather(*leaving, return_exceptions=True), TIMEOUT * (WRITERS - 2))
        finally:
            server.resume()
        assert {type(answer) for answer in answers} <= {perdure.Unknown, perdure.Unavailable}
        unsure = sum(isinstance(answer, perdure.Unknown) for answer in answers)
        await store.append("s", Event("last", None, (op.add("/n", 1),)))
        assert 2 <= (await store.read("s")).state["n"] <= 2 + unsure
