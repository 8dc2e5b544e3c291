"""Any life of sessions of a node that archives them, for a client: it reads and writes as on a store that never archives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings

from tests.engine.archive.test_archive_machine import SEARCH, ArchivedBesidePlain
from tests.support.service.nodes import Serving


class ArchivedByANode(ArchivedBesidePlain):
    """The store that archives is a node's."""

    def place(self) -> dict[str, Any]:
        where = super().place()
        self.node = Serving(where["url"], archive=where["archive"], snapshot_bytes_min=500, cache_bytes=2_000).start()
        return {"url": self.node.url}

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            if self.names:
                self.node.stop()


TestNode = pytest.mark.long(ArchivedByANode.TestCase)
TestNode.settings = settings(max_examples=15, stateful_step_count=30, phases=SEARCH)
TestMore = pytest.mark.slow(type("TestMore", (ArchivedByANode.TestCase,), {"settings": settings(max_examples=200, phases=SEARCH)}))
"""Slow: minutes of random lives."""
