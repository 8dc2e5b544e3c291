"""The engine's own tests on stores that are reached through a node, which verifies each commit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.docs.pages import ROOT

NOT_FOR_CLIENTS = {
    "it asks resource routes about a tenant that the client does not reach": [
        "archive/test_archive.py::test_tenants_stay_apart[served]", "read/test_reading.py::test_tenants_are_strangers[served]",
    ],
    "what is archived is metered where it is done": ["test_telemetry.py::test_what_goes_to_the_archive_is_metered[served]"],
    "it damages what the node has in its memory": [
        "archive/test_archive_refused.py::test_a_damaged_segment_is_named_and_nothing_else_breaks[served]",
    ],
    "bodies out of line are stored by nodes": [
        f"test_bodies.py::{name}[served]"
        for name in (
            "test_what_is_read_is_what_it_is_without", "test_only_larger_bodies_go_out", "test_a_watcher_gets_them",
            "test_the_blocking_api", "test_tenants_do_not_meet", "test_a_retry_stores_nothing_new", "test_refused_bodies_are_removed",
        )
    ] + ["test_sizes.py::test_where_the_bytes_are[served]"],
    "Perdure's own sessions are written by nodes": [
        "live/test_changes.py::test_everything_comes_in_order[served]",
        "live/test_changes.py::test_a_notification_wakes_a_follower_for_its_tenant_alone[served]",
    ],
    "it appends control commits of its own making, which a node refuses": [
        "archive/test_archive_refused.py::test_a_held_lease_refuses[served]",
        "live/test_changes.py::test_what_is_truncated_is_said[served]",
        "live/test_changes.py::test_types_prefix_and_control_choose[served]",
    ],
    "it counts the threads of this process, where the node is": [
        "live/test_watching_ends.py::test_whoever_breaks_off_leaves_nothing[served]",
        "test_sharing.py::test_nothing_is_left_behind[served]",
    ],
    "fifty watchers read three hundred commits each, over and over: half a minute here": [
        "live/test_watching.py::test_every_commit_comes_once_and_in_order[served]",
    ],
}  # fmt: skip
"""What is left out, by the reason."""


@pytest.mark.slow("three hundred tests, each with a node of its own")
@pytest.mark.timeout(1200)
def test_the_engine_is_the_same_through_a_node() -> None:
    """Whatever the engine's tests claim of a store holds for a client of a node too."""
    left_out = [f"--deselect=tests/engine/{each}" for names in NOT_FOR_CLIENTS.values() for each in names]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "served", "-m", "not slow", "--timeout", "120", "-n", "2", "tests/engine", *left_out],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PERDURE_TEST_SERVED": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert ran.returncode == 0, ran.stdout[-8_000:]
