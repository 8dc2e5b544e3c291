"""A table of its own on the emulator that the run shares: some tests look at all that lies in it."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.servers.fixture import Servers
from tests.servers.ministack import TABLE, MiniStack
from tests.support.backends.fake_dynamodb import ENGINE


@pytest.fixture
def url(servers: Servers[MiniStack]) -> str:
    """A URL that nobody else uses."""
    return ENGINE.url(servers(MiniStack)).replace(f"/{TABLE}?", f"/t{uuid4().hex}?")
