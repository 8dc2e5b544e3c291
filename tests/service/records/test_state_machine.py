"""The long random life of a store, through a node that verifies every commit: two clients, SQLite after them."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.engine.test_state_machine import Life
from tests.support.service.nodes import Serving


class LifeThroughANode(Life):
    """The same calls, by two clients of one node."""

    scheme = "served"

    def place(self) -> str:
        self.node = Serving(super().place(), snapshot_bytes_min=600, cache_bytes=6_000).start()
        return self.node.url

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.node.stop()


@pytest.mark.long
def test_a_long_life_through_a_node() -> None:
    """Clients and the plain model agree after every call; the node refuses no honest commit."""
    run_state_machine_as_test(
        LifeThroughANode,
        settings=settings(
            max_examples=15,
            stateful_step_count=40,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
